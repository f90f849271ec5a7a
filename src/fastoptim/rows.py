"""Row-sparse gradients, such as those of an embedding: a step touches few rows of its table."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastoptim.arguments import is_masked
from fastoptim.kernels import table
from fastoptim.kernels.fuse import fuse
from fastoptim.kernels.jit import DISABLED
from fastoptim.kernels.parallel import run
from fastoptim.kernels.transforms import added

__all__ = ["Rows", "sum_rows"]

_KINDS: dict[Any, Any] = {np.dtype(T): T for T in (np.float32, np.float64)}


@dataclass(init=False, frozen=True, slots=True, eq=False)
class Rows:
    r"""A row-sparse gradient, which `Optimizer.update` takes in place of an array: some rows, with their indices.

    The gradient of an embedding is zero except in the rows that were looked up. Only these rows, and their state, are
    read and written. With the sums :math:`g_r = \sum_{k\,:\,i_k = r} v_k` of the values of each row, and the state
    :math:`s` of the optimizer,

    .. math::

        (p_r, s_r) \leftarrow \begin{cases}
            \mathrm{rule}(p_r, g_r, s_r) & \text{if } r \text{ is among the indices } i \\
            (p_r, s_r) & \text{otherwise.}
        \end{cases}

    Parameters
    ----------
    indices : array_like of int
        Of any shape; ``table[indices]`` is what was looked up. An index may occur many times, in any order.
    values : ndarray of a floating dtype
        Of shape ``indices.shape + table.shape[1:]``: the gradient of ``table[indices]``.

    Attributes
    ----------
    indices, values : ndarray
        As given.

    Raises
    ------
    TypeError
        If the indices are not integers, or the values are no array of a floating dtype.
    ValueError
        If the shape of the values does not begin with that of the indices.

    Notes
    -----
    A row that is not touched stays as it is: its momentum does not move it, its averages do not decay, and neither
    ``l2`` nor ``weight_decay`` shrinks it. All rows share the number of steps, `iter`, as in PyTorch's ``SparseAdam``.
    Norms are those of the sums, with zeros elsewhere; ``cautious`` counts the elements of touched rows. A rule that
    computes norms of parameters, such as `LAMB`, or averages them, and ``accumulate``, ``centralize``, ``ema`` and
    ``lookahead`` need all elements at each step, so they do not take such gradients.

    Values of one row are added in the order in which they are given, in their own dtype. The rows of a parameter of one
    axis are its elements. Indices below zero are errors.

    References
    ----------
    .. [1] Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
       Journal of Machine Learning Research 12, 2011, about sparse gradients.
    .. [2] PyTorch, ``torch.optim.SparseAdam``, "a masked version of the Adam algorithm suited for sparse gradients".

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> table = np.zeros((5, 2))
    >>> words = np.array([3, 0, 3])
    >>> opt = fo.SGD(lr=1.0)
    >>> opt.update({"table": table}, {"table": fo.Rows(words, np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))})
    >>> table
    array([[-3., -4.],
           [ 0.,  0.],
           [ 0.,  0.],
           [-6., -8.],
           [ 0.,  0.]])
    """

    indices: NDArray[np.integer[Any]]
    values: NDArray[np.floating[Any]]

    def __init__(self, indices: ArrayLike, values: NDArray[Any]) -> None:
        for name, array in (("indices", indices), ("values", values)):
            if is_masked(array):
                raise TypeError(f"the {name} of Rows are a masked array, and a gradient has no place for its mask")
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            kind = f"dtype {values.dtype}" if isinstance(values, np.ndarray) else f"type {type(values).__name__}"
            raise TypeError(f"the values of Rows are of {kind}, expected a NumPy array of a floating dtype")
        indices = np.asarray(indices)
        if indices.dtype.kind not in "iu":
            if indices.size or indices.dtype.kind != "f":
                hint = "; np.flatnonzero(mask) are the indices of a mask" if indices.dtype.kind == "b" else ""
                raise TypeError(f"the indices of Rows are of dtype {indices.dtype}, expected integers{hint}")
            # NumPy makes float64 of an empty list.
            indices = indices.astype(np.intp)
        if values.shape[: indices.ndim] != indices.shape:
            raise ValueError(
                f"the values of Rows have shape {values.shape}, expected {indices.shape}, the shape of the indices, "
                "and then that of a row"
            )
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "values", np.asarray(values))


def sum_rows(key: Hashable, shape: tuple[int, ...], gradient: Rows) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return the rows that a gradient has, each once, and the sums of their values, both aligned and without gaps.

    Parameters
    ----------
    key
        That of the parameter, for messages.
    shape : tuple of int
        That of the parameter.
    gradient : Rows
        Its gradient.

    Returns
    -------
    rows : ndarray of intp, shape (n,)
        The row of each sum; sorted if any had to be added.
    sums : ndarray, shape (n, *shape[1:])
        The sum of the values of each row, of their dtype.

    Raises
    ------
    IndexError
        If an index is negative, or beyond the rows of the parameter.
    ValueError
        If the parameter has no axes, or the values have another shape than its rows.
    """
    # A copy and a view, so that other threads cannot alter what was checked.
    indices, values, row_shape = gradient.indices.astype(np.intp), gradient.values.view(), shape[1:]
    if not shape:
        raise ValueError(f"the gradient of {key!r} is Rows, but its parameter has no axes, so it has no rows")
    if values.shape != indices.shape + row_shape:
        raise ValueError(
            f"the gradient of {key!r} is Rows with values of shape {values.shape}, expected "
            f"{(*indices.shape, *row_shape)}: the shape of its indices, then that of a row of its parameter"
        )
    count = indices.size
    if not count:
        # The strides of an array that was made without rows are zero.
        return np.zeros(0, np.intp), np.zeros((1, *row_shape), values.dtype)[:0]
    indices = indices.reshape(-1)
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= shape[0]:
        raise IndexError(
            f"the gradient of {key!r} is Rows with index {low if low < 0 else high}, expected indices from 0 to "
            f"{shape[0] - 1}, the rows of its parameter"
        )
    values = np.require(values.reshape(count, *row_shape), requirements=["C", "ALIGNED"])
    rows, order = _sorted(indices, high)
    is_first = np.ones(count, bool)
    np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
    if is_first.all():
        return indices, values
    rows, places = rows[is_first], np.empty(count, np.intp)
    places[order] = np.cumsum(is_first) - 1
    # Adding to -0.0 changes no number, not even -0.0.
    sums = np.full((len(rows), *row_shape), -0.0, values.dtype)
    _add_rows(sums, places, values)
    return rows, sums


