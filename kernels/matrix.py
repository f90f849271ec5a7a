"""The rules of whole arrays: an element's new value depends on all others, so no kernel can compute it alone.

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
_BLOCK = 32768
"""Number of elements of Adafactor that are computed at a time."""


def orthogonalized(u: NDArray[Any], least: float, added: float) -> NDArray[Any]:
    """Return an approximation of the nearest matrix with orthogonal rows or columns.

    Parameters
    ----------
    u : ndarray of shape (rows, columns)
        A matrix; float16 is computed in float32.
    least, added : float
        The lower bound of the norm that it is divided by, and a number that is added to this norm.

    Returns
    -------
    ndarray of shape (rows, columns)
        Its singular values are 0.7 to 1.2, except those that are tiny in ``u``.

    Notes
    -----
    The five iterations of Newton and Schulz are ``x = (A + B * s + C * s @ s) @ x`` with ``s = x @ x.T``. If x is
    scaled by the fourth root of C, the factor is ``A - h**2 + (s + h) @ (s + h)`` with ``h = B / (2 * sqrt(C))``:
    products, and sums with multiples of the identity.

    References
    ----------
    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """
    u = np.asarray(u, np.result_type(u, np.float32))
    # In float32, the squares of numbers from 1e19 on are infinite, and the step would be 0.
    square = np.einsum("ij,ij->", u, u, dtype=np.result_type(u, np.float64))
    norm = max(float(square) ** 0.5, least) + added
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


def _sum_of_squares(x: NDArray[Any]) -> float:
    x = x.ravel()
    return float(np.einsum("i,i->", x, x))


def adafactor(
    p: Any, g: Any, rows: Any, columns: Any, v: Any, lr: float, weight: float, eps: float, least: float,
    clip_threshold: float, decay: float,
) -> tuple[Any, ...]:  # fmt: skip
    """Steps scaled by a mean of squares for each row and each column. Shazeer and Stern (2018), algorithms 4-5.

    An ``eps`` of 0 stands for the machine epsilon. Float16 is computed in float32.
    """
    if not p.size:
        return p, rows, columns, v
    kind = np.result_type(p, g, np.float32)
    shape, eps, g = p.shape, eps or float(np.finfo(p.dtype).eps), np.atleast_1d(np.asarray(g, kind))
    p, v = np.atleast_1d(np.asarray(p)), np.atleast_1d(np.asarray(v))
    if is_matrix := p.ndim > 1:
        rows, columns = np.asarray(rows), np.asarray(columns)
        rows = rows + weight * (np.einsum("...ij,...ij->...i", g, g)[..., np.newaxis] / p.shape[-1] - rows)
        columns = columns + weight * (np.einsum("...ij,...ij->...j", g, g)[..., np.newaxis, :] / p.shape[-2] - columns)
        of_rows = np.sqrt(rows / np.maximum(rows.mean(axis=-2, keepdims=True), eps))
        of_columns = np.broadcast_to(np.sqrt(columns), (len(p), *columns.shape[1:]))
    means, step = np.empty_like(v), np.empty_like(p, kind)
    # Blocks stay in the processor's cache from one line to the next.
    n_blocks = -(-p.size // _BLOCK)
    blocks = [slice(len(p) * k // n_blocks, len(p) * (k + 1) // n_blocks) for k in range(n_blocks)]
    of_p = of_step = 0.0
    for block in blocks:
        part = step[block]
        if is_matrix:
            np.multiply(of_rows[block], of_columns[block], out=part)
        else:
            np.multiply(g[block], g[block], out=part)
            part -= v[block]
            part *= weight
            part += v[block]
            means[block] = part
            np.sqrt(part, out=part)
        np.maximum(part, eps, out=part)
        np.divide(g[block], part, out=part)
        of_p += _sum_of_squares(p[block])
        of_step += _sum_of_squares(part)
    lr *= max(least, (of_p / p.size) ** 0.5) / max(1.0, (of_step / p.size) ** 0.5 / clip_threshold)
    for block in blocks:
        part = step[block]
        part *= lr
        np.subtract(p[block] * (1 - decay) if decay else p[block], part, out=part)
    return step.reshape(shape), rows, columns, v if is_matrix else means.reshape(shape)
