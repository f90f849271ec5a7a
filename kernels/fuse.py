"""One rule in, one kernel out: compiled once for each dtype, in place, in a single pass over memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np
from numba.core.errors import NumbaError, UnsupportedBytecodeError

from fastoptim.concurrency import compiling
from fastoptim.kernels.bfloat16 import Stored
from fastoptim.kernels.fingerprint import called_functions, fingerprint
from fastoptim.kernels.jit import bind_globals, cfunc, inline_jit
from fastoptim.kernels.memory import integers, load, prefetch, scalars, scratch, store_rounded, word
from fastoptim.kernels.reduce import sum_blocks
from fastoptim.kernels.rulecompiler import MixedRuleCompiler, RuleCompiler
from fastoptim.kernels.strided import BLOCK, FROM_ARRAY, GRADIENT, PARAMETER, TO_ARRAY, copy_block
from fastoptim.kernels.subnormals import flush_subnormals, restore_subnormals
from fastoptim.kernels.table import DICE, SLOTS, VALUE, WALK, P, each_row, each_touched_row

__all__ = ["Kind", "fuse", "n_scalars"]

_PIECE = 256
"""Bytes of the parameter that are updated between two prefetches: for fewer the loop begins too often, and the lines
of more would fill the queue of the processor's loads."""
_AHEAD = 2048
"""Bytes of the parameter from what is updated to what is fetched: in less time memory does not answer, and more does
not stay in the fastest cache."""

Kind = type | Stored
"""A type of elements in memory."""


def n_scalars(rule: Any, slots: Sequence[str]) -> int:
    """Return how many scalars a rule takes after the parameter, the gradient and its state."""
    if rule is None:
        raise TypeError("the optimizer has no rule: define rule(p, g, ...) in its class, with @staticmethod above it")
    if not isinstance(getattr(rule, "py_func", rule), FunctionType):
        name = getattr(rule, "__qualname__", repr(rule))
        raise TypeError(f"the rule ({name}) must be a function of numbers alone: define it with @staticmethod above it")
    names = list(inspect.signature(rule).parameters)
    wrong = [name for k, name in enumerate(slots, start=2) if name in names and names.index(name) != k]
    if wrong or len(names) < 2 + len(slots):
        expected = ", ".join(["p", "g", *slots])
        raise TypeError(f"{rule.__qualname__} takes ({', '.join(names)}), expected ({expected}) and then the scalars")
    return len(names) - 2 - len(slots)


# The functions that follow are templates: `fuse` binds these names, for each rule and each combination of types.
KINDS: Any
TARGET_KINDS: Any
N_ARRAYS: int
N_SCALARS: int
N_DICE: int
PIECE: int
AHEAD: int
SIZES: Any
SCALAR: Any
STRIDED: Any
rule: Any
loop: Any
rows: Any


def _loop(row, start, stop):
    # The loop over elements is a function of its own: with the switch of the processor's flags in the same one, LLVM
    # does not vectorize it.
    values = scalars(SCALAR, word(row, VALUE), N_SCALARS)
    sources = integers(row + 8 * P, N_ARRAYS)
    targets = sources[:1] + sources[2:]
    dice = integers(word(row, DICE), N_DICE)
    # While a processor waits for memory, it looks ahead by a fixed number of instructions, which for most rules are too
    # few elements to keep the memory busy.
    while start < stop:
        end = stop
        if start + AHEAD < stop:
            end = start + PIECE
            prefetch(KINDS, sources, start + AHEAD, PIECE)
        for i in range(start, end):
            store_rounded(TARGET_KINDS, targets, i, rule(*load(KINDS, sources, i), *values), dice)
        start = end


def _strided_loop(row, start, stop):
    values = scalars(SCALAR, word(row, VALUE), N_SCALARS)
    sources, walk = integers(row + 8 * P, N_ARRAYS), word(row, WALK)
    p, g, slots = sources[0], sources[1], sources[2:]
    p_block, g_block = scratch(KINDS[0], BLOCK), scratch(KINDS[1], BLOCK)
    dice = integers(word(row, DICE), N_DICE)
    while start < stop:
        count = min(BLOCK, stop - start)
        # Blocks are addressed as if they began at element 0 of the row, as the state does.
        if STRIDED[PARAMETER]:
            p = p_block - start * SIZES[0]
            copy_block(KINDS[0], walk, PARAMETER, sources[0], start, count, SIZES[0], p_block, FROM_ARRAY)
        if STRIDED[GRADIENT]:
            g = g_block - start * SIZES[1]
            copy_block(KINDS[1], walk, GRADIENT, sources[1], start, count, SIZES[1], g_block, FROM_ARRAY)
        for i in range(start, start + count):
            store_rounded(TARGET_KINDS, (p, *slots), i, rule(*load(KINDS, (p, g, *slots), i), *values), dice)
        if STRIDED[PARAMETER]:
            copy_block(KINDS[0], walk, PARAMETER, sources[0], start, count, SIZES[0], p_block, TO_ARRAY)
        start += count


def _kernel(row, start, stop):
    flags = flush_subnormals()
    rows(row, start, stop)
    restore_subnormals(flags)


_kernels: dict[Any, Any] = {}


