"""Look for gradients that are NaN or infinite, in one pass over the rows that an update will read."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastoptim.kernels.jit import inner, native
from fastoptim.kernels.memory import integers, load, store
from fastoptim.kernels.ndarray import FOUND, START, WIDTH, G

__all__ = ["finite"]


@inner
def _search(T, address, start, stop):
    found = False
    for i in range(start, stop):
        (g,) = load(T, (address,), i)
        # The difference is zero for every finite number, and NaN for all others. A test of each element for its own
        # sake, or an early end, would keep the loop from being vectorized.
        found |= g - g != 0
    return found


@inner
def _search_rows(T, rows, start, stop):
    width = 8 * integers(rows + 8 * WIDTH, 1)[0]
    row = rows
    while integers(row + width + 8 * START, 1)[0] <= start < stop:
        row += width
    while start < stop:
        first = integers(row + 8 * START, 1)[0]
        last = min(stop, integers(row + width + 8 * START, 1)[0])
        if _search(T, integers(row + 8 * G, 1)[0], start - first, last - first):
            # Parts that run side by side may all store this one number.
            store(np.intp, (rows + 8 * FOUND,), 0, 1)
        start = last
        row += width


def _float32(rows, start, stop):
    _search_rows(np.float32, rows, start, stop)


def _float64(rows, start, stop):
    _search_rows(np.float64, rows, start, stop)


@cache
def finite(dtype: type) -> Any:
    """Compile the search for one dtype.

    Returns
    -------
    kernel
        Its ``address`` is that of a native function ``(rows, start, stop)``, as of `fuse`. It writes nothing but a 1
        to the word FOUND of the table, if any gradient among those elements is not finite.
    """
    return native(_float32 if dtype is np.float32 else _float64, 3, keep=True)
