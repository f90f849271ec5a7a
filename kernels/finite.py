"""Look for gradients that are NaN or infinite, in one pass over the rows that an update will read."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastoptim.concurrency import compiling
from fastoptim.kernels.jit import bind_globals, cfunc, inline_jit
from fastoptim.kernels.memory import load, set_word, word
from fastoptim.kernels.table import FOUND, G, each_row

__all__ = ["finite"]


# Names that `bind_globals` gives values.
KIND: Any
loop: Any
rows: Any


def _search(row, start, stop):
    g, found = word(row, G), False
    for i in range(start, stop):
        (x,) = load((KIND,), (g,), i)
        # The difference is zero for every finite number, and NaN for all others. A test of each element for its own
        # sake, or an early end, would keep the loop from being vectorized.
        found |= x - x != 0
    # Parts that run side by side may all store this one number.
    if found:
        set_word(row, FOUND, 1)


def _kernel(row, start, stop):
    rows(row, start, stop)


@cache
@compiling()
def finite(dtype: type) -> Any:
    """Compile the search for one dtype.

    Returns
    -------
    kernel
        Its ``address`` is that of a native function ``(row, start, stop)``, as of `fuse`. It writes nothing but a 1 to
        the column FOUND of the rows with gradients that are not finite among those elements.
    """
    names: dict[str, Any] = {"KIND": dtype}
    names["loop"] = inline_jit(bind_globals(_search, names, dtype.__name__))
    names["rows"] = inline_jit(bind_globals(each_row, names, f"finite-{dtype.__name__}"))
    return cfunc(bind_globals(_kernel, names, f"finite-{dtype.__name__}"), 3, is_current=lambda: True)
