"""Where arrays lie in memory: their addresses, whether they overlap, and whether a kernel can walk over them."""

from __future__ import annotations

import operator
from bisect import bisect_right

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastoptim.entries import Array

__all__ = ["Spans", "address", "blank", "is_walkable", "laid_out_copy", "spans_of", "touches"]

Spans = list[tuple[int, int]]
"""Start and stop of stretches of memory, in order."""


def address(array: Array) -> int:
    """Return the address of the first element."""
    return int(array.__array_interface__["data"][0])


def spans_of(arrays: list[Array]) -> Spans:
    """Return the stretches of memory within which arrays lie, without the empty ones."""
    return sorted(byte_bounds(array) for array in arrays if array.size)


def touches(spans: Spans, array: Array) -> bool:
    """Tell whether an array may share memory with what lies in some stretches, which do not overlap."""
    if not array.size:
        return False
    start, stop = byte_bounds(array)
    k = bisect_right(spans, stop - 1, key=operator.itemgetter(0))
    return k > 0 and spans[k - 1][1] > start


def is_walkable(array: Array, strides: tuple[int, ...]) -> bool:
    """Tell whether an array is aligned and lies in memory with these strides, so that a kernel can walk over it."""
    # The stride of a dimension of one element has no meaning.
    same = all(n == 1 or a == b for n, a, b in zip(array.shape, array.strides, strides, strict=True))
    return array.size == 0 or (same and array.flags.aligned)


def blank(like: Array, strides: tuple[int, ...]) -> Array:
    """Return a new array of the shape and dtype of another, with these strides, which leave no gaps."""
    return np.ndarray(like.shape, like.dtype, np.empty(like.size, like.dtype), 0, strides)


def laid_out_copy(array: Array, strides: tuple[int, ...]) -> Array:
    """Return the array itself if it is walkable, else a copy of it that is."""
    if is_walkable(array, strides):
        return array
    copy = blank(array, strides)
    np.copyto(copy, array)
    return copy
