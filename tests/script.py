"""Run Python source in a separate process, with a time limit."""

import os
import subprocess
import sys
import textwrap

TIMEOUT = 60

WARNINGS = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
"""Options of Python: warnings are errors, except that of a fork beside other threads, which many tests are about."""


def start(source, folder, *arguments, **environment):
    """Start source as a script with `WARNINGS`; a variable that is None is removed from the environment."""
    script = folder / "script.py"
    source = textwrap.dedent(source)
    if not script.exists() or script.read_text(encoding="utf-8") != source:
        script.write_text(source, encoding="utf-8")
    environment = {**os.environ, **environment}
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, *WARNINGS, str(script), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes)


def finish(process):
    """Return what the script printed; check that it exits in time, with code 0 and nothing on standard error."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        # Its children are killed too, where there are process groups: the script may be waiting for one of them.
        getattr(os, "killpg", os.kill)(process.pid, 9)
        raise AssertionError(f"still running after {TIMEOUT} seconds: {process.communicate()}") from None
    assert (process.returncode, err) == (0, ""), f"{process.returncode}\n{out}\n{err}"
    return out.strip()


def run(source, folder, *arguments, **environment):
    """Run source as a script and return what it printed; see `start` and `finish`."""
    return finish(start(source, folder, *arguments, **environment))
