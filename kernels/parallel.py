"""Run the program of a table, on one thread or cut into parts for several."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastoptim.kernels.jit import inline_jit, jit, parallel_jit
from fastoptim.kernels.memory import call, integers, load, set_word, word
from fastoptim.kernels.methods import ERROR, Method, set_number, truth
from fastoptim.kernels.table import CALLS, COMMITTED, COUNT, DATA

__all__ = ["run", "run_and_replace", "run_parallel", "run_short"]

_ALIGNMENT = 64
"""Parts begin at multiples of this many elements, so that no two threads write to one cache line."""


@inline_jit
def _call(program, k):
    address = program + 8 * (CALLS + 4 * k)
    return word(address, 0), word(address, 1), word(address, 2), word(address, 3)


@inline_jit
def _run(program):
    for k in range(word(program, COUNT)):
        kernel, rows, first, last = _call(program, k)
        call(kernel, rows, first, last)
    # The word is written here, where no signal handler comes between the kernels and it.
    set_word(program, COMMITTED, 1)


@jit
def run(program):
    """Run all calls on this thread."""
    _run(program)


@Method
def run_short(program):
    """Run all calls on this thread, which keeps the GIL: to release it takes as long as updating a hundred elements."""
    _run(word(program, DATA))
    return truth(True)


@Method
def run_and_replace(words, container):
    """Do what `run_short` does, then replace the numbers in a container by what the program made of their copies.

    Parameters
    ----------
    words : array of intp
        Address of the program, number of the numbers, and for each of them the ``id`` of its key and the address of its
        float64 copy.
    container : dict or list
        Where the numbers are. If it raises an error, so does this, and some numbers may have been replaced.
    """
    program, count = integers(word(words, DATA), 2)
    _run(program)
    numbers = word(words, DATA) + 8 * 2
    for k in range(count):
        key, copy = word(numbers, 2 * k), word(numbers, 2 * k + 1)
        if not set_number(container, key, load((np.float64,), (copy,), 0)[0]):
            return ERROR
    return truth(True)


@parallel_jit
def run_parallel(program, parts, parallel_from):
    """Run one call after the other, each of at least ``parallel_from`` elements cut into ``parts`` parts."""
    for k in range(word(program, COUNT)):
        kernel, rows, first, last = _call(program, k)
        if last - first < parallel_from:
            call(kernel, rows, first, last)
            continue
        blocks = (last - first + _ALIGNMENT - 1) // _ALIGNMENT
        n = min(parts, blocks)
        for j in prange(n):
            start = first + blocks * j // n * _ALIGNMENT
            stop = min(last, first + blocks * (j + 1) // n * _ALIGNMENT)
            if start < stop:
                call(kernel, rows, start, stop)
    set_word(program, COMMITTED, 1)
