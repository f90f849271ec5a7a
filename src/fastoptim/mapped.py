"""Arrays in memory-mapped files, and how their pages are taken out of memory."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

__all__ = ["DONT_NEED", "Mapped", "is_mapped", "madvise", "pages", "release"]

DONT_NEED: int = getattr(mmap, "MADV_DONTNEED", 0)
"""The advice to `madvise` to take pages out of memory. Pages of a file keep what was written to them."""


class Mapped(mmap.mmap):
    """The memory of a file; what is written to the memory goes to the file."""


def _mapping(array: NDArray[Any]) -> Mapped | None:
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, Mapped) else None


def is_mapped(array: NDArray[Any]) -> bool:
    """Tell whether an array is a view of a `Mapped` file."""
    return _mapping(array) is not None


def pages(array: NDArray[Any], first: int, last: int) -> tuple[int, int]:
    """Return the addresses between which the pages of some elements lie, for an array without gaps."""
    start, size = byte_bounds(array)[0], mmap.PAGESIZE
    low, high = start + first * array.itemsize, start + last * array.itemsize
    return low // size * size, -(-high // size) * size


def release(array: NDArray[Any]) -> None:
    """Take an array of a file out of memory, which reads it again when it is needed. Do nothing for other arrays."""
    mapping = _mapping(array)
    if mapping is None or not DONT_NEED or not array.size:
        return
    start = np.ndarray(1, np.uint8, mapping).__array_interface__["data"][0]
    low, high = pages(array, 0, array.size)
    mapping.madvise(DONT_NEED, low - start, min(high - start, len(mapping)) - (low - start))


@cache
def madvise() -> int:
    """Return the address of the function of the C library, or 0 on a system without it."""
    return (ctypes.cast(ctypes.CDLL(None).madvise, ctypes.c_void_p).value or 0) if DONT_NEED else 0
