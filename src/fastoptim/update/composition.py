"""The composition of an optimizer: its rule with the transforms that are on, as one function for the engine.

Their order is fixed: scale (`maximize`, `grad_scale`), `accumulate`, `centralize`, `clip_value`, `clip_norm`,
`clip_array_norm`, `l2`, the class's own `before`, `weight_decay`, the rule (`cautious`), the class's own `after`,
`ema`, `lookahead`. A transform that is off is not in the kernel.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from math import inf, nan, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastoptim.kernels import transforms
from fastoptim.kernels.fuse import n_scalars
from fastoptim.kernels.stages import Stage, compose, function_of
from fastoptim.transforms import EXTRA_SLOTS, KEYWORDS, PRECISION

__all__ = ["Composition", "Sums", "compose_optimizer"]

_NEED_ALL = "accumulate", "centralize", "ema", "lookahead"
"""The transforms that need all elements of a parameter at each step."""

_OPTIMIZER = "the optimizer"
"""The name of the optimizer among the values of a composition; the space keeps it apart from slots."""


class Sums(NamedTuple):
    """A pass over all arrays before the update, which sums what a function returns for their elements."""

    function: Any
    """The composition that computes what is summed."""
    squares: tuple[bool, ...]
    """For each number, whether to sum its square."""
    columns: slice
    """The scalars that are computed from the sums."""
    finish: Callable[[Any, NDArray[Any], NDArray[Any], NDArray[Any]], Any]
    """Takes the optimizer and, for each array, its sums, its scalars up to these columns, and its size; returns the
    columns."""
    is_shared: bool = False
    """Whether the columns are the same for all arrays; then ``finish`` needs only the sums, and returns one number."""


@dataclass(eq=False)
class Composition:
    """A rule with the transforms that are on: what an update runs."""

    rule: Any
    slots: tuple[str, ...]
    scalars: list[Callable[[Any], float]] = field(default_factory=list)
    """The scalars that follow those of the rule, as functions of the optimizer."""
    sums: list[Sums] = field(default_factory=list)
    n_rule_scalars: int = 0
    """Number of scalars that `Optimizer.scalars` returns."""
    n_ratios: int = 0
    """Number of scalars of the rule that are computed from sums."""
    needs_all: str = ""
    """What needs all elements of a parameter at each step, so that gradients cannot be row-sparse."""
    arrays: Composition | None = None
    """The same with `array_rule` as rule, whose functions take the optimizer after the state; None without one."""

    def further_scalars(self, optimizer: Any) -> list[Any]:
        """Return what follows the scalars of `Optimizer.scalars`; NaN until sums are known."""
        further = [value(optimizer) for value in self.scalars]
        return [nan] * self.n_ratios + further if self.n_ratios else further

    def error(self, values: Any) -> TypeError:
        """Return the error to raise if `Optimizer.scalars` returned something else than its numbers."""
        return TypeError(
            f"hyperparameters must be numbers: scalars() must return a tuple of what the rule takes after its state, "
            f"{self.n_rule_scalars} number{'' if self.n_rule_scalars == 1 else 's'}, but it returned {values!r}"
        )


def _number(value: Any) -> Any:
    # A sweep passes arrays with a number for each copy.
    return value if isinstance(value, np.ndarray) else float(value)


def _decay_factor(optimizer: Any) -> Any:
    decay = optimizer.weight_decay
    return 1.0 if decay is None else 1.0 - _number(optimizer.lr) * _number(decay)


def _scale(optimizer: Any) -> float:
    scale = optimizer.grad_scale
    return (-1.0 if optimizer.maximize else 1.0) * (1.0 if scale is None else float(scale))


def _limit(name: str, optimizer: Any) -> float:
    value = getattr(optimizer, name)
    return inf if value is None else float(value)


def _share_of_call(optimizer: Any) -> float:
    return 1.0 / float(optimizer.accumulated + 1)


def _share_of_average(optimizer: Any) -> float:
    return 1.0 - float(optimizer.ema) if optimizer.averages else 1.0


def _lookahead_alpha(optimizer: Any) -> float:
    k, alpha = optimizer.lookahead
    return float(alpha) if optimizer.iter % k == 0 else 0.0


def _clip_factors(limits: Any, norms: Any) -> Any:
    # PyTorch's formula, which shrinks slightly even at the limit.
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(limits), 1.0, np.minimum(1.0, limits / (norms + 1e-6)))


def _clip_all(optimizer: Any, sums: NDArray[Any], _scalars: Any, _sizes: Any) -> Any:
    # One number is computed in Python, because NumPy takes several microseconds.
    factor = float(optimizer.clip_norm) / (sqrt(sum(sums[:, 0].tolist())) + 1e-6)
    return 1.0 if factor > 1.0 else factor


def _clip_each(_optimizer: Any, sums: NDArray[Any], scalars: NDArray[Any], _sizes: Any) -> Any:
    return _clip_factors(scalars[:, -1:], np.sqrt(sums))


def _cautious_factors(_optimizer: Any, sums: NDArray[Any], _scalars: Any, sizes: NDArray[Any]) -> Any:
    # The sums count the elements that do not move.
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1.0 / np.maximum(1.0 - sums / sizes[:, None], 1e-3)


def _call_array_rule(optimizer: Any, *values: Any) -> Any:
    return optimizer.array_rule(*values)


def structure(optimizer: Any) -> tuple[str, ...]:
    """Return the names of the transforms that are on, in an optimizer or in any of its groups, outside of its rule."""
    names = set(vars(optimizer)) | {name for _, own in optimizer._groups.rules for name in own}
    on = [name for name in KEYWORDS if name in names - PRECISION and name not in type(optimizer).in_rule]
    if "accumulate" in on:
        is_last = optimizer.accumulated + 1 >= optimizer.accumulate
        on.append("step" if is_last else "collect")
    return tuple(on)


def compose_optimizer(optimizer: Any) -> Composition:
    """Return the composition of an optimizer's rule with the transforms that are on."""
    cls = type(optimizer)
    rule, slots = optimizer._choose()
    compose_both = _compose_with_arrays if optimizer._takes_arrays() else _compose
    return compose_both(
        function_of(rule),
        tuple(slots),
        structure(optimizer),
        tuple(map(function_of, cls.before)),
        tuple(map(function_of, cls.after)),
        cls.measure and function_of(cls.measure),
        cls.n_ratios,
        tuple(cls.squares),
        cls.ratios,
    )


