"""One rule in, one kernel out: compiled once for each dtype, in place, in a single pass over memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from numba.core.errors import NumbaError, UnsupportedBytecodeError

from fastoptim.kernels.fingerprint import called_functions, fingerprint
from fastoptim.kernels.jit import inner, native
from fastoptim.kernels.memory import integers, load, scalars, store
from fastoptim.kernels.ndarray import START, VALUE, P
from fastoptim.kernels.rulecompiler import RuleCompiler
from fastoptim.kernels.subnormals import flush_subnormals, restore_subnormals

__all__ = ["fuse", "n_scalars"]


def n_scalars(rule: Any, slots: Sequence[str]) -> int:
    """Return how many scalars a rule takes after the parameter, the gradient and its state."""
    if not isinstance(getattr(rule, "py_func", rule), FunctionType):
        name = getattr(rule, "__qualname__", repr(rule))
        raise TypeError(f"the rule ({name}) must be a function of numbers alone: define it with @staticmethod above it")
    names = list(inspect.signature(rule).parameters)
    wrong = [name for k, name in enumerate(slots, start=2) if name in names and names.index(name) != k]
    if wrong or len(names) < 2 + len(slots):
        expected = ", ".join(["p", "g", *slots])
        raise TypeError(f"{rule.__qualname__} takes ({', '.join(names)}), expected ({expected}) and then the scalars")
    return len(names) - 2 - len(slots)


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


_kernels: dict[Any, Any] = {}


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

    Notes
    -----
    Plain functions that the rule calls by a global name are compiled with it. Values of other globals are constants
    of the kernel, as they were when it was made.
    """
    mark = fingerprint(rule)
    key = (mark or rule, n_slots, dtype)
    if key not in _kernels:
        _kernels[key] = _compile(rule, n_slots, dtype, mark)
    return _kernels[key]


def _compile(rule: Callable[..., Any], n_slots: int, dtype: type, mark: str | None) -> Any:
    name = f"{rule.__name__[:40]}-{n_slots}-{dtype.__name__}-{mark}"
    n_arguments = len(inspect.signature(rule).parameters)
    bound = {"T": dtype, "N_ARRAYS": 2 + n_slots, "N_SCALARS": n_arguments - 2 - n_slots}
    bound["rule"] = _compiled_with_helpers(rule, name, {})
    bound["sweep"] = inner(_bind(_sweep, bound, name))
    try:
        return native(_bind(_kernel, bound, name), 3, keep=mark is not None)
    except (NumbaError, UnsupportedBytecodeError) as error:
        code = rule.__code__
        raise TypeError(
            f"the rule {rule.__qualname__} ({code.co_filename}:{code.co_firstlineno}) cannot be compiled for "
            f"{dtype.__name__}: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    # Numba wraps the cause in lines about itself; a cause that it quotes says most.
    lines = [line.strip() for line in str(error).splitlines()]
    quoted = [line.partition(": ")[2] for line in lines if line.startswith("TypingError: ")]
    plain = [line for line in lines if line and not line.startswith("Failed in nopython mode")]
    return [*quoted[-1:], *plain, repr(error)][0]


def _compiled_with_helpers(function: Any, suffix: str, done: dict[Any, Any]) -> Any:
    """Compile a rule, and the plain functions that it calls, as parts of one kernel."""
    if function not in done:
        helpers: dict[str, Any] = {}
        done[function] = None
        for name, value in called_functions(function).items():
            helpers[name] = _compiled_with_helpers(value, f"{name}-{suffix}", done)
        done[function] = inner(_bind(function, helpers, suffix), RuleCompiler)
    return done[function]


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
