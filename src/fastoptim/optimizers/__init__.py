"""The built-in optimizers: hyperparameters in, the scalars of a step out. The formulas are in `kernels.rules`."""

from typing import TYPE_CHECKING

from fastoptim.family import FAMILY
from fastoptim.optimizers.adam import *  # noqa: F403
from fastoptim.optimizers.adaptive import *  # noqa: F403
from fastoptim.optimizers.sgd import *  # noqa: F403

if not TYPE_CHECKING:
    # Type checkers read the lists of the three modules; a list that is computed would hide the names from them.
    __all__ = [*FAMILY]