def fuse(
    rule: Callable[..., Any],
    kinds: tuple[Kind, ...],
    strided: tuple[bool, bool] = (False, False),
    squares: tuple[bool, ...] = (),
    touched: bool = False,
) -> Any:
    """Compile a rule into a kernel over rows of arrays.

    Parameters
    ----------
    rule : function
        ``rule(p, g, *slots, *scalars)`` returns the new ``p``, or with state ``(p, *slots)``. See `rules`.
    kinds : tuple of type
        The types of the elements of parameter, gradient and each slot, such as ``numpy.float32`` or `BFLOAT16`, which
        is float32 as soon as it is loaded. If they are then all the same, it is the type of all arithmetic; if not,
        operations promote as NumPy's do.
    strided : tuple of bool
        Whether to follow the rows' walks for parameters and for gradients, which otherwise lie in memory as their state
        does.
    squares : tuple of bool
        If this is given, nothing is updated: what the function returns, one number for each of these, is summed over
        the blocks of each row, or its square is. See `reduce`.
    touched : bool
        Whether gradients are row-sparse: then each segment is one row of the table, of which the touched rows are
        updated, and ``strided`` tells of each of these.

    Returns
    -------
    kernel
        Its ``address`` is that of a native function ``(row, start, stop)`` that updates the elements from ``start`` to
        ``stop`` of the segment that begins with the row at an address (see `table`). Each element is rounded alike
        at every place in that range, so any way to cut it gives the same bits.

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
    key = (mark or rule, kinds, strided, squares, touched)
    kernel = _kernels.get(key)
    if kernel is None:
        kernel = _compile(rule, kinds, strided, squares, touched, mark)
        # If a global changed during the compilation, the kernel may have some of the new values.
        if kernel.cache_hits or fingerprint(rule) == mark:
            _kernels[key] = kernel
    return kernel


@compiling()
def _compile(
    rule: Callable[..., Any],
    kinds: tuple[Kind, ...],
    strided: tuple[bool, bool],
    squares: tuple[bool, ...],
    touched: bool,
    mark: str | None,
) -> Any:
    computed = [np.float32 if isinstance(kind, Stored) else kind for kind in kinds]
    sizes = tuple(kind.itemsize if isinstance(kind, Stored) else np.dtype(kind).itemsize for kind in kinds)
    promotes = len(set(computed)) > 1 or np.float16 in kinds
    types = "-".join(kind.__name__ for kind in (kinds if len(set(kinds)) > 1 else kinds[:1]))
    n_random = sum(isinstance(kind, Stored) and kind.numba_type.is_random for kind in kinds)
    how = "-p" * strided[0] + "-g" * strided[1] + "".join("-square" if square else "-sum" for square in squares)
    name = f"{rule.__name__[:40]}-{len(kinds) - 2}-{types}{'-touched' * touched}{how}-{mark}"
    n_arguments = len(inspect.signature(rule).parameters)
    bound: dict[str, Any] = {
        "KINDS": kinds,
        "TARGET_KINDS": kinds[:1] + kinds[2:],
        "STRIDED": strided,
        "SCALAR": None if promotes else computed[0],
        "SIZES": sizes,
        "N_DICE": 1 + (n_random + 1) // 2 if n_random else 0,
        "PIECE": _PIECE // sizes[0],
        "AHEAD": _AHEAD // sizes[0],
        "N_ARRAYS": len(kinds),
        "N_WORDS": SLOTS + len(kinds) - 2,
        "N_SCALARS": n_arguments - len(kinds),
        "SQUARES": squares,
        "N_SUMS": len(squares),
        "SUM_BLOCK": BLOCK * len(squares),
        "SUM_KINDS": (np.float64 if promotes else computed[0],) * len(squares),
        "SUM_SIZE": 8 if promotes else np.dtype(computed[0]).itemsize,
        # With several streams, or copies of strided gradients, fetching ahead would only cost time.
        "FETCHED": sizes[1] if getattr(rule, "reads", ()) == {"g"} and not strided[1] else 0,
        "IS_GRADIENT": not promotes
        and kinds[1] is computed[0]
        and len(squares) == 1
        and _is_gradient(rule, n_arguments),
    }
    bound["rule"] = _compiled_with_helpers(rule, name, MixedRuleCompiler if promotes else RuleCompiler, {})
    template = sum_blocks if squares else _strided_loop if any(strided) else _loop
    bound["loop"] = inline_jit(bind_globals(template, bound, name))
    bound["rows"] = inline_jit(bind_globals(each_touched_row if touched else each_row, bound, name))
    is_current = None if mark is None else lambda: fingerprint(rule) == mark
    try:
        return cfunc(bind_globals(_kernel, bound, name), 3, is_current)
    except (NumbaError, UnsupportedBytecodeError) as error:
        # A composition names the rule in it.
        original = inspect.unwrap(rule)
        code = original.__code__
        raise TypeError(
            f"the rule {original.__qualname__} ({code.co_filename}:{code.co_firstlineno}) cannot be compiled for "
            f"{types}: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    # Numba wraps the cause in lines about itself; a cause that it quotes says most.
    lines = [line.strip() for line in str(error).splitlines()]
    quoted = [line.partition(": ")[2] for line in lines if line.startswith("TypingError: ")]
    plain = [line for line in lines if line and not line.startswith("Failed in nopython mode")]
    return [*quoted[-1:], *plain, repr(error)][0]


def _is_gradient(rule: Callable[..., Any], n_arguments: int) -> bool:
    """Tell whether a function returns its second argument, so that gradients are summed where they lie."""
    given = [object() for _ in range(n_arguments)]
    try:
        return rule(*given) is given[1]
    except Exception:
        return False


def _compiled_with_helpers(function: Any, suffix: str, compiler: type[RuleCompiler], done: dict[Any, Any]) -> Any:
    """Compile a rule, and the plain functions that it calls, as parts of one kernel."""
    if function not in done:
        helpers: dict[str, Any] = {}
        done[function] = None
        for name, value in called_functions(function).items():
            helpers[name] = _compiled_with_helpers(value, f"{name}-{suffix}", compiler, done)
        done[function] = inline_jit(bind_globals(function, helpers, suffix), compiler)
    return done[function]
