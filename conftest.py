"""Leave out the doctests of modules that need a library which is not installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else [f"src/fastoptim/torch{part}.py" for part in ("", "_masters", "_states")]
