"""Leave out the doctests of modules that need a library which is not installed, and the script of the ranks of MPI."""

from importlib.util import find_spec

MODULES = {
    "torch": ("torch", "torch_masters", "torch_states"),
    "sklearn": ("sklearn", "sklearn_training"),
    "mpi4py": ("mpi", "mpi_states", "mpi_team"),
}
"""By the library that they need."""

collect_ignore = ["tests/mpi_checks.py"] + [
    f"src/fastoptim/{module}.py" for library, modules in MODULES.items() if not find_spec(library) for module in modules
]
