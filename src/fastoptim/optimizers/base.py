"""What the built-in optimizers share."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from fastoptim._suggest import did_you_mean
from fastoptim.optimizer import Optimizer
from fastoptim.transforms import KEYWORDS, Number

__all__ = ["NOTES_EPS", "BuiltIn", "Slot"]

NOTES_EPS = 1e-7
"""Added to a root before dividing by it; the notes give it this value."""

Slot = dict[Any, NDArray[Any]] | None
"""The state of one name: None before the first update, then an array for each parameter."""


class _Library:
    """The attribute ``like``, checked when it is set; as there is no ``__get__``, Python reads it directly."""

    if TYPE_CHECKING:

        def __get__(self, owner: Any, cls: type) -> str: ...

    def __set__(self, owner: BuiltIn, library: str) -> None:
        if library not in owner.defaults:
            names = ", ".join(map(repr, owner.defaults))
            raise ValueError(f"like must be one of {names}, not {library!r}")
        vars(owner)["like"] = library


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
        # A pickle of the textbook's class, or of an older version, lacks hyperparameters that came later. A transform
        # that it lacks is off.
        later = {name: it.default for name, it in inspect.signature(type(self)).parameters.items()}
        library = str(vars(self).get("like", later.get("like")))
        for name, value in (later | self.defaults.get(library, {})).items():
            if isinstance(value, int | float | str) and name not in KEYWORDS:
                vars(self).setdefault(name, value)
        self._recompose()

    like = _Library()

    if not TYPE_CHECKING:  # With `__setattr__`, type checkers would accept any attribute.

        def __setattr__(self, name, value):
            cls = type(self)
            is_known = hasattr(cls, name) or name in vars(self) or name.startswith("_")
            # Groups have running numbers of their own.
            is_known |= name.rpartition("_")[0] in cls.running
            if not is_known and cls.__module__.startswith(f"{__package__}."):
                own = [key for key in vars(self) if not key.startswith("_") and key not in ("iter", "skipped")]
                hint = (
                    did_you_mean(name, [*own, *cls.slots]) or f"; it has {', '.join(own)}, and a subclass may have more"
                )
                raise AttributeError(f"{cls.__name__} has no attribute {name!r}{hint}")
            super().__setattr__(name, value)
