"""Hyperparameters are checked when they are set, not hours later during training.

A class of optimizers moves those that its body declares into a table, in which ``Optimizer.__setattr__`` finds them.
The class would otherwise have an attribute with a setter, for which CPython takes four times as long to read the plain
value that is stored in the object.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from math import inf
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from fastoptim.arguments import check_function, check_number

__all__ = ["Choice", "Hyperparameter", "Schedule", "Switch", "at_step", "is_function", "is_schedule"]

Schedule = Callable[[int], float]
"""A hyperparameter as a function of the number of updates done: 0 in the first step."""

_LARGEST = sys.float_info.max


class Hyperparameter:
    """An attribute that holds a finite number in an interval and is checked whenever it is set.

    Any real number is accepted and kept as a Python float, because NumPy's float32 would round the scalars computed
    from it. The number is stored in the object's ``__dict__``; as there is no ``__get__``, Python reads it there.

    Parameters
    ----------
    low, high : float
        The ends of the interval, by default those of all finite numbers. ``high`` is included unless ``below`` is true.
    is_fixed : bool
        Whether it is one number for all steps and all parameters: neither a schedule, nor a group's.

    Raises
    ------
    TypeError
        If the value is not a real number. A zero-dimensional array counts as the number in it.
    ValueError
        If the number is not finite or not in the interval.
    """

    def __init__(
        self, low: float = -_LARGEST, high: float = _LARGEST, *, below: bool = False, is_fixed: bool = False
    ) -> None:
        self.low, self.high, self.below, self.is_fixed = low, high, below, is_fixed

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, owner: Any, cls: type) -> float: ...

    def __set__(self, owner: Any, value: float | Schedule) -> None:
        schedules = vars(owner).get("_schedules")
        if schedules is None:
            vars(owner)[self.name] = self.checked(value)
        elif not self.is_fixed and is_function(value):
            number = self.checked(at_step(self.name, value, owner.iter))
            vars(owner).update({self.name: number, "_schedules": {**schedules, self.name: value}, "_extended": True})
        else:
            vars(owner)[self.name] = self.checked(value)
            if self.name in schedules:
                vars(owner)["_schedules"] = {name: own for name, own in schedules.items() if name != self.name}

    def checked(self, value: Any) -> float:
        """Return a value as a Python float, or raise an error if it is not allowed."""
        number = value if type(value) is float else self._converted(value)
        # NaN is in no interval, and infinity is above every upper end.
        if not self.low <= number <= self.high or (self.below and number == self.high):
            raise ValueError(f"{self._expected}, not {value!r}")
        return number

    def _converted(self, value: Any) -> float:
        given: Any = value
        if isinstance(given, np.generic) or (isinstance(given, np.ndarray) and given.ndim == 0):
            given = given.item()
        # ``lr=True`` and ``clip_norm=True`` are mistakes, and the number 1.0 would hide them.
        if isinstance(given, bool) or not isinstance(given, Real):
            hint = f"; did you mean {value.__name__}(...)?" if isinstance(value, type) else ""
            raise TypeError(f"{self._expected}, not {value!r} of type {type(value).__name__}{hint}")
        try:
            return float(given)
        except OverflowError:
            return inf

    @property
    def _expected(self) -> str:
        if self.high == _LARGEST:
            interval = f" >= {self.low}" if self.low > -_LARGEST else ""
        else:
            interval = f" in [{self.low}, {self.high}{')' if self.below else ']'}"
        return f"{self.name} must be a finite number{interval}"


class Switch(Hyperparameter):
    """A hyperparameter that chooses another rule where it is not 0, so that it costs nothing where it is 0."""

    def __set__(self, owner: Any, value: float | Schedule) -> None:
        was_on = owner._is_on(self.name)
        super().__set__(owner, value)
        if owner._is_on(self.name) != was_on:
            owner._recompose()


class Choice:
    """An attribute that chooses the rule of a whole optimizer, not of a group; stored like a hyperparameter.

    Parameters
    ----------
    check : function
        ``check(owner, name, value)`` returns the value to keep, or raises an error.
    """

    is_fixed = True

    def __init__(self, check: Callable[[Any, str, Any], Any]) -> None:
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, owner: Any, cls: type) -> Any: ...

    def __set__(self, owner: Any, value: Any) -> None:
        fields, value = vars(owner), self.check(owner, self.name, value)
        if self.name not in fields or fields[self.name] != value:
            fields[self.name] = value
            owner._recompose()


def is_function(value: Any) -> bool:
    """Tell whether a value is a function, which a class is not."""
    return callable(value) and not isinstance(value, type)


def at_step(name: str, value: Any, steps: int) -> Any:
    """Return what a schedule returns after a number of updates, or the value itself if it is none.

    Raises
    ------
    TypeError
        If it is a function of other arguments, or returns no number.
    """
    if not is_function(value):
        return value
    check_function(name, value, "a number, or a function of the number of updates done", 1)
    number = value(steps)
    check_number(f"what the schedule of {name} returns", number)
    return number


def is_schedule(value: Any) -> bool:
    """Tell whether a value assigned to an attribute without a descriptor is a schedule: a function of one argument."""
    if not is_function(value):
        return False
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    return len(parameters) == 1
