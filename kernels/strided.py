"""Blocks of strided arrays, copied to and from a buffer in the order in which their state lies in memory."""

from __future__ import annotations

import numpy as np

from fastoptim.kernels.jit import inline_jit
from fastoptim.kernels.memory import copy_elements, word

__all__ = ["BLOCK", "FROM_ARRAY", "GRADIENT", "PARAMETER", "TO_ARRAY", "copy_block"]

BLOCK = 512
"""Number of elements that are copied at a time, and that are summed at a time."""

PARAMETER, GRADIENT = np.intp(0), np.intp(1)
"""Which strides of a walk: see `table`. For each of the literals 0 and 1, Numba would compile another function."""

FROM_ARRAY, TO_ARRAY = np.bool_(False), np.bool_(True)
"""The direction of a copy, likewise."""


@inline_jit
def copy_block(T, walk, which, array, start, count, size, block, writes):
    """Copy some elements of an array to a packed block, or back.

    Parameters
    ----------
    T : type
        Of the elements.
    walk : int
        Address of the walk of the array's row.
    which : int
        PARAMETER or GRADIENT: which strides of the walk are those of the array.
    array, block : int
        Their addresses.
    start, count : int
        The elements to copy, in the order of the walk.
    size : int
        Bytes of an element.
    writes : bool
        Copy from the block to the array.
    """
    n_axes = word(walk, 0)
    lengths, strides = walk + 8, walk + 8 + 8 * n_axes * (1 + which)
    last, step = word(lengths, n_axes - 1), word(strides, n_axes - 1)
    line, place, done = start // last, start % last, 0
    while done < count:
        run = min(count - done, last - place)
        address, rest = array + place * step, line
        # The slowest axis needs no division, and most walks have two axes or one.
        for k in range(n_axes - 2, 0, -1):
            length = word(lengths, k)
            address += (rest % length) * word(strides, k)
            rest //= length
        if n_axes > 1:
            address += rest * word(strides, 0)
        if writes:
            copy_elements(T, address, step, block + done * size, size, run)
        else:
            copy_elements(T, block + done * size, size, address, step, run)
        done += run
        line += 1
        place = 0
