import sys
from pathlib import Path

# As Python itself does for `python examples/NAME/main.py`; no two examples share a module's name,
# but for `main`, which no test imports.
for name in ("function_names", "sentiment_trees"):
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / name))
