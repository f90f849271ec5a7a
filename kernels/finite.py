"""Look for gradients that are NaN or infinite, in one pass over the rows that an update will read."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastoptim.kernels.jit import cfunc, inline_jit
from fastoptim.kernels.memory import load, set_word, word
from fastoptim.kernels.table import FOUND, G, each_row

__all__ = ["finite"]


@inline_jit
def _search(kinds, row, start, stop):
    g, found = word(row, G), False
    for i in range(start, stop):
        (x,) = load(kinds, (g,), i)
        # The difference is zero for every finite number, and NaN for all others. A test of each element for its own
        # sake, or an early end, would keep the loop from being vectorized.
        found |= x - x != 0
    # Parts that run side by side may all store this one number.
    if found:
        set_word(row, FOUND, 1)


@inline_jit
def _search32(row, start, stop):
    _search((np.float32,), row, start, stop)


@inline_jit
def _search64(row, start, stop):
    _search((np.float64,), row, start, stop)


def _float32(rows, start, stop):
    each_row(_search32, rows, start, stop)


def _float64(rows, start, stop):
    each_row(_search64, rows, start, stop)


@cache
def finite(dtype: type) -> Any:
    """Compile the search for one dtype.

    Returns
    -------
    kernel
        Its ``address`` is that of a native function ``(rows, start, stop)``, as of `fuse`. It writes nothing but a 1
        to the column FOUND of the rows with gradients that are not finite among those elements.
    """
    return cfunc(_float32 if dtype is np.float32 else _float64, 3, is_current=lambda: True)
