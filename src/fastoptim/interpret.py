"""The text of a rule, run as it stands where no kernel does what NumPy does: on numbers, mixed dtypes and aliases."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from fastoptim.entries import Entry

__all__ = ["AllOrNothing", "Interpret", "Rule", "Task"]

Rule = Callable[..., Any]
Task = Callable[[tuple[float, ...]], None]
"""One piece of an update, ready to run with the scalars of the step."""


class _Value(np.ndarray[Any, Any]):
    """An array to which augmented assignment gives a new value, rounded to its dtype, in place of writing to it.

    So a rule does here what it does compiled: it may write ``g += decay * p`` and leave the gradient as it is.
    """


def _assign(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def assign(self: _Value, other: Any) -> Any:
        return np.asarray(operation(self, other)).astype(self.dtype, casting="same_kind").view(_Value)

    return assign


for _operation in (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod):
    setattr(_Value, f"__i{_operation.__name__}__", _assign(_operation))


@dataclass(frozen=True, slots=True)
class Interpret:
    """Run the text of the rule itself, on arrays or numbers of any kind, as NumPy promotes and rounds them."""

    rule: Rule
    params: Any
    entry: Entry

    def __call__(self, scalars: tuple[float, ...]) -> None:
        """Update the parameter and its state."""
        entry = self.entry
        # A Python number as gradient is weak, as a parameter it is not: it keeps its precision beside a float32 one.
        g = entry.g if isinstance(entry.gradient, np.ndarray) else entry.gradient
        arrays = (entry.p, g, *entry.slots)
        if not entry.is_aliased:
            arrays = tuple(a.view(_Value) if isinstance(a, np.ndarray) else a for a in arrays)
        with np.errstate(all="ignore"):
            result = self._result(arrays, scalars)
            # What is returned may be views of one another's memory, as where a rule exchanges its slots.
            results = [np.array(value) for value in (result if isinstance(result, tuple) else (result,))]
            if len(results) != 1 + len(entry.slots):
                raise TypeError(f"the rule returns {len(results)} values, expected {1 + len(entry.slots)}: p and state")
            targets = ([entry.p] if entry.is_array else []) + entry.slots
            for target, value in zip(targets, results[-len(targets) :] if targets else [], strict=True):
                np.copyto(target, value, casting="same_kind")
            if not entry.is_array:
                self.params[entry.key] = type(entry.value)(results[0])

    def _result(self, arrays: tuple[Any, ...], scalars: tuple[float, ...]) -> Any:
        try:
            return self.rule(*arrays, *scalars)
        except (TypeError, ValueError):
            if self.entry.is_aliased:
                # It may have written already, so it cannot be run once more.
                raise
            # A rule with a branch takes one element at a time, as it does compiled.
            elements = zip(*(np.ravel(array) for array in arrays), strict=True)
            columns = zip(*(np.atleast_1d(self.rule(*element, *scalars)) for element in elements), strict=True)
            return tuple(np.reshape(column, np.shape(arrays[0])) for column in columns)


@dataclass(frozen=True, slots=True)
class AllOrNothing:
    """Run tasks of which one may raise, as a rule that is interpreted may; then put everything back."""

    tasks: list[Task]
    params: Any
    entries: list[Entry]
    done: list[bool] = field(default_factory=lambda: [False])
    """Whether everything has been written; as long as it is false, everything is as it was."""

    def __call__(self, scalars: tuple[float, ...]) -> None:
        """Run the tasks in turn."""
        arrays = chain.from_iterable([*entry.slots, *([entry.p] if entry.is_array else [])] for entry in self.entries)
        backups = [(array, array.copy()) for array in arrays]
        try:
            for task in self.tasks:
                task(scalars)
            self.done[0] = True
        except BaseException:
            for array, backup in backups:
                np.copyto(array, backup)
            for entry in self.entries:
                if not entry.is_array:
                    self.params[entry.key] = entry.value
            raise
