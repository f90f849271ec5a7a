"""A drop-in for the textbook's ``from common.optimizer import *``: its six optimizers and ``np``, nothing else.

Examples
--------
>>> from fastoptim.notes import *
>>> params = {"x": np.ones(2)}
>>> SGD(lr=0.5).update(params, {"x": np.array([1.0, -1.0])})
>>> params["x"]
array([0.5, 1.5])
"""

import numpy as np

from fastoptim.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "np"]
