"""Each case of the table of `libraries` takes the steps of the installed library, to rounding."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import libraries

PAGE = Path(__file__).parent.parent / "docs" / "libraries.md"


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


@pytest.mark.parametrize("library", libraries.LIBRARIES)
def test_the_page_has_every_case_in_its_order(library):
    begin, end = f"<!-- {library} -->\n", f"<!-- end of {library} -->"
    listed = PAGE.read_text(encoding="utf-8").split(begin)[1].split(end)[0].strip().splitlines()[2:]
    cases = [*libraries.CASES[library], *libraries.SCHEDULES.get(library, [])]
    expected = [f"| `{case.ours}` | {', '.join(f'`{call}`' for call in case.calls)} |" for case in cases]
    assert [line.rpartition("|")[0].rpartition("|")[0] + "|" for line in listed] == expected
