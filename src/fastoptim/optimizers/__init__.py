"""The built-in optimizers turn hyperparameters into the scalars of a step; the formulas are in `kernels`.

Rules of one element are in `kernels.rules` and `kernels.adam_rules`, those of whole arrays in `kernels.matrix`.
"""

from typing import TYPE_CHECKING

from fastoptim.family import FAMILY
from fastoptim.optimizers.adam import *  # noqa: F403
from fastoptim.optimizers.adam_maxima import *  # noqa: F403
from fastoptim.optimizers.adam_nesterov import *  # noqa: F403
from fastoptim.optimizers.adam_numerators import *  # noqa: F403
from fastoptim.optimizers.adam_variances import *  # noqa: F403
from fastoptim.optimizers.adaptive import *  # noqa: F403
from fastoptim.optimizers.layerwise import *  # noqa: F403
from fastoptim.optimizers.matrices import *  # noqa: F403
from fastoptim.optimizers.prodigy import *  # noqa: F403
from fastoptim.optimizers.schedule_free import *  # noqa: F403
from fastoptim.optimizers.sgd import *  # noqa: F403
from fastoptim.optimizers.sign import *  # noqa: F403

if not TYPE_CHECKING:
    # Type checkers read the `__all__` of each module; one that is computed would hide all names from them.
    __all__ = [*FAMILY]
