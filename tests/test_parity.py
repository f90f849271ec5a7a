"""Each case of the table of `libraries` takes the steps of the installed library, to rounding."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

import libraries


@pytest.mark.parametrize("library", libraries.LIBRARIES)
def test_every_case(library):
    if missing := libraries.missing(library):
        pytest.skip(f"{' and '.join(missing)} not installed; `make parity` installs it")
    # In a process of its own, because these libraries start threads, and have settings that hold for the process.
    run = subprocess.run([sys.executable, libraries.__file__, library], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(lines) == len(libraries.CASES[library]) + len(libraries.SCHEDULES.get(library, []))
    # The negation fails for NaN too.
    far = [f"{ours} and {theirs}: {worst:.1e}" for ours, theirs, worst, bound in lines if not worst <= bound]
    assert not far, "\n".join([f"{library} {version(library)}", *far])
