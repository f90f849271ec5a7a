"""The initial parameters of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim.arguments import whole_number

__all__ = ["initial_parameters"]

_VARIANCES = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}
"""The variance of the initial weights, times the number of inputs of their layer."""


def initial_parameters(
    sizes: Sequence[int], weight_init_std: str | float, seed: int | None, is_normalized: bool = False
) -> dict[str, NDArray[Any]]:
    """Return normal weights ``W1, W2, …`` and biases ``b1, b2, …`` of zeros, in float64.

    For batch normalization, ``gamma1, gamma2, …`` of ones and ``beta1, beta2, …`` of zeros follow.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of inputs, of the units of each hidden layer, and of outputs.
    weight_init_std : str or float
        The standard deviation of the weights, or the name of one that depends on the number of inputs.
    seed : int or None
        A seed, or None to draw from the global ``numpy.random``.
    is_normalized : bool
        Whether the hidden layers have batch normalization.

    Raises
    ------
    ValueError
        If the standard deviation is no finite number and no known name, or the seed is out of range.
    """
    rng = np.random if seed is None else np.random.RandomState(whole_number("seed", seed, 0, 2**32 - 1))
    arrays = {}
    for k, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        arrays[f"W{k}"] = _scale(weight_init_std, inputs) * rng.randn(inputs, outputs)
        arrays[f"b{k}"] = np.zeros(outputs)
    for k, units in enumerate(sizes[1:-1] if is_normalized else (), start=1):
        arrays[f"gamma{k}"], arrays[f"beta{k}"] = np.ones(units), np.zeros(units)
    return arrays


def _scale(weight_init_std: Any, inputs: int) -> float:
    name = str(weight_init_std).lower()
    if name in _VARIANCES:
        return float(np.sqrt(_VARIANCES[name] / inputs))
    is_number = isinstance(weight_init_std, Real) and not isinstance(weight_init_std, bool)
    if not is_number or not math.isfinite(weight_init_std):
        expected = f"a finite number or one of {', '.join(_VARIANCES)}"
        raise ValueError(f"weight_init_std must be {expected}, not {weight_init_std!r}")
    return float(weight_init_std)
