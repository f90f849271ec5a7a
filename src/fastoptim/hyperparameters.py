"""Hyperparameters that are checked when they are set, not when a night of training has come to them."""

from __future__ import annotations

import sys
from math import inf
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

__all__ = ["Hyperparameter"]

_LARGEST = sys.float_info.max


class Hyperparameter:
    """An attribute that takes only the finite numbers of an interval, at construction and at any later time.

    Any real number is taken and kept as a Python float: NumPy's float32 would round the scalars computed from it. The
    number is in the object's ``__dict__``, where Python finds it without a ``__get__``.

    Parameters
    ----------
    low, high : float
        The ends of the interval. The upper one belongs to it unless ``below`` is true.

    Raises
    ------
    TypeError
        When anything but a real number is assigned; an array of no dimensions counts as the number in it.
    ValueError
        When the number is not finite, or not in the interval.
    """

    def __init__(self, low: float, high: float = _LARGEST, *, below: bool = False) -> None:
        self.low, self.high, self.below = low, high, below

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, owner: Any, cls: type) -> float: ...

    def __set__(self, owner: Any, value: float) -> None:
        given: Any = value
        if isinstance(given, np.generic) or (isinstance(given, np.ndarray) and given.ndim == 0):
            given = given.item()
        if not isinstance(given, Real):
            raise TypeError(f"{self._expected}, not {value!r} of type {type(value).__name__}")
        try:
            number = float(given)
        except OverflowError:
            number = inf
        # A NaN is in no interval, and infinity not in one that ends with the largest number.
        if not self.low <= number <= self.high or (self.below and number == self.high):
            raise ValueError(f"{self._expected}, not {value!r}")
        vars(owner)[self.name] = number

    @property
    def _expected(self) -> str:
        to = "on" if self.high == _LARGEST else f"to {'less than ' if self.below else ''}{self.high}"
        return f"{self.name} must be a finite number from {self.low} {to}"
