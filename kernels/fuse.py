"""One rule in, one kernel out: compiled once for each dtype, in place, in a single pass over memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from types import FunctionType, MethodType
from typing import Any

from numba.core.errors import NumbaError

from fastoptim.kernels.fingerprint import fingerprint
from fastoptim.kernels.jit import inner, native
from fastoptim.kernels.literals import WeakLiterals
from fastoptim.kernels.memory import integers, load, scalars, store
from fastoptim.kernels.ndarray import START, VALUE, P
from fastoptim.kernels.subnormals import flush_subnormals, restore_subnormals

__all__ = ["fuse", "n_scalars"]


def n_scalars(rule: Callable[..., Any], n_slots: int) -> int:
    """Return how many scalars a rule takes after the parameter, the gradient and its state."""
    if isinstance(rule, MethodType):
        raise TypeError(f"{rule.__qualname__} must be a function of numbers alone: put @staticmethod above it")
    return len(inspect.signature(rule).parameters) - 2 - n_slots


# The two functions that follow are templates: `fuse` binds these names, for each rule and dtype.
T: Any
N_ARRAYS: int
N_SCALARS: int
rule: Any
sweep: Any


def _sweep(row, start, stop):
    # The arrays are walked in a function of its own: with the switch of the processor's flags in the same one,
    # LLVM does not vectorize the loop.
    values = scalars(T, integers(row + 8 * VALUE, 1)[0], N_SCALARS)
    sources = integers(row + 8 * P, N_ARRAYS)
    targets = sources[:1] + sources[2:]
    for i in range(start, stop):
        store(T, targets, i, rule(*load(T, sources, i), *values))


def _kernel(rows, start, stop):
    width = 8 * (P + N_ARRAYS)
    row = rows
    while integers(row + width + 8 * START, 1)[0] <= start < stop:
        row += width
    flags = flush_subnormals()
    while start < stop:
        first = integers(row + 8 * START, 1)[0]
        last = min(stop, integers(row + width + 8 * START, 1)[0])
        sweep(row, start - first, last - first)
        start = last
        row += width
    restore_subnormals(flags)


@cache
def fuse(rule: Callable[..., Any], n_slots: int, dtype: type) -> Any:
    """Compile a rule into a kernel over rows of arrays.

    Parameters
    ----------
    rule : function
        ``rule(p, g, *slots, *scalars)`` returns the new ``p``, or with state ``(p, *slots)``. See `rules`.
    n_slots : int
        How many of its arguments are state.
    dtype : type
        ``numpy.float32`` or ``numpy.float64``: the type of the arrays and of all arithmetic.

    Returns
    -------
    kernel
        Its ``address`` is that of a native function ``(rows, start, stop)`` that updates the elements from ``start``
        to ``stop`` of the table of rows at an address (see `ndarray`), counted through all of them. Each element is
        rounded alike wherever it lies in that range, so any way to cut it gives the same bits.

    Raises
    ------
    TypeError
        If the rule cannot be compiled, or returns another number of values.
    """
    name = f"{rule.__name__}-{n_slots}-{dtype.__name__}-{fingerprint(rule)}"
    bound = {"T": dtype, "N_ARRAYS": 2 + n_slots, "N_SCALARS": n_scalars(rule, n_slots)}
    bound["rule"] = inner(_bind(rule, {}, name), WeakLiterals)
    bound["sweep"] = inner(_bind(_sweep, bound, name))
    try:
        return native(_bind(_kernel, bound, name), 3)
    except NumbaError as error:
        raise TypeError(f"the rule {rule.__qualname__} cannot be compiled for {dtype.__name__}: {error}") from error


def _bind(function: Callable[..., Any], names: dict[str, Any], suffix: str) -> FunctionType:
    # Numba keys its cache by the values of a closure, and a compiled function among them never hits it in a later
    # process (numba issue 6264). Globals it does not look at, so the fingerprint in the name stands for them. The
    # name tells apart their symbols as well, should kernels cached by different processes meet in a third. And whoever
    # loads a function from the cache imports its module, which for a user's rule may be gone or another one by then.
    function = getattr(function, "py_func", function)
    names = {**names, "__name__": __name__}
    bound = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    bound.__qualname__ = f"{function.__name__}-{suffix}"
    return bound
