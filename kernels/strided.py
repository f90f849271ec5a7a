"""Blocks of strided arrays, copied to and from a buffer in the order in which their state lies in memory."""

from __future__ import annotations

from fastoptim.kernels.jit import inline_jit
from fastoptim.kernels.memory import copy_elements, word

__all__ = ["GRADIENT", "PARAMETER", "copy_block"]

PARAMETER, GRADIENT = 0, 1
"""Which strides of a walk: see `table`."""


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
    done = 0
    while done < count:
        rest = start + done
        place = rest % last
        run = min(count - done, last - place)
        rest //= last
        address = array + place * step
        for k in range(n_axes - 2, -1, -1):
            length = word(lengths, k)
            address += (rest % length) * word(strides, k)
            rest //= length
        if writes:
            copy_elements(T, address, step, block + done * size, size, run)
        else:
            copy_elements(T, block + done * size, size, address, step, run)
        done += run
