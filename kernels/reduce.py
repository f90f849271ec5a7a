"""Sums over the elements of each array, such as those of its norm, with the same bits for any number of threads.

An array is summed in float64 in blocks that are counted from its first element, then the blocks are added in order.
The results of a function for the elements of a block are stored before they are summed, so that both loops are
vectorized. The division of an update among threads decides only which thread sums a block.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastoptim.concurrency import compiling
from fastoptim.kernels.jit import bind_globals, cfunc
from fastoptim.kernels.memory import add_up, integers, load, scalars, scratch, set_word, store, word
from fastoptim.kernels.strided import BLOCK, FROM_ARRAY, GRADIENT, PARAMETER, copy_block
from fastoptim.kernels.table import NEXT, START, STOP, SUMS, VALUE, WALK, P

__all__ = ["add_blocks", "sum_blocks"]


# `fuse` binds these names of the template, as it binds those of its own.
KINDS: Any
N_ARRAYS: int
N_SCALARS: int
SIZES: Any
SCALAR: Any
STRIDED: Any
SQUARES: Any
N_SUMS: int
SUM_BLOCK: int
SUM_KINDS: Any
SUM_SIZE: int
IS_GRADIENT: bool
FETCHED: int
rule: Any

FLOAT = (np.float64,)
"""The type of all sums, as `load` and `store` take it."""


def sum_blocks(row, start, stop):
    """Sum what `rule` returns for the elements of each block that begins in a range; a template of `fuse`."""
    values = scalars(SCALAR, word(row, VALUE), N_SCALARS)
    sources, walk = integers(row + 8 * P, N_ARRAYS), word(row, WALK)
    p, g, slots = sources[0], sources[1], sources[2:]
    p_block, g_block = scratch(KINDS[0], BLOCK), scratch(KINDS[1], BLOCK)
    block, places = scratch(SUM_KINDS[0], SUM_BLOCK), scratch(FLOAT[0], N_SUMS)
    size, sums = word(row, STOP) - word(row, START), word(row, SUMS)
    first = (start + BLOCK - 1) // BLOCK * BLOCK
    while first < stop:
        count = min(BLOCK, size - first)
        if STRIDED[PARAMETER]:
            p = p_block - first * SIZES[0]
            copy_block(KINDS[0], walk, PARAMETER, sources[0], first, count, SIZES[0], p_block, FROM_ARRAY)
        if STRIDED[GRADIENT]:
            g = g_block - first * SIZES[1]
            copy_block(KINDS[1], walk, GRADIENT, sources[1], first, count, SIZES[1], g_block, FROM_ARRAY)
        read = g + first * SIZES[1]
        if IS_GRADIENT and count == BLOCK:
            total = add_up(SUM_KINDS[0], read, BLOCK, SQUARES[0], read, FETCHED)
            store(FLOAT, (sums,), first // BLOCK, total)
            first += BLOCK
            continue
        for k in range(N_SUMS):
            set_word(places, k, block + SUM_SIZE * (k * BLOCK - first))
        targets = integers(places, N_SUMS)
        for i in range(first, first + count):
            store(SUM_KINDS, targets, i, rule(*load(KINDS, (p, g, *slots), i), *values))
        for k in range(N_SUMS):
            numbers = block + SUM_SIZE * k * BLOCK
            for i in range(count, BLOCK):
                store(SUM_KINDS[:1], (numbers,), i, 0.0)
            total = add_up(SUM_KINDS[0], numbers, BLOCK, SQUARES[k], read, FETCHED)
            store(FLOAT, (sums,), first // BLOCK * N_SUMS + k, total)
        first += BLOCK


def _add_blocks(sums, _start, _stop):
    row, n_rows, n_sums, totals = integers(sums, 4)
    for j in range(n_rows):
        blocks, size = word(row, SUMS), word(row, STOP) - word(row, START)
        for k in range(n_sums):
            total = 0.0
            if blocks:
                for b in range((size + BLOCK - 1) // BLOCK):
                    total += load(FLOAT, (blocks,), b * n_sums + k)[0]
            store(FLOAT, (totals,), j * n_sums + k, total)
        row = word(row, NEXT)


@cache
@compiling()
def add_blocks() -> Any:
    """Compile what adds the sums of the blocks of each row, and stores the totals of all rows one after the other.

    Returns
    -------
    kernel
        Its ``address`` is that of a native function of three integers, as a program calls them. The first is the
        address of four: the address of the first row, the numbers of rows and of sums, and the address of the totals.
    """
    return cfunc(bind_globals(_add_blocks, {}, ""), 3, is_current=lambda: True)
