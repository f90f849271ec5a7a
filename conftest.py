"""Leave out the doctests of modules that need a library which is not installed, and the script of the ranks of MPI."""

from importlib.util import find_spec

FOLDERS = {"torch": "torch", "sklearn": "sklearn", "mpi4py": "mpi"}
"""The packages inside of fastoptim, by the library that they need."""

collect_ignore = ["tests/mpi_checks.py"] + [
    f"src/fastoptim/{folder}" for library, folder in FOLDERS.items() if not find_spec(library)
]
