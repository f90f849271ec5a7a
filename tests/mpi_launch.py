"""Start scripts on several ranks of MPI."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import script


def mpiexec():
    """Return the path of mpiexec, beside the interpreter or on the path; None without it or mpi4py."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("mpiexec", path=beside) if find_spec("mpi4py") else None


def command(n_ranks, *arguments):
    """Return the command that runs Python with arguments on some ranks."""
    return [mpiexec(), "-n", str(n_ranks), sys.executable, *script.WARNINGS, *map(str, arguments)]


def environment():
    """Return variables with which more ranks than cores do not wait for each other's spinning threads."""
    one_thread = dict.fromkeys(["NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")
    return {**os.environ, **one_thread, "MPIR_CVAR_POLLS_BEFORE_YIELD": "1"}
