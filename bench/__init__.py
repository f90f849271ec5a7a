"""Benchmarks: `make bench`. Only `test_*.py` measures; `targets` and `report` read the file of figures it writes."""

import sys
from pathlib import Path

# The oracle of the tests, tests/naive.py, checks the results of every contestant.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
