"""Benchmarks: `make bench`. The suite measures once, in `test_*.py`; `targets` and `report` only read what it found."""

import sys
from pathlib import Path

# The notes' code is a peer here and the oracle of the tests; it is written once, in tests/naive.py.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
