"""Check that a rule does the same compiled as its text does in NumPy, on numbers where the two are likely to differ."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from fastoptim.arguments import check_number
from fastoptim.kernels.fuse import fuse, n_scalars
from fastoptim.kernels.jit import DISABLED
from fastoptim.kernels.stages import function_of
from fastoptim.kernels.subnormals import flushed
from fastoptim.kernels.table import block_table
from fastoptim.optimizer import Optimizer
from fastoptim.threads import Autotuner
from fastoptim.update.composition import compose_optimizer
from fastoptim.update.fallback import FallbackTask, RuleArray
from fastoptim.update.layout import address
from fastoptim.update.validate import Array, Parameter

__all__ = ["check_rule"]

_CASES = 2000
_DTYPES = np.float32, np.float64


def check_rule(
    rule: Callable[..., Any] | type[Optimizer] | Optimizer, slots: Sequence[str] = (), *, ulps: float = 4
) -> None:
    """Raise an `AssertionError` if a rule, compiled, does not do what its text does in NumPy.

    The rule is compiled for float32 and for float64, and runs on 2,000 combinations of 0, -0.0, ordinary numbers, the
    smallest normal one, the largest, the roots of both, infinities and NaN, with several scalars.

    Parameters
    ----------
    rule : function, Optimizer class or Optimizer
        A function ``rule(p, g, *slots, *scalars)``; or an optimizer, which is checked with the transforms that are on.
        A class is called without arguments. Rules of whole arrays are not compiled, so they are not checked.
    slots : sequence of str
        Names of the state of a function; an optimizer has its own.
    ulps : float
        The largest difference, in units in the last place of the old or the new value, whichever is larger. Arithmetic,
        roots and squares give the same bits; powers, exponentials and the like may differ in the last place.

    Raises
    ------
    AssertionError
        If results differ, or their number is wrong, or the rule cannot be compiled, or raises an error. The message
        lists every problem, with an example of each difference, and shows what a rule with these slots looks like.
    TypeError
        If ``rule`` is neither a function nor an optimizer, or ``slots`` is a string.
    RuntimeError
        If nothing is compiled because ``NUMBA_DISABLE_JIT`` is set.

    Notes
    -----
    Kernels flush numbers below the smallest normal one to zero, and the NumPy code runs here with the same flag of the
    processor. Two NaN count as equal, and so do 0.0 and -0.0.

    Examples
    --------
    >>> import numpy as np
    >>> def momentum(p, g, v, lr):
    ...     v = 0.9 * v - lr * g
    ...     return p + v, v
    >>> check_rule(momentum, slots=("v",))

    This one forgets its state:

    >>> def forgetful(p, g, v, lr):
    ...     return p + 0.9 * v - lr * g
    >>> check_rule(forgetful, slots=("v",))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    AssertionError: the rule forgetful (...) fails the check:
    - it cannot be compiled: it returns 1 value, expected 2: the parameter and its state
    A rule takes and returns single numbers. With the slots ('v',) it looks like this:
        def forgetful(p, g, v, lr):
            ...
            return p, v
    """
    if DISABLED:
        raise RuntimeError("check_rule compares with compiled code, and NUMBA_DISABLE_JIT is set")
    if not isinstance(slots, Sequence) or isinstance(slots, str) or not all(isinstance(name, str) for name in slots):
        such_as = (slots,) if isinstance(slots, str) else ("m",)
        raise TypeError(f"slots must be a tuple of names, such as {such_as}, not {slots!r}")
    check_number("ulps", ulps)
    optimizer = rule() if isinstance(rule, type) and issubclass(rule, Optimizer) else rule
    if isinstance(optimizer, Optimizer):
        function, slots = function_of(optimizer.rule), optimizer.slots
        found = list(_problems_of(optimizer, ulps))
    else:
        function = function_of(rule)
        if not isinstance(function, FunctionType):
            raise TypeError(f"check_rule takes a function or an optimizer, not {rule!r}")
        found = list(_problems(function, tuple(slots), [], ulps))
    if found:
        code = function.__code__
        head = f"the rule {function.__qualname__} ({code.co_filename}:{code.co_firstlineno}) fails the check:"
        lines = [f"- {text}" for text in found]
        raise AssertionError("\n".join([head, *lines, _pattern(function, tuple(slots))]))


def _problems_of(optimizer: Optimizer, ulps: float) -> Iterator[str]:
    """Yield what is wrong with an optimizer's rule, transforms and scalars."""
    try:
        composition = compose_optimizer(optimizer)
    except TypeError as error:
        yield str(error)
        return
    if optimizer.array_slots((1,)) is not None:
        # Rules of whole arrays are not compiled.
        return
    first = copy.copy(optimizer)
    first.iter = 1
    values, expected = first.scalars(), composition.n_rule_scalars
    try:
        line = tuple(map(float, values))
    except (TypeError, ValueError):
        line = ()
    if len(line) != expected:
        yield str(composition.error(values))
    yield from _problems(composition.rule, composition.slots, [line[:expected]], ulps)


