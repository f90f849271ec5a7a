"""Batch normalization and dropout: what a network may do between the product and the output of a hidden layer.

All loops go through the rows of a matrix, so that they are vectorized over its columns. A sum over the rows is one
chain of additions in float64, so no bit depends on threads.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastoptim.kernels.jit import inline_jit, jit

__all__ = ["Extension", "drop", "move_averages", "normalize", "normalize_backward", "scale"]

_TINY = 10e-7
"""Keeps the variance from zero; the value is that of the textbook."""
_MOMENTUM = 0.9
"""The share of the old value in a moving average, likewise."""


class Extension(NamedTuple):
    """What a pass through a network takes besides samples and parameters, if it has normalization or dropout."""

    is_training: bool
    drops: bool
    """Whether it has dropout."""
    ratio: float
    """The probability that an element is dropped."""
    drawn: Any
    """Uniform numbers for each element of each hidden layer, one layer after the other, if some are to be dropped."""
    statistics: NDArray[Any]
    """Means and variances of the units of all normalized layers: computed in training, used otherwise."""


@inline_jit
def _column_means(x, out):
    totals = np.zeros(out.size)
    for i in range(x.shape[0]):
        row = x[i]
        for j in range(row.size):
            totals[j] += row[j]
    for j in range(out.size):
        out[j] = totals[j] / x.shape[0]


@inline_jit
def _column_variances(x, mean, out):
    totals = np.zeros(out.size)
    for i in range(x.shape[0]):
        row = x[i]
        for j in range(row.size):
            deviation = row[j] - mean[j]
            totals[j] += deviation * deviation
    for j in range(out.size):
        out[j] = totals[j] / x.shape[0]


@inline_jit
def _inverse_deviations(var):
    T = var.dtype.type
    inverse = np.empty_like(var)
    for j in range(var.size):
        inverse[j] = T(1) / np.sqrt(var[j] + T(_TINY))
    return inverse


@inline_jit
def normalize(z, bias, gamma, mean, var, is_training, normal):
    """Compute ``normal = (z + bias - mean) / sqrt(var + 1e-6)``, and replace ``z`` by ``gamma * normal``.

    In training, ``mean`` and ``var`` are first computed: those of the columns of ``z + bias``.
    """
    center = np.empty_like(mean)
    if is_training:
        _column_means(z, center)
        _column_variances(z, center, var)
        for j in range(mean.size):
            mean[j] = center[j] + bias[j]
    else:
        for j in range(mean.size):
            center[j] = mean[j] - bias[j]
    inverse = _inverse_deviations(var)
    for i in range(z.shape[0]):
        row, normal_row = z[i], normal[i]
        for j in range(row.size):
            value = (row[j] - center[j]) * inverse[j]
            normal_row[j] = value
            row[j] = gamma[j] * value


@inline_jit
def normalize_backward(delta, normal, gamma, var, d_gamma, d_beta):
    r"""Replace the gradient with respect to ``gamma * normal + beta`` by that with respect to ``z``.

    With the means :math:`\langle\cdot\rangle` over the rows, :math:`\delta \to \gamma\,(\delta - \langle\delta\rangle -
    n \langle\delta n\rangle) / \sqrt{v + 10^{-6}}`: the mean and the variance depend on ``z`` too.
    """
    rows = delta.shape[0]
    totals, products = np.zeros(d_beta.size), np.zeros(d_beta.size)
    for i in range(rows):
        d, n = delta[i], normal[i]
        for j in range(d.size):
            totals[j] += d[j]
            products[j] += d[j] * n[j]
    mean, slope, factor = np.empty_like(gamma), np.empty_like(gamma), _inverse_deviations(var)
    for j in range(d_beta.size):
        d_beta[j], d_gamma[j] = totals[j], products[j]
        mean[j], slope[j] = totals[j] / rows, products[j] / rows
        factor[j] *= gamma[j]
    for i in range(rows):
        d, n = delta[i], normal[i]
        for j in range(d.size):
            d[j] = factor[j] * (d[j] - mean[j] - n[j] * slope[j])


@inline_jit
def drop(a, drawn, ratio):
    """Multiply the elements by zero for which a number was drawn that is not above the ratio."""
    zero, one = a.dtype.type(0), a.dtype.type(1)
    for i in range(a.shape[0]):
        row, numbers = a[i], drawn[i]
        for j in range(row.size):
            # Multiplied, so that NaN and infinity spread as in NumPy.
            row[j] *= one if numbers[j] > ratio else zero


@inline_jit
def scale(a, factor):
    """Multiply all elements by a number."""
    for i in range(a.shape[0]):
        row = a[i]
        for j in range(row.size):
            row[j] *= factor


def _move(averages, values):
    """Move averages towards new values, for which other Python threads and signal handlers wait."""
    T = averages.dtype.type
    for k in range(averages.shape[0]):
        for j in range(averages.shape[1]):
            averages[k, j] = T(_MOMENTUM) * averages[k, j] + T(1 - _MOMENTUM) * values[k, j]


move_averages = jit(_move, nogil=False)
