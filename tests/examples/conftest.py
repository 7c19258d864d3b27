import sys
from pathlib import Path

# As Python itself does for `python examples/function_names/main.py`.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "function_names"))
