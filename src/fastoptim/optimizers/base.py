"""What the built-in optimizers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fastoptim._suggest import did_you_mean
from fastoptim.optimizer import Optimizer

__all__ = ["NOTES_EPS", "BuiltIn", "Slot"]

NOTES_EPS = 1e-7
"""Keeps the division by a root away from zero; the notes fix its value."""

Slot = dict[Any, NDArray[Any]] | None
"""The state of one name: None before the first update, then an array for each parameter."""


class BuiltIn(Optimizer):
    """An optimizer of this package. It refuses attributes that it does not have; a user's subclass takes any."""

    if not TYPE_CHECKING:  # A type checker would conclude from `__setattr__` that every attribute may be set.

        def __setattr__(self, name, value):
            cls = type(self)
            is_known = hasattr(cls, name) or name in vars(self) or name.startswith("_")
            if not is_known and cls.__module__.startswith(f"{__package__}."):
                own = [key for key in vars(self) if not key.startswith("_") and key not in ("iter", "skipped")]
                hint = (
                    did_you_mean(name, [*own, *cls.slots]) or f"; it has {', '.join(own)}, and a subclass may have more"
                )
                raise AttributeError(f"{cls.__name__} has no attribute {name!r}{hint}")
            super().__setattr__(name, value)
