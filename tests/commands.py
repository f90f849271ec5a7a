"""Helpers of the tests of the command line: options, and its processes."""

import csv
import os
import subprocess
import sys

import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, streams and folders")

SMALL = ["--data", "digits", "--hidden", "8", "--batch-size", "16"]
LONG = ["compare", *SMALL, "--iterations", "900", "--threads", "1", "--optimizers", "SGD", "--output"]


def raising(error):
    """Return a function that raises an error."""

    def call(*_args, **_kwargs):
        raise error

    return call


def rows(folder):
    """Return the rows of the losses that a run wrote."""
    return list(csv.reader((folder / "losses.csv").read_text(encoding="ascii").splitlines()))


def command(*argv, run=("-m", "fastoptim"), **options):
    """Start the command as a process in which warnings are errors; ``run`` is what Python runs with its arguments."""
    environ = {**os.environ, **options.pop("environ", {})}
    # Otherwise nothing is left in the buffers when Python exits.
    environ.pop("PYTHONUNBUFFERED", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-W", "error", *run, *argv], env=environ, **pipes | options)


def small(folder):
    """Return the arguments of a short comparison."""
    return "compare", *SMALL, "--iterations", "3", "--output", folder
