"""The versions, the processor and the libraries that a report of a problem should name."""

import platform
from pathlib import Path

import llvmlite
import numba
import numpy as np
import scipy

from fastoptim._messages import one_line
from fastoptim._version import __version__
from fastoptim.kernels.cache import cache_folder

__all__ = ["configuration", "show_config"]


def show_config() -> None:
    """Print versions, processor, threading layer, BLAS and the folder of compiled code, as ``fastoptim info`` does.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.show_config()  # doctest: +ELLIPSIS
    fastoptim        ...
    Python           3...
    """
    print(configuration())


def configuration() -> str:
    """Return the lines that `show_config` prints."""
    rows = [
        ("fastoptim", __version__),
        ("Python", f"{platform.python_version()}, {platform.platform()}"),
        ("NumPy", np.__version__),
        ("SciPy", scipy.__version__),
        ("Numba", f"{numba.__version__}, llvmlite {llvmlite.__version__}"),
        ("CPU", f"{_cpu_name()}, {numba.config.NUMBA_DEFAULT_NUM_THREADS} cores"),
        ("threading layer", _threading_layer()),
        *(("BLAS", library) for library in _blas()),
        ("compiled code", str(cache_folder())),
    ]
    return "\n".join(f"{name:<16} {value}" for name, value in rows)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _threading_layer() -> str:
    try:
        # Numba chooses its layer when it starts its threads, which this call does.
        n_threads = numba.get_num_threads()
        return f"{numba.threading_layer()}, {n_threads} threads"
    except ValueError as error:
        return f"none: {one_line(error)}"


def _blas() -> list[str]:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return ["unknown: pip install threadpoolctl"]
    # threadpoolctl only finds libraries that are loaded.
    import scipy.linalg  # noqa: F401

    line = "{internal_api} {version}, {num_threads} threads, {filepath}"
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return [line.format(**library) for library in libraries] or ["unknown to threadpoolctl"]
