"""What the built-in optimizers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fastoptim._suggest import did_you_mean
from fastoptim.optimizer import Optimizer

__all__ = ["NOTES_EPS", "BuiltIn", "Slot"]

NOTES_EPS = 1e-7
"""Added to a root before dividing by it; the notes give it this value."""

Slot = dict[Any, NDArray[Any]] | None
"""The state of one name: None before the first update, then an array for each parameter."""


class BuiltIn(Optimizer):
    """An optimizer of this package. Setting an unknown attribute is an error; a user's subclass may have any."""

    if not TYPE_CHECKING:  # With `__setattr__`, type checkers would accept any attribute.

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