def _sorted(indices: NDArray[np.intp], high: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the sorted indices and their original positions; equal indices stay in order."""
    bits = len(indices).bit_length()
    if high.bit_length() + bits >= 64:
        order = np.argsort(indices, kind="stable")
        return indices[order], order
    # NumPy sorts numbers several times as fast as it finds their order. With its position below it, each is unique.
    keys = np.sort((indices << bits) | np.arange(len(indices)))
    return keys >> bits, keys & ((1 << bits) - 1)


def _add_rows(sums: NDArray[Any], places: NDArray[np.intp], values: NDArray[Any]) -> None:
    """Add each row of the values to the sum at its place, in order."""
    kind = _KINDS.get(values.dtype)
    if kind is None or DISABLED:
        with np.errstate(all="ignore"):
            np.add.at(sums, places, values)
        return
    # `np.add.at` takes ten times as long as this kernel, whose rule has no scalars.
    kernel, step = fuse(added, (kind, kind), touched=True), sums.strides[0]
    touched = np.array([places.ctypes.data, sums[0].size, 0, 0, step, step], np.intp)
    row = np.zeros(table.SLOTS, np.intp)
    row[[table.TOUCHED, table.P, table.G]] = [array.ctypes.data for array in (touched, sums, values)]
    program = np.array([0, 1, kernel.address, row.ctypes.data, 0, values.size], np.intp)
    run(program.ctypes.data)
