"""The page of rules of whole arrays: an element's new value depends on all others, so no kernel can compute it alone.

Products of matrices are NumPy's, by BLAS. Like the rules of one element, these are pure functions that round to the
dtypes of what they assign to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["adafactor", "muon", "orthogonalized"]

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""The coefficients of the iteration that is steepest at 0. Jordan et al. (2024)."""
_SCALE = _C**0.25
_HALF = _B / (2 * _C**0.5)
_N_ITERATIONS = 5


def orthogonalized(u: NDArray[Any], least: float, added: float) -> NDArray[Any]:
    """Return about the nearest matrix with orthogonal rows or columns: singular values become 0.7 to 1.2.

    Parameters
    ----------
    u : ndarray of shape (rows, columns)
        A matrix; float16 is computed in float32.
    least, added : float
        The norm that it is divided by is not less than the first, and the second is added to it.

    Notes
    -----
    The five iterations of Newton and Schulz are ``x = (A + B * s + C * s @ s) @ x`` with ``s = x @ x.T``. For an x that
    is scaled by the fourth root of C, the factor is ``A - h**2 + (s + h) @ (s + h)``: products alone.
    """
    u = np.asarray(u, np.result_type(u, np.float32))
    norm = max(float(np.linalg.norm(u)), least) + added
    is_tall = u.shape[0] > u.shape[1]
    x = np.divide(u.T if is_tall else u, u.dtype.type(norm / _SCALE), order="C")
    n = len(x)
    s, factor, y = np.empty((n, n), x.dtype), np.empty((n, n), x.dtype), np.empty_like(x)
    for _ in range(_N_ITERATIONS):
        # A matrix times its own transpose takes BLAS half of the arithmetic, and `s` is symmetric.
        np.matmul(x, x.T, out=s)
        s.ravel()[:: n + 1] += _HALF
        np.matmul(s, s.T, out=factor)
        factor.ravel()[:: n + 1] += _A - _HALF * _HALF
        np.matmul(factor, x, out=y)
        x, y = y, x
    x /= _SCALE
    return x.T if is_tall else x


def muon(
    p: Any, g: Any, m: Any, step: float, of_gradient: float, of_mean: float, one_minus_momentum: float,
    least: float, added: float,
) -> tuple[Any, Any]:  # fmt: skip
    """A step along the momentum, made orthogonal. Jordan et al. (2024)."""
    m += one_minus_momentum * (g - m)
    p -= step * orthogonalized(of_gradient * g + of_mean * m, least, added)
    return p, m


def _root_mean_square(x: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(x * x)))


def adafactor(
    p: Any, g: Any, rows: Any, columns: Any, v: Any, lr: float, weight: float, eps: float, least: float,
    clip_threshold: float, decay: float,
) -> tuple[Any, ...]:  # fmt: skip
    """Scaled steps with a mean of squares for each row and column alone. Shazeer and Stern (2018), algorithms 4-5.

    An ``eps`` of 0 stands for the machine epsilon.
    """
    if not p.size:
        return p, rows, columns, v
    g = np.asarray(g, np.result_type(g, np.float32))
    eps = eps or float(np.finfo(p.dtype).eps)
    lr *= max(least, _root_mean_square(np.asarray(p, np.result_type(p, np.float32))))
    p -= decay * p
    square = g * g
    if p.ndim > 1:
        rows += weight * (square.mean(axis=-1, keepdims=True) - rows)
        columns += weight * (square.mean(axis=-2, keepdims=True) - columns)
        mean = np.asarray(rows) / np.maximum(np.asarray(rows).mean(axis=-2, keepdims=True), eps)
        square = mean * np.asarray(columns)
    else:
        v += weight * (square - v)
        square = np.asarray(v)
    step = g / np.sqrt(np.maximum(square, eps * eps))
    p -= lr / max(1.0, _root_mean_square(step) / clip_threshold) * step
    return p, rows, columns, v
