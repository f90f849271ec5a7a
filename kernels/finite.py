"""Look for gradients that are NaN or infinite, in one pass over the rows that an update will read."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastoptim.kernels.jit import cfunc, inline_jit
from fastoptim.kernels.memory import load, set_word, word
from fastoptim.kernels.table import FOUND, NEXT, START, STOP, G

__all__ = ["finite"]


@inline_jit
def _search(kinds, address, start, stop):
    found = False
    for i in range(start, stop):
        (g,) = load(kinds, (address,), i)
        # The difference is zero for every finite number, and NaN for all others. A test of each element for its own
        # sake, or an early end, would keep the loop from being vectorized.
        found |= g - g != 0
    return found


@inline_jit
def _search_rows(kinds, row, start, stop):
    while start < stop:
        first, last = word(row, START), min(stop, word(row, STOP))
        # Parts that run side by side may all store this one number.
        if start < last:
            if _search(kinds, word(row, G), start - first, last - first):
                set_word(row, FOUND, 1)
            start = last
        row = word(row, NEXT)


def _float32(rows, start, stop):
    _search_rows((np.float32,), rows, start, stop)


def _float64(rows, start, stop):
    _search_rows((np.float64,), rows, start, stop)


@cache
def finite(dtype: type) -> Any:
    """Compile the search for one dtype.

    Returns
    -------
    kernel
        Its ``address`` is that of a native function ``(rows, start, stop)``, as of `fuse`. It writes nothing but a 1
        to the column FOUND of the rows with gradients that are not finite among those elements.
    """
    return cfunc(_float32 if dtype is np.float32 else _float64, 3, cached=True)
