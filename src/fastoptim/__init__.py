"""Optimizers for parameters that are NumPy arrays: one scalar rule, one fused, parallel, in-place kernel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastoptim._version import __version__

if TYPE_CHECKING:
    from fastoptim.checkpoint import load
    from fastoptim.curves import smooth_curve
    from fastoptim.mnist import load_mnist
    from fastoptim.network import MultiLayerNet
    from fastoptim.optimizer import Optimizer
    from fastoptim.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
    from fastoptim.parameters import flatten
    from fastoptim.threads import num_threads

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "Momentum",
    "MultiLayerNet",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "__version__",
    "flatten",
    "load",
    "load_mnist",
    "num_threads",
    "smooth_curve",
]

# Where these are, what is quick to load first. Numba takes half a second to load, so nothing is before it is asked
# for: the command line answers --help at once, and Ctrl-C from its first moment on.
_MODULES = ("optimizers", "optimizer", "parameters", "threads", "network", "curves", "mnist", "checkpoint")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for place in _MODULES:
            module = import_module(f"fastoptim.{place}")
            if name in module.__all__:
                value = globals()[name] = getattr(module, name)
                return value
    raise AttributeError(f"module 'fastoptim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
