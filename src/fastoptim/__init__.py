"""Optimizers for parameters that are NumPy arrays: one scalar rule, one fused, parallel, in-place kernel."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from fastoptim._suggest import did_you_mean
from fastoptim._version import __version__ as __version__
from fastoptim.family import FAMILY

if sys.maxsize < 2**32:
    raise ImportError("fastoptim needs a 64-bit Python: its kernels take addresses of 64 bits")

# Importing Numba takes half a second, so each module is imported when one of its names is first used. The command line
# can then answer --help at once and handle Ctrl-C from the start.
_MODULES = dict.fromkeys(FAMILY, "optimizers") | {
    "MultiLayerNet": "network",
    "MultiLayerNetExtend": "network",
    "Optimizer": "optimizer",
    "Rows": "rows",
    "check_rule": "checking",
    "compare": "comparison.interactive",
    "flatten": "parameters",
    "load": "checkpoint",
    "load_mnist": "mnist",
    "minimize": "minimization",
    "num_threads": "threads",
    "schedules": "schedules",
    "scipy_method": "minimization",
    "show_config": "configuration",
    "smooth_curve": "comparison.curves",
    "sweep": "sweeping",
    "tree": "trees",
}
_OPTIONAL = {"mpi", "sklearn", "torch"}
"""Packages that import a library which may not be installed."""

if TYPE_CHECKING:
    # Type checkers cannot read names from the table, and with `__getattr__` they would accept any name.
    from fastoptim import schedules as schedules
    from fastoptim.checking import check_rule as check_rule
    from fastoptim.checkpoint import load as load
    from fastoptim.comparison.curves import smooth_curve as smooth_curve
    from fastoptim.comparison.interactive import compare as compare
    from fastoptim.configuration import show_config as show_config
    from fastoptim.minimization import minimize as minimize
    from fastoptim.minimization import scipy_method as scipy_method
    from fastoptim.mnist import load_mnist as load_mnist
    from fastoptim.network import MultiLayerNet as MultiLayerNet
    from fastoptim.network import MultiLayerNetExtend as MultiLayerNetExtend
    from fastoptim.optimizer import Optimizer as Optimizer
    from fastoptim.optimizers import *  # noqa: F403
    from fastoptim.parameters import flatten as flatten
    from fastoptim.rows import Rows as Rows
    from fastoptim.sweeping import sweep as sweep
    from fastoptim.threads import num_threads as num_threads
    from fastoptim.trees import tree as tree
else:
    # A star import must not replace these four, which the textbook's scripts import from elsewhere.
    _ELSEWHERE = {"MultiLayerNet", "MultiLayerNetExtend", "load_mnist", "smooth_curve"}
    __all__ = sorted({*_MODULES, "__version__"} - _ELSEWHERE)

    def __getattr__(name):
        if name in _OPTIONAL:
            return import_module(f"fastoptim.{name}")
        if name not in _MODULES:
            hint = did_you_mean(name, [*_MODULES, *_OPTIONAL])
            raise AttributeError(f"module 'fastoptim' has no attribute {name!r}{hint}")
        module = import_module(f"fastoptim.{_MODULES[name]}")
        value = globals()[name] = getattr(module, name, module)
        return value

    def __dir__():
        return sorted([*_MODULES, "__version__"])
