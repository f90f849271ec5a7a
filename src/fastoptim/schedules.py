"""Schedules: hyperparameters as functions of the number of updates done, which is 0 in the first step.

Every hyperparameter takes a schedule, or any other function of a whole number; `opt.lr` is then the number of the next
step. A schedule is a plain value: it compares equal to another one of the same numbers, and checkpoints keep it.

Examples
--------
>>> import fastoptim as fo
>>> from fastoptim import schedules
>>> opt = fo.Adam(lr=schedules.warmup(schedules.cosine(1e-3, 100), 10))
>>> opt.lr
0.0001
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

__all__ = [
    "SCHEDULES", "ReduceOnPlateau", "constant", "cosine", "cosine_restarts", "cyclic", "exponential", "from_spec",
    "inverse_sqrt", "join", "linear", "multistep", "one_cycle", "polynomial", "step", "to_spec", "warmup",
]  # fmt: skip

Schedule = Callable[[int], float]


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class constant:
    """The same number in each step."""

    value: float

    def __call__(self, k: int) -> float:
        return self.value


@dataclass(frozen=True)
class step:
    """``value * factor ** (k // every)``: torch's StepLR."""

    value: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check(self.every >= 1, f"every must be a number of steps from 1 on, not {self.every!r}")

    def __call__(self, k: int) -> float:
        return float(self.value * self.factor ** (k // self.every))


@dataclass(frozen=True)
class multistep:
    """``value`` times ``factor`` for each milestone that was reached: torch's MultiStepLR."""

    value: float
    milestones: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(sorted(self.milestones)))

    def __call__(self, k: int) -> float:
        return float(self.value * self.factor ** sum(k >= milestone for milestone in self.milestones))


@dataclass(frozen=True)
class exponential:
    """``value * factor ** k``: torch's ExponentialLR."""

    value: float
    factor: float

    def __call__(self, k: int) -> float:
        return float(self.value * self.factor**k)


@dataclass(frozen=True)
class polynomial:
    """From ``value`` to ``end`` in some steps, as ``(1 - k / steps) ** power``; then ``end``."""

    value: float
    steps: int
    end: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        _check(self.steps >= 1, f"steps must be a number from 1 on, not {self.steps!r}")

    def __call__(self, k: int) -> float:
        rest = 1 - min(k, self.steps) / self.steps
        return float((self.value - self.end) * rest**self.power + self.end)


@dataclass(frozen=True)
class linear:
    """From ``value`` to ``end`` in a straight line; then ``end``."""

    value: float
    end: float
    steps: int

    def __call__(self, k: int) -> float:
        return polynomial(self.value, self.steps, self.end)(k)


@dataclass(frozen=True)
class cosine:
    """Half a cosine from ``value`` to ``end``; then ``end``, where torch's CosineAnnealingLR would rise again.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, eq. 5.
    """

    value: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        _check(self.steps >= 1, f"steps must be a number from 1 on, not {self.steps!r}")

    def __call__(self, k: int) -> float:
        return self.end + (self.value - self.end) * (1 + math.cos(math.pi * min(k, self.steps) / self.steps)) / 2


@dataclass(frozen=True)
class cosine_restarts:
    """Half a cosine again and again, each ``growth`` times as long as the one before: torch's …WarmRestarts."""

    value: float
    steps: int
    growth: int = 1
    end: float = 0.0

    def __post_init__(self) -> None:
        _check(self.steps >= 1 and self.growth >= 1, "steps and growth must be whole numbers from 1 on")

    def __call__(self, k: int) -> float:
        length = self.steps
        if self.growth == 1:
            k %= length
        while k >= length:
            k -= length
            length *= self.growth
        return self.end + (self.value - self.end) * (1 + math.cos(math.pi * k / length)) / 2


@dataclass(frozen=True)
class cyclic:
    """A triangle from ``low`` to ``high`` in ``up`` steps and back in ``down``: torch's CyclicLR, triangular."""

    low: float
    high: float
    up: int
    down: int | None = None

    def __post_init__(self) -> None:
        _check(self.up >= 1 and (self.down is None or self.down >= 1), "up and down must be numbers from 1 on")

    def __call__(self, k: int) -> float:
        down = self.up if self.down is None else self.down
        k %= self.up + down
        share = k / self.up if k <= self.up else 1 - (k - self.up) / down
        return self.low + (self.high - self.low) * share


@dataclass(frozen=True)
class one_cycle:
    """Up from ``peak / start`` and down to ``peak / start / end``, each half a cosine: torch's OneCycleLR.

    Smith and Topin, "Super-convergence", 2018.
    """

    peak: float
    steps: int
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4

    def __post_init__(self) -> None:
        _check(self.steps >= 2 and 0 < self.rise < 1, "steps must be from 2 on, and rise in (0, 1)")

    def __call__(self, k: int) -> float:
        low, turn, last = self.peak / self.start, self.rise * self.steps - 1, self.steps - 1
        k = min(k, last)
        a, b, share = (
            (low, self.peak, k / turn) if k <= turn else (self.peak, low / self.end, (k - turn) / (last - turn))
        )
        return b + (a - b) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class inverse_sqrt:
    """Up to ``peak`` in ``steps`` steps, then down with the root of the number of steps.

    Vaswani et al., "Attention is all you need", 2017, eq. 3, rescaled.
    """

    peak: float
    steps: int

    def __post_init__(self) -> None:
        _check(self.steps >= 1, f"steps must be a number from 1 on, not {self.steps!r}")

    def __call__(self, k: int) -> float:
        return self.peak * min((k + 1) / self.steps, math.sqrt(self.steps / (k + 1)))


@dataclass(frozen=True)
class warmup:
    """A schedule times ``(k + 1) / steps`` in its first steps."""

    schedule: Schedule
    steps: int

    def __post_init__(self) -> None:
        _check(self.steps >= 1, f"steps must be a number from 1 on, not {self.steps!r}")

    def __call__(self, k: int) -> float:
        return float(self.schedule(k) * min(1.0, (k + 1) / self.steps))


@dataclass(frozen=True)
class join:
    """Schedules one after the other, each from its boundary on, and counted from there: optax's join_schedules."""

    schedules: tuple[Schedule, ...]
    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", tuple(self.schedules))
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        _check(len(self.schedules) == len(self.boundaries) + 1, "there must be one schedule more than boundaries")
        _check(list(self.boundaries) == sorted(self.boundaries), "boundaries must not decrease")

    def __call__(self, k: int) -> float:
        number = sum(k >= boundary for boundary in self.boundaries)
        return float(self.schedules[number](k - (self.boundaries[number - 1] if number else 0)))


@dataclass
class ReduceOnPlateau:
    """Multiply by a factor when the loss has not fallen for some time: torch's ReduceLROnPlateau.

    Call `observe` with each loss. A loss is better if it is below ``best * (1 - threshold)``; after more than
    ``patience`` that are not, the number becomes ``max(number * factor, low)``, and ``cooldown`` losses do not count.

    Examples
    --------
    >>> schedule = ReduceOnPlateau(0.5, factor=0.5, patience=1)
    >>> for loss in 1.0, 1.0, 1.0:
    ...     schedule.observe(loss)
    >>> schedule(3)
    0.25
    """

    value: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    low: float = 0.0
    best: float | None = None
    n_bad: int = 0
    n_cool: int = 0

    def __call__(self, k: int) -> float:
        return self.value

    def observe(self, loss: float) -> None:
        """Take notice of a loss."""
        if self.best is None or loss < self.best * (1 - self.threshold):
            self.best, self.n_bad = float(loss), 0
        else:
            self.n_bad += 1
        if self.n_cool > 0:
            self.n_cool, self.n_bad = self.n_cool - 1, 0
        if self.n_bad > self.patience:
            lower = max(self.value * self.factor, self.low)
            if self.value - lower > 1e-8:
                self.value = lower
            self.n_cool, self.n_bad = self.cooldown, 0


SCHEDULES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        constant, step, multistep, exponential, polynomial, linear, cosine, cosine_restarts, cyclic, one_cycle,
        inverse_sqrt, warmup, join, ReduceOnPlateau,
    )
}  # fmt: skip


def to_spec(schedule: Any) -> Any:
    """Return a schedule as lists, numbers and names, or None if it is another function."""
    if type(schedule) not in SCHEDULES.values():
        return None
    values = [getattr(schedule, field.name) for field in fields(schedule)]
    specs = [_spec_of(value) for value in values]
    return None if any(spec is None and value is not None for spec, value in zip(specs, values, strict=True)) else [
        type(schedule).__name__, *specs
    ]  # fmt: skip


def _spec_of(value: Any) -> Any:
    if isinstance(value, tuple):
        specs = [_spec_of(each) for each in value]
        return None if None in specs else ["tuple", *specs]
    return value if value is None or isinstance(value, int | float) else to_spec(value)


def from_spec(spec: Any) -> Any:
    """Return the schedule that `to_spec` described; raise `ValueError` for anything else."""
    if isinstance(spec, int | float | None):
        return spec
    if not isinstance(spec, list) or not spec or not isinstance(spec[0], str):
        raise ValueError(f"{spec!r} is not a schedule")
    name, *values = spec
    values = [from_spec(value) for value in values]
    if name == "tuple":
        return tuple(values)
    try:
        return SCHEDULES[name](*values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{spec!r} is not a schedule") from error
