"""Optimizers for parameters that are NumPy arrays: one scalar rule, one fused, parallel, in-place kernel."""

from fastoptim._version import __version__
from fastoptim.checkpoint import load
from fastoptim.curves import smooth_curve
from fastoptim.kernels.launch import num_threads
from fastoptim.mnist import load_mnist
from fastoptim.network import MultiLayerNet
from fastoptim.optimizer import Optimizer
from fastoptim.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from fastoptim.parameters import flatten

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


def __dir__() -> list[str]:
    return __all__
