"""Run the program of a table, on one thread or cut into parts for several."""

from __future__ import annotations

from numba import prange

from fastoptim.kernels.jit import inline_jit, jit, parallel_jit
from fastoptim.kernels.memory import call, set_word, word
from fastoptim.kernels.methods import Method, truth
from fastoptim.kernels.table import CALLS, COMMITTED, COUNT, DATA

__all__ = ["run", "run_parallel", "run_short"]

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
