"""What the built-in optimizers share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from numpy.typing import NDArray

from fastoptim._suggest import did_you_mean
from fastoptim.hyperparameters import Choice, Hyperparameter
from fastoptim.optimizer import Optimizer
from fastoptim.transforms import Number

__all__ = ["NOTES_EPS", "AdamLike", "BuiltIn", "Slot", "Variants"]

NOTES_EPS = 1e-7
"""Added to a root before dividing by it; the notes give it this value."""

Slot = dict[Any, NDArray[Any]] | None
"""The state of one name: None before the first update, then an array for each parameter."""

Variants = Mapping[tuple[str, ...], Callable[..., Any]]
"""Rules by the names of their slots."""


def _known_library(owner: BuiltIn, name: str, library: str) -> str:
    if not isinstance(library, str) or library not in owner.defaults:
        names = ", ".join(map(repr, owner.defaults))
        raise ValueError(f"{name} must be one of {names}, not {library!r}")
    return library


@lru_cache
def _defaults(cls: Any, like: str | None) -> dict[str, float | str]:
    """Return the defaults of the hyperparameters of a class; a subclass may give a number to all of its objects."""
    own = next(base for base in cls.__mro__ if base.__module__.startswith(f"{__package__}."))
    given = {name: it.default for name, it in inspect.signature(own).parameters.items()}
    given |= cls.defaults.get(like or str(given.get("like")), {})
    return {
        name: value
        for name, value in given.items()
        if isinstance(value, int | float | str) and isinstance(cls._declared.get(name), Hyperparameter | Choice)
    }


def _holds_parameters(value: Any) -> bool:
    """Tell whether a value is a collection, such as torch's optimizers take as their first argument."""
    return isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


class BuiltIn(Optimizer):
    """An optimizer of this package. Setting an unknown attribute is an error; a user's subclass may have any.

    Constructors set their hyperparameters before they call that of the base class, which takes the folder of
    ``state_dir``: an error in one of them must not leave the folder to an object that only the traceback refers to.

    Attributes
    ----------
    defaults : dict
        For each library whose rule it can follow, the hyperparameters with the defaults of that library.
    variants : dict
        The rules that options choose in place of ``rule``, by the names of their slots. Those that ``rule`` does not
        have are its ``optional_slots``.
    """

    defaults: ClassVar[dict[str, dict[str, float]]] = {}
    variants: ClassVar[Variants] = {}
    _variant: tuple[str, ...] | None
    like = Choice(_known_library)
    lr = Hyperparameter(0)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: D102
        if args and cls.__module__.startswith(f"{__package__}.") and _holds_parameters(args[0]):
            raise TypeError(
                f"{cls.__name__} takes no parameters: make opt = fo.{cls.__name__}(lr=0.01) and call "
                "opt.update(params, grads), or for torch fastoptim.torch.Optimizer(params, opt)"
            )
        # A subclass that does not call __init__ may lack hyperparameters that were added later. The order is that of
        # the constructor, so that repr shows them in it.
        self = super().__new__(cls, *args, **kwargs)
        vars(self).update(_defaults(cast(Any, cls), None))
        return self

    def variant(self) -> tuple[str, ...] | None:
        """Return the slots of the variant that the options choose, or None for ``rule``."""
        return None

    def _choose(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        # A subclass with another rule has no variants. `scalars` reads this choice, which is the same for all groups.
        owner: Any = next(cls for cls in type(self).__mro__ if "variants" in vars(cls))
        variant = vars(self)["_variant"] = self.variant() if self.rule is owner.rule else None
        return super()._choose() if variant is None else (self.variants[variant], variant)

    def _follow(self, like: str, **given: Number | None) -> None:
        """Follow a library: hyperparameters that are None get its defaults."""
        self.like = like
        for name, value in given.items():
            setattr(self, name, self.defaults[like].get(name) if value is None else value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A pickle of the textbook's class, or of an older version, lacks hyperparameters that were added later.
        later = _defaults(cast(Any, type(self)), state.get("like"))
        vars(self).update((name, value) for name, value in later.items() if name not in state)
        self._recompose()

    if not TYPE_CHECKING:  # With `__setattr__`, type checkers would accept any attribute.

        def __setattr__(self, name, value):
            cls = type(self)
            is_known = name in vars(self) or name in cls._declared or hasattr(cls, name) or name.startswith("_")
            # Each group has its own running numbers, such as product_1.
            is_known = is_known or name.rpartition("_")[0] in cls.running
            if not is_known and cls.__module__.startswith(f"{__package__}."):
                own = [key for key in vars(self) if not key.startswith("_") and key not in ("iter", "skipped")]
                near = did_you_mean(name, [*own, *cls.slots, *cls.optional_slots, *sorted(cls._declared)])
                hint = near or f"; it has {', '.join(own)}, and a subclass may have more"
                raise AttributeError(f"{cls.__name__} has no attribute {name!r}{hint}")
            super().__setattr__(name, value)


class AdamLike(BuiltIn):
    """An optimizer with running means of the gradient and of its square, or of numbers in their place."""

    beta1 = Hyperparameter(0, 1, below=True)
    beta2 = Hyperparameter(0, 1, below=True)
    eps = Hyperparameter(0)
