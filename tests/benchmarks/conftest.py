import sys
from pathlib import Path

# As Python itself does for `python benchmarks/blocks.py`.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
