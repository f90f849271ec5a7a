"""Run the text of a rule in NumPy where no kernel does the same, as on longdouble, aliased and whole arrays."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastoptim.update.validate import Array, Parameter

__all__ = ["FallbackTask", "Rule", "RuleArray"]

Rule = Callable[..., Any]


class RuleArray(np.ndarray[Any, Any]):
    """An array that augmented assignment does not write to: it makes a new value, rounded to the array's dtype.

    A rule behaves here as it does compiled: ``g += decay * p`` leaves the gradient as it is.
    """


def _augmented(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def assign(self: RuleArray, other: Any) -> Any:
        return np.asarray(operation(self, other)).astype(self.dtype, casting="same_kind", copy=False).view(RuleArray)

    return assign


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor"):
    setattr(RuleArray, f"__i{_name}__", _augmented(getattr(operator, f"__{_name}__")))


def _write(writes: Iterable[tuple[Array, Any, Any]]) -> None:
    for array, place, value in writes:
        array[place] = value


def _at(place: Any, arrays: Sequence[Array]) -> list[Array]:
    """Return copies of the touched rows of arrays, or views of all rows if the place is ``...``."""
    return [array[place] for array in arrays]


def _new_values(results: tuple[Any, ...], targets: Sequence[Array], arguments: Sequence[Any]) -> list[Array]:
    """Return the results of a rule as arrays that have the shapes of parameter and slots, and memory of their own."""
    if len(results) != len(targets):
        raise TypeError(f"the rule returns {len(results)} values, expected {len(targets)}: p and state")
    new = []
    for target, result in zip(targets, results, strict=True):
        # A rule may return its arguments, as where it exchanges its slots.
        is_new = isinstance(result, np.ndarray) and not any(np.may_share_memory(result, each) for each in arguments)
        if not (is_new and (result.shape, result.dtype) == (target.shape, target.dtype)):
            copied = np.empty_like(target, subok=False)
            np.copyto(copied, result, casting="same_kind")
            result = copied
        new.append(result)
    return new


class FallbackTask:
    """Updates arrays by the text of a rule, with NumPy's promotion and rounding.

    Parameters
    ----------
    rules : list of function
        The rule of each parameter.
    parameters : list of Parameter
        Those to update, in order.
    first : int
        Position of the first of them in what `bind` is given.
    in_place : bool
        Whether the arrays share memory, so that each line of the rule must see what the one before it wrote.

    Attributes
    ----------
    rows : slice
        Positions of its parameters.
    """

    def __init__(self, rules: list[Rule], parameters: list[Parameter], first: int, *, in_place: bool) -> None:
        self._in_place = in_place
        self.rows = slice(first, first + len(parameters))
        self._state = [
            (rule, each.slots, each.before, each.is_weak, each.slot_shapes is not None)
            for rule, each in zip(rules, parameters, strict=True)
        ]
        self.is_reusable = not any(parameter.before for parameter in parameters)
        self._arrays: list[tuple[Array, Array, Any]] = []
        self._writes: list[tuple[Array, Any, Any]] = []
        self._undo: list[tuple[Array, Array]] = []

    def bind(self, values: Sequence[Array], gradients: Sequence[Array], rows: Sequence[Array | None] = ()) -> bool:
        """Take views of the next step's arrays, which no other code can alter; return whether they are writable."""
        touched = rows[self.rows] if rows else [None] * len(self._state)
        triples = zip(values[self.rows], gradients[self.rows], touched, strict=True)
        self._arrays = [(p.view(np.ndarray), g.view(np.ndarray), ... if k is None else k) for p, g, k in triples]
        self._writes, self._undo = [], []
        return all(p.flags.writeable for p, *_ in self._arrays)

    def measure(
        self, functions: Sequence[Rule], squares: Sequence[bool], lines: Sequence[tuple[Any, ...]]
    ) -> list[list[np.float64]]:
        """Return for each array the sums of the numbers that its function returns for each element, or of squares."""
        sums = []
        with np.errstate(all="ignore"):
            for (p, gradient, place), (_, slots, before, is_weak, is_whole), function, scalars in zip(
                self._arrays, self._state, functions, lines, strict=True
            ):
                p, *state = _at(place, [p, *(before or slots)])
                g = gradient.item() if is_weak else gradient
                arrays = (a.copy() if isinstance(a, np.ndarray) else a for a in (p, g, *state))
                values = self._call(function, tuple(arrays), scalars, is_whole)
                numbers = (np.broadcast_to(x, p.shape).astype(np.float64) for x in values)
                sums.append([np.sum(x * x if square else x) for x, square in zip(numbers, squares, strict=True)])
        return sums

    def prepare(self, lines: Sequence[tuple[Any, ...]]) -> None:
        """Compute the new values, and do all that may fail; `rollback` undoes it.

        Parameters
        ----------
        lines : sequence of tuple
            The arguments of each array's rule after its state: the scalars, preceded by the optimizer for a rule of
            whole arrays.
        """
        with np.errstate(all="ignore"):
            for (p, gradient, place), (rule, slots, before, is_weak, is_whole), scalars in zip(
                self._arrays, self._state, lines, strict=True
            ):
                if self._in_place:
                    self._undo += [(array, array.copy()) for array in (p, *before, *slots)]
                g = gradient.item() if is_weak else gradient
                arrays = *_at(place, [p]), g, *_at(place, before or slots)
                targets = _at(place, [p, *slots])
                results = _new_values(self._call(rule, arrays, scalars, is_whole), targets, arrays)
                writes = [(array, place, result) for array, result in zip((p, *slots), results, strict=True)]
                if self._in_place:
                    _write(writes)
                else:
                    self._writes += writes

    def write(self) -> None:
        """Write the new values to the arrays; to do so twice does no harm."""
        _write(self._writes)

    def rollback(self) -> None:
        """Undo what `prepare` did."""
        for array, before in reversed(self._undo):
            np.copyto(array, before)

    def release(self) -> None:
        """Let go of the arrays of this step."""
        self._arrays, self._writes, self._undo = [], [], []

    def _call(self, rule: Rule, arrays: tuple[Any, ...], scalars: tuple[Any, ...], is_whole: bool) -> tuple[Any, ...]:
        if not self._in_place:
            arrays = tuple(a.view(RuleArray) if isinstance(a, np.ndarray) else a for a in arrays)
        try:
            result = rule(*arrays, *scalars)
        except (TypeError, ValueError):
            if self._in_place or is_whole:
                # It may have written already, so it cannot be run once more; or it needs all elements together.
                raise
        else:
            return result if isinstance(result, tuple) else (result,)
        # A rule with a branch takes one element at a time, as it does compiled. Each is an array of no axes, because
        # augmented assignments do not round to the type of a number.
        p = arrays[0]
        if not p.size:
            return p, *arrays[2:]
        # Strict, because another thread may have given an array another dtype, and so another size, in the meantime.
        rows = zip(*(_elements(a, p.size) for a in arrays), strict=True)
        columns = zip(*(np.atleast_1d(rule(*row, *scalars)) for row in rows), strict=True)
        return tuple(np.reshape(column, p.shape) for column in columns)


def _elements(array: Any, count: int) -> list[Any]:
    """Return the elements of an array as arrays of no axes, or a number once for each of them."""
    if not isinstance(array, np.ndarray):
        return [array] * count
    flat = array.reshape(-1)
    return [flat[k, ...] for k in range(flat.size)]
