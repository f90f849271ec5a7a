"""The text of a rule, run as it stands where no kernel does what NumPy does: on numbers, float16, aliased arrays."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from fastoptim.validate import Array, Parameter

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


def _write(pairs: Iterable[tuple[Array, Any]]) -> None:
    for array, value in pairs:
        array[...] = value


class FallbackTask:
    """Updates parameters by the text of the rule, with NumPy's promotion and rounding.

    Parameters
    ----------
    rule : function
        The rule.
    params : dict or list
        Where the parameters are; numbers are replaced in it.
    parameters : list of Parameter
        Those to update, in order.
    rows : list of int
        For each of them the position of its array and gradient in what `bind` is given; -1 where one is a number.
    in_place : bool
        Whether the arrays share memory, so that each line of the rule must see what the one before it wrote.
    """

    def __init__(
        self, rule: Rule, params: Any, parameters: list[Parameter], rows: list[int], *, in_place: bool = False
    ) -> None:
        self._rule, self._params, self._in_place = rule, params, in_place
        self._values = [(parameter.value, parameter.gradient) for parameter in parameters]
        self._entries = [
            (parameter.key, row, type(parameter.value), type(parameter.gradient), parameter.slots, parameter.before)
            for parameter, row in zip(parameters, rows, strict=True)
        ]
        # Beside a number, the form and the memory of an array are not checked again.
        self.is_reusable = not any(
            (row < 0 and any(issubclass(kind, np.ndarray) for kind in (p, g))) or before
            for _, row, p, g, _, before in self._entries
        )
        self.n_rows = sum(row >= 0 for row in rows)
        self._writes: list[tuple[Array, Any]] = []
        self._undo: list[tuple[Array, Array]] = []
        self._replaced: list[tuple[Hashable, Any]] = []

    def bind(self, params: Any, grads: Any, arrays: tuple[Sequence[Any], Sequence[Any]]) -> bool:
        """Take the values of the next step; return whether they are of the same types as before."""
        values = []
        for key, row, p_type, g_type, *_ in self._entries:
            value = (params[key], grads[key]) if row < 0 else (arrays[0][row], arrays[1][row])
            if type(value[0]) is not p_type or type(value[1]) is not g_type:
                return False
            values.append(value)
        if not all(slot.flags.writeable for *_, slots, _ in self._entries for slot in slots):
            return False
        self._values, self._params = values, params
        self._writes, self._undo, self._replaced = [], [], []
        return True

    def nonfinite_keys(self) -> list[Hashable]:
        """Return the keys of gradients that are NaN or infinite."""
        pairs = zip(self._entries, self._values, strict=True)
        return [entry[0] for entry, (_, gradient) in pairs if not np.isfinite(gradient).all()]

    def prepare(self, scalars: tuple[float, ...]) -> None:
        """Compute the new values, and do all that may fail; `rollback` undoes it."""
        self._writes, self._undo, self._replaced = [], [], []
        with np.errstate(all="ignore"):
            for (key, _, p_type, _, slots, before), (value, gradient) in zip(self._entries, self._values, strict=True):
                if self._in_place:
                    arrays = [array for array in (value, *before, *slots) if isinstance(array, np.ndarray)]
                    self._undo += [(array, array.copy()) for array in arrays]
                results = self._results(value, gradient, before or slots, slots, scalars)
                writes = list(zip(slots, results[1:], strict=True))
                if issubclass(p_type, np.ndarray):
                    writes.insert(0, (np.asarray(value), results[0]))
                else:
                    self._replaced.append((key, value))
                    self._params[key] = p_type(results[0])
                if self._in_place:
                    _write(writes)
                else:
                    self._writes += writes

    def write(self) -> None:
        """Write the new values to the arrays; to do so twice does no harm."""
        _write(self._writes)

    def rollback(self) -> None:
        """Undo what `prepare` did."""
        for key, value in self._replaced:
            self._params[key] = value
        for array, before in reversed(self._undo):
            np.copyto(array, before)

    def release(self) -> None:
        """Let go of the values of this step."""
        self._params, self._values, self._writes, self._undo, self._replaced = None, [], [], [], []

    def _results(
        self, value: Any, gradient: Any, state: list[Array], slots: list[Array], scalars: tuple[float, ...]
    ) -> list[Array]:
        """Return new arrays, of the dtypes of parameter and slots."""
        p = np.asarray(value)
        # A Python number as gradient is weak, as a parameter it is not: it keeps its precision beside a float32 one.
        g = gradient if isinstance(gradient, int | float) else np.asarray(gradient)
        arrays: Any = (p, g, *state)
        if not self._in_place:
            arrays = tuple(a.view(RuleArray) if isinstance(a, np.ndarray) else a for a in arrays)
            if isinstance(g, np.ndarray):
                # Arithmetic with a plain array takes less, and most rules leave the gradient alone.
                g = g.view(np.ndarray)
                g.flags.writeable = False
        results = self._call((arrays[0], g, *arrays[2:]), arrays, scalars)
        if len(results) != 1 + len(slots):
            raise TypeError(f"the rule returns {len(results)} values, expected {1 + len(slots)}: p and state")
        new = []
        for target, result in zip((p, *slots), results, strict=True):
            # A rule may return views of its arguments, as where it exchanges its slots.
            new.append(np.empty_like(target, subok=False))
            np.copyto(new[-1], result, casting="same_kind")
        return new

    def _call(self, first: tuple[Any, ...], arrays: tuple[Any, ...], scalars: tuple[float, ...]) -> tuple[Any, ...]:
        for attempt in (first, arrays):
            try:
                result = self._rule(*attempt, *scalars)
            except (TypeError, ValueError):
                if self._in_place:
                    # It may have written already, so it cannot be run once more.
                    raise
            else:
                return result if isinstance(result, tuple) else (result,)
        # A rule with a branch takes one element at a time, as it does compiled. Each is an array of no axes, because
        # augmented assignments do not round to the type of a number.
        p = arrays[0]
        if not p.size:
            return p, *arrays[2:]
        flat = [a.reshape(-1) if isinstance(a, np.ndarray) else a for a in arrays]
        rows = ([a[k, ...] if isinstance(a, np.ndarray) else a for a in flat] for k in range(p.size))
        columns = zip(*(np.atleast_1d(self._rule(*row, *scalars)) for row in rows), strict=True)
        return tuple(np.reshape(column, p.shape) for column in columns)
