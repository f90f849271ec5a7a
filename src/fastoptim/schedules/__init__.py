"""Schedules: hyperparameters as functions of the number of updates done, which is 0 in the first step.

Every hyperparameter takes a schedule, or any other function of a whole number; ``opt.lr`` is then the number of the
next step. A schedule is a plain value: it compares equal to another one of the same numbers, and checkpoints keep it.

Examples
--------
>>> import fastoptim as fo
>>> from fastoptim import schedules
>>> opt = fo.Adam(lr=schedules.warmup(schedules.cosine(1e-3, 100), 10))
>>> opt.lr
0.0001
"""

from fastoptim.schedules.combined import ReduceOnPlateau, join, warmup
from fastoptim.schedules.cycles import cosine_restarts, cyclic, one_cycle
from fastoptim.schedules.decays import (
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    multistep,
    polynomial,
    step,
)

__all__ = [
    "ReduceOnPlateau", "constant", "cosine", "cosine_restarts", "cyclic", "exponential", "inverse_sqrt", "join",
    "linear", "multistep", "one_cycle", "polynomial", "step", "warmup",
]  # fmt: skip
