"""The transforms of an optimizer: keywords, and attributes that are checked when they are set."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

import numpy as np

from fastoptim.arguments import check_number, true_or_false, whole_number
from fastoptim.conversions import as_gradient
from fastoptim.dtypes import checked_state_dtype, is_bfloat16, is_floating
from fastoptim.groups import Pattern
from fastoptim.hyperparameters import Hyperparameter, Schedule

__all__ = [
    "COUNTERS",
    "EXTRA_SLOTS",
    "GROUPED",
    "KEYWORDS",
    "OPTIONS",
    "PRECISION",
    "Keyword",
    "Number",
    "Options",
    "Transforms",
    "arguments_of",
    "centralized",
    "names_in_groups",
]

Number = float | Schedule
"""What a hyperparameter may be set to."""


class Transforms(TypedDict, total=False):
    """The keywords that every optimizer takes; each is also an attribute that may be set later."""

    maximize: bool
    grad_scale: Number | None
    accumulate: int | None
    centralize: bool
    clip_value: Number | None
    clip_norm: Number | None
    clip_array_norm: Number | None
    l2: Number | None
    weight_decay: Number | None
    cautious: bool
    ema: float | None
    lookahead: tuple[int, float] | None
    state_dtype: str | None
    state_seed: int


class Options(Transforms, total=False):
    """All keywords of every optimizer."""

    on_nonfinite: str
    groups: Mapping[Pattern, Mapping[str, Any]] | None
    frozen: Sequence[Pattern]
    state_dir: str | os.PathLike[str] | None


GROUPED = {"grad_scale", "clip_value", "clip_array_norm", "l2", "weight_decay"}
"""The transforms of which each group may have its own number."""


class Keyword:
    """The attribute of a transform: that of the class, None or False, while it is off.

    Parameters
    ----------
    name : str
        Name of the attribute.
    check : Hyperparameter or function
        ``check(name, value)`` returns the value to keep, or raises an error.
    off : None, False or 0
        The value of the attribute while the transform is off.
    """

    def __init__(self, name: str, check: Hyperparameter | Callable[[str, Any], Any], off: Any = None) -> None:
        self.name, self.check, self.off = name, check, off
        if isinstance(check, Hyperparameter):
            check.name = name

    def __set__(self, optimizer: Any, value: Any) -> None:
        was_on = self.name in vars(optimizer)
        if isinstance(value, np.bool_):
            value = bool(value)
        if value is None or value is self.off:
            vars(optimizer).pop(self.name, None)
            schedules = vars(optimizer)["_schedules"]
            vars(optimizer)["_schedules"] = {name: own for name, own in schedules.items() if name != self.name}
        elif isinstance(self.check, Hyperparameter):
            self.check.__set__(optimizer, value)
        else:
            vars(optimizer)[self.name] = self.check(self.name, value)
        if was_on != (self.name in vars(optimizer)) or self.name in PRECISION:
            optimizer._recompose()


def _fraction(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number in [0, 1), not {value!r}")
    return float(value)


def _pair(name: str, value: Any) -> tuple[int, float]:
    try:
        k, alpha = value
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pair (k, alpha), such as (5, 0.5), not {value!r}") from None
    check_number(f"alpha of {name}", alpha)
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha of {name} must be in (0, 1], not {alpha!r}")
    return whole_number(f"k of {name}", k), float(alpha)


KEYWORDS = {
    each.name: each
    for each in (
        Keyword("maximize", true_or_false, off=False),
        Keyword("grad_scale", Hyperparameter()),
        Keyword("accumulate", whole_number),
        Keyword("centralize", true_or_false, off=False),
        Keyword("clip_value", Hyperparameter(0)),
        Keyword("clip_norm", Hyperparameter(0)),
        Keyword("clip_array_norm", Hyperparameter(0)),
        Keyword("l2", Hyperparameter(0)),
        Keyword("weight_decay", Hyperparameter(0)),
        Keyword("cautious", true_or_false, off=False),
        Keyword("ema", _fraction),
        Keyword("lookahead", _pair),
        Keyword("state_dtype", checked_state_dtype),
        Keyword("state_seed", partial(whole_number, least=0), off=0),
    )
}
"""The attributes of transforms, in the order in which `repr` shows them."""

OPTIONS = {*KEYWORDS, "groups", "frozen", "on_nonfinite", "state_dir"}
"""The keywords of every optimizer."""

PRECISION = {"state_dtype", "state_seed"}
"""Those that are no transforms: they change how state is stored, not what is computed."""


COUNTERS = {"accumulate": "accumulated", "ema": "averages"}
"""The attributes in which transforms count, which are there while the transform is on."""

EXTRA_SLOTS = {"accumulate": "gradient_mean", "ema": "averaged", "lookahead": "slow"}
"""The state of transforms."""


def arguments_of(cls: Any) -> list[str]:
    """Return the arguments that the constructor of a class names, without those of every optimizer."""
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    named = [it.name for it in parameters if it.kind in (it.POSITIONAL_OR_KEYWORD, it.KEYWORD_ONLY)]
    return [name for name in named if name not in OPTIONS]


def names_in_groups(optimizer: Any) -> set[str]:
    """Return the names of the hyperparameters that a group may have."""
    cls = type(optimizer)
    names = {name for name, it in cls._declared.items() if isinstance(it, Hyperparameter)}
    # Custom classes and their objects have plain attributes, which a constructor may set only after the groups.
    custom = [base for base in cls.__mro__ if not base.__module__.startswith("fastoptim.")]
    plain = {name: value for each in (*reversed(custom), optimizer) for name, value in vars(each).items()}
    names |= {name for name, value in plain.items() if isinstance(value, float | int) and name[0] != "_"}
    names |= {*arguments_of(cls), *GROUPED}
    names -= {"iter", "skipped", "n_ratios", *optimizer.shared, *OPTIONS - GROUPED}
    return {name for name in names if not getattr(cls._declared.get(name), "is_fixed", False)}


def centralized(grads: Any) -> Any:
    """Return gradients minus their means over all axes but the last, those of one axis as they are.

    Yong et al. (2020), "Gradient centralization", eq. 1, for weights of shape (inputs, outputs).
    """

    def centered(g: Any) -> Any:
        g = as_gradient(g)
        if not isinstance(g, np.ndarray) or g.ndim < 2 or not is_floating(g.dtype) or not g.size:
            return g
        if is_bfloat16(g.dtype):
            g = g.astype(np.float32)
        # Kernels do not warn about infinities either.
        with np.errstate(all="ignore"):
            return g - g.mean(axis=tuple(range(g.ndim - 1)), keepdims=True)

    if isinstance(grads, Mapping):
        return {key: centered(g) for key, g in grads.items()}
    return [centered(g) for g in grads] if isinstance(grads, list | tuple) else grads