def _problems(function: Any, slots: tuple[str, ...], lines: list[tuple[float, ...]], ulps: float) -> Iterator[str]:
    """Yield what is wrong with a rule; ``lines`` are scalars to try first, filled up with 0.5."""
    try:
        count = n_scalars(function, slots)
    except TypeError as error:
        yield str(error)
        return
    lines = [(*line, *[0.5] * (count - len(line))) for line in lines]
    lines += [tuple(np.linspace(*ends, count).tolist()) for ends in ((0.5, 0.5), (0.1, 0.9), (0.9, 0.1))]
    for dtype in _DTYPES:
        before = _edge_cases(dtype, 2 + len(slots))
        for scalars in lines:
            try:
                compiled = _run_compiled(function, before, scalars)
            except TypeError as error:
                yield f"it cannot be compiled: {str(error).partition(f' for {dtype.__name__}: ')[2] or error}"
                return
            try:
                expected = _run_text(function, before, scalars)
            except Exception as error:
                text = str(error).replace(RuleArray.__name__, "ndarray")
                yield f"it can be compiled, but as NumPy code it raises {type(error).__name__}: {text}"
                return
            differences = list(_differences(function, slots, before, scalars, expected, compiled, ulps))
            yield from differences
            if differences:
                break


def _edge_cases(dtype: Any, n_arrays: int) -> list[Array]:
    """Return arrays that combine edges of a dtype; with 2,000 draws, all pairs of the 29 numbers are among them."""
    info = np.finfo(dtype)
    roots = np.sqrt([info.tiny, info.max])
    edges = np.array([0, info.tiny, *roots, info.eps, 1e-3, 0.1, 0.5, 1, 3, 1e4, info.max, np.inf], dtype)
    rng = np.random.default_rng(0)
    return [rng.choice([*edges, *-edges, dtype(np.nan)], _CASES) for _ in range(n_arrays)]


def _run_compiled(function: Any, before: list[Array], scalars: tuple[float, ...]) -> list[Array]:
    p, _, *slots = blocks = [array[np.newaxis].copy() for array in before]
    kernel = fuse(function, (p.dtype.type,) * len(blocks))
    values = np.array([scalars])
    rows = block_table(values, blocks)
    Autotuner([(kernel.address, address(rows), 0, p.size)]).run()
    return [block[0] for block in (p, *slots)]


def _run_text(function: Any, before: list[Array], scalars: tuple[float, ...]) -> list[Array]:
    p, g, *slots = (array.copy() for array in before)
    task = FallbackTask([function], [Parameter(0, p, g, p, g, slots=slots)], 0, in_place=False)
    task.bind([p], [g])
    # Kernels round the scalars of a step to the dtype of the arrays.
    with flushed():
        task.prepare([tuple(map(p.dtype.type, scalars))])
    task.write()
    return [p, *slots]


def _differences(
    function: Any,
    slots: tuple[str, ...],
    before: list[Array],
    scalars: tuple[float, ...],
    expected: list[Array],
    compiled: list[Array],
    ulps: float,
) -> Iterator[str]:
    """Yield a line of text for each result that differs."""
    names = ["p", "g", *slots, *list(inspect.signature(function).parameters)[2 + len(slots) :]]
    for k, old in enumerate([before[0], *before[2:]]):
        differs = _differs(old, expected[k], compiled[k], ulps)
        if differs.any():
            name, i = ("p", *slots)[k], int(np.argmax(differs))
            case = [array[i : i + 1] for array in before]
            alone = _run_text(function, case, scalars)[k]
            values = ", ".join(
                f"{key}={value:.6g}" for key, value in zip(names, [*map(np.ndarray.item, case), *scalars], strict=True)
            )
            sums = not _differs(old[i : i + 1], alone, compiled[k][i : i + 1], ulps)
            yield (
                f"{old.dtype}: {name} differs in {differs.sum()} of {_CASES} cases, such as {values}: "
                f"{expected[k][i]!s} in NumPy, {compiled[k][i]!s} compiled"
                + "; for this element alone NumPy agrees: a rule cannot sum or average elements"
                * sums
            )


def _differs(old: Array, want: Array, got: Array, ulps: float) -> Array:
    with np.errstate(all="ignore"):
        unit = np.spacing(np.maximum(np.where(np.isfinite(old), np.abs(old), 0), np.abs(want)))
        # Zeros of both signs are equal: NumPy's `np.maximum(-0.0, 0.0)` depends on the element's place in the array.
        differs: Array = ~((want == got) | (np.abs(want - got) <= ulps * unit) | (np.isnan(want) & np.isnan(got)))
    return differs


def _pattern(function: Any, slots: tuple[str, ...]) -> str:
    """Return text that shows what a rule with these slots looks like."""
    arrays = ["p", "g", *slots]
    scalars = [name for name in inspect.signature(function).parameters if name not in (*arrays, "self")]
    results = ", ".join(["p", *slots])
    has = f"the slots {slots!r}" if slots else "no slots"
    return (
        f"A rule takes and returns single numbers. With {has} it looks like this:\n"
        f"    def {function.__name__}({', '.join([*arrays, *scalars])}):\n"
        f"        ...\n"
        f"        return {results}"
    )