@lru_cache(maxsize=64)
def _compose_with_arrays(*of: Any) -> Composition:
    return replace(_compose(*of), arrays=_compose(*of, takes_arrays=True))


@lru_cache(maxsize=256)
def _compose(
    rule: Any,
    slots: tuple[str, ...],
    on: Sequence[str],
    before: tuple[Any, ...],
    after: tuple[Any, ...],
    measure: Any,
    n_ratios: int,
    squares: tuple[bool, ...],
    ratios: Any,
    takes_arrays: bool = False,
) -> Composition:
    """Return the composition of a rule; equal arguments give the same object, so plans and kernels are shared.

    Parameters
    ----------
    rule, slots
        The rule and the names of its state.
    on : tuple of str
        The transforms that are on, as `structure` returns them.
    before, after, measure, n_ratios, squares, ratios
        Attributes of the class, as in `Hooks`.
    takes_arrays : bool
        Whether to call `array_rule` in place of the rule.

    Raises
    ------
    TypeError
        If a function of ``before`` or ``after`` takes arguments in another order.
    """
    needs_all = next((name for name in _NEED_ALL if name in on), "a rule with a measure" if measure else "")
    own = [_names(function) for function in (*before, *after)]
    further = tuple(slot for slot in slots if any(slot in names for names in own) and slot not in _names(rule))
    rule_slots = tuple(slot for slot in slots if slot not in further)
    count = n_scalars(rule, rule_slots)
    result = Composition(rule, slots, n_rule_scalars=count - n_ratios, n_ratios=n_ratios, needs_all=needs_all)
    if not (on or before or after or measure or takes_arrays):
        return result
    result.slots = slots = (
        *slots,
        *(slot for name, slot in EXTRA_SLOTS.items() if name in on),
    )
    chain: list[Stage] = []
    pending: list[tuple[Any, Any, Any, Any]] = []

    def scalar(value: Callable[[Any], float]) -> tuple[int]:
        result.scalars.append(value)
        return (count + len(result.scalars) - 1,)

    def add(function: Any, takes: str, gives: str, *scalars: Callable[[Any], float]) -> tuple[int, ...]:
        positions = tuple(position for value in scalars for position in scalar(value))
        chain.append(Stage(function, tuple(takes.split()), tuple(gives.split()), positions))
        return positions

    def sums(what: list[Stage], values: tuple[str, ...], squared: tuple[bool, ...], *rest: Any) -> None:
        pending.append(((*chain, *what), values, squared, rest))

    def norm(finish: Any, name: str, is_shared: bool) -> None:
        # The scalar is the limit until the norm is known, then the factor.
        column = slice(count + len(result.scalars), count + len(result.scalars) + 1)
        sums([Stage(transforms.gradient, ("g",), ("x",))], ("x",), (True,), column, finish, is_shared)
        add(transforms.scaled, "g", "g", partial(_limit, name))

    def custom(functions: tuple[Any, ...], changed: str) -> None:
        for function in functions:
            names = _names(function)
            takes = [name for name in names if name in {"p", "g", *slots}]
            gives = [changed, *(name for name in takes if name in slots)]
            if names[: len(takes)] != takes or changed not in takes:
                raise TypeError(
                    f"{function.__qualname__} takes ({', '.join(names)}); a transform takes {changed!r}, then other "
                    "values among p, g and slots, then hyperparameters, and returns the new values of "
                    f"{changed!r} and the slots it takes"
                )
            rest = [partial(_attribute, name, function.__qualname__) for name in names[len(takes) :]]
            add(function, " ".join(takes), " ".join(gives), *rest)

    if "maximize" in on or "grad_scale" in on:
        add(transforms.scaled, "g", "g", _scale)
    if "accumulate" in on:
        add(transforms.accumulated, "g gradient_mean", "g", _share_of_call)
        add(transforms.gradient, "g", "gradient_mean")
    if "collect" not in on:
        if "clip_value" in on:
            add(transforms.clipped, "g", "g", partial(_limit, "clip_value"))
        if "clip_norm" in on:
            norm(_clip_all, "clip_norm", is_shared=True)
        if "clip_array_norm" in on:
            norm(_clip_each, "clip_array_norm", is_shared=False)
        if "l2" in on:
            add(transforms.l2, "p g", "g", lambda optimizer: float(optimizer.l2 or 0.0))
        custom(before, "g")
        if "weight_decay" in on:
            add(transforms.decayed, "p", "p", _decay_factor)
        if "cautious" in on:
            add(transforms.copied, "p", "before")
        known = tuple(range(count - n_ratios))
        if measure:
            values = tuple(f"measured {k}" for k in range(len(squares)))
            stage = Stage(measure, ("p", "g", *rule_slots), values, known)
            sums([stage], values, squares, slice(count - n_ratios, count), ratios)
        takes, gives = ("p", "g", *rule_slots), ("p", *rule_slots)
        if takes_arrays:
            chain.append(Stage(_call_array_rule, (_OPTIMIZER, *takes), gives, tuple(range(count))))
        else:
            chain.append(Stage(rule, takes, gives, tuple(range(count))))
        if "cautious" in on:
            position = count + len(result.scalars)
            stage = Stage(transforms.disagrees, ("g", "p", "before"), ("x",))
            sums([stage], ("x",), (False,), slice(position, position + 1), _cautious_factors)
            add(transforms.cautious, "g p before", "p", lambda _: nan)
        custom(after, "p")
        if "ema" in on:
            add(transforms.averaged, "p averaged", "averaged", _share_of_average)
        if "lookahead" in on:
            add(transforms.lookahead, "p slow", "p slow", _lookahead_alpha)
    total = count + len(result.scalars)
    arguments = (*slots, *([_OPTIMIZER] if takes_arrays else []))
    for functions, values, squared, rest in pending:
        function = compose(tuple(functions), arguments, total, values)
        function.__wrapped__ = rule
        result.sums.append(Sums(function, squared, *rest))
    result.rule = compose(tuple(chain), arguments, total, ("p", *slots))
    result.rule.__wrapped__ = rule
    return result


def _names(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def _attribute(name: str, function: str, optimizer: Any) -> float:
    try:
        value = getattr(optimizer, name)
    except AttributeError:
        raise TypeError(f"{function} takes {name!r}, which is no attribute of {type(optimizer).__name__}") from None
    return float(value)
