"""What the built-in optimizers share."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from fastoptim._suggest import did_you_mean
from fastoptim.optimizer import Optimizer
from fastoptim.transforms import Number

__all__ = ["NOTES_EPS", "BuiltIn", "Slot"]

NOTES_EPS = 1e-7
"""Added to a root before dividing by it; the notes give it this value."""

Slot = dict[Any, NDArray[Any]] | None
"""The state of one name: None before the first update, then an array for each parameter."""


class BuiltIn(Optimizer):
    """An optimizer of this package. Setting an unknown attribute is an error; a user's subclass may have any.

    Attributes
    ----------
    defaults : dict
        For each library whose rule it can follow, the hyperparameters that this library gives a default of its own.
    """

    defaults: ClassVar[dict[str, dict[str, float]]] = {}

    def _follow(self, like: str, **given: Number | None) -> None:
        """Follow a library: hyperparameters that are None get its defaults."""
        self.like = like
        for name, value in given.items():
            setattr(self, name, self.defaults[like][name] if value is None else value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A pickle of the textbook's class, or of an older version, lacks hyperparameters that came later.
        later = {name: it.default for name, it in inspect.signature(type(self)).parameters.items()}
        for name, value in (later | self.defaults.get(self.like, {})).items():
            if isinstance(value, int | float | str):
                vars(self).setdefault(name, value)
        self._recompose()

    @property
    def like(self) -> str:
        """The library whose rule it follows; setting it leaves all hyperparameters as they are."""
        return str(vars(self).get("like", next(iter(self.defaults), "")))

    @like.setter
    def like(self, library: str) -> None:
        if library not in self.defaults:
            names = ", ".join(map(repr, self.defaults))
            raise ValueError(f"like must be one of {names}, not {library!r}")
        vars(self)["like"] = library

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
