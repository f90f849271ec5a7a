"""Schedules made of others, and the one that observes losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from fastoptim.arguments import check_number, listed
from fastoptim.schedules.checks import check, check_numbers, check_schedule, check_steps, numbers_of_updates

__all__ = ["ReduceOnPlateau", "join", "warmup"]

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class warmup:
    r"""Another schedule, multiplied by a factor that rises to 1 in a straight line.

    .. math:: x_k = y_k \min\left(1, \frac{k + 1}{n}\right)

    Parameters
    ----------
    schedule : function of int
        The schedule :math:`y`.
    steps : int
        Number of updates :math:`n`; `ValueError` if it is below 1.

    Examples
    --------
    >>> [warmup(lambda k: 1.0, 4)(k) for k in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    schedule: Schedule
    steps: int

    def __post_init__(self) -> None:
        check_schedule("schedule", self.schedule)
        check_steps(steps=self.steps)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        return float(self.schedule(k) * min(1.0, (k + 1) / self.steps))


@dataclass(frozen=True)
class join:
    r"""Schedules one after the other: optax's ``join_schedules``.

    .. math:: x_k = y^{(i)}_{k - b_i}, \qquad b_i \le k < b_{i+1}, \qquad b_0 = 0

    Parameters
    ----------
    schedules : sequence of functions of int
        The schedules :math:`y`.
    boundaries : sequence of int
        The numbers of updates :math:`b_1, b_2, …` at which the next schedule begins, from its own step 0. `ValueError`
        if they decrease, or if their number is not one less than that of schedules.

    Examples
    --------
    >>> [join([lambda k: 1.0, lambda k: 0.5 / (k + 1)], [2])(k) for k in range(4)]
    [1.0, 1.0, 0.5, 0.25]
    """

    schedules: tuple[Schedule, ...]
    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", listed("schedules", self.schedules, "[schedules.linear(0.0, 0.1, 100)]"))
        object.__setattr__(self, "boundaries", numbers_of_updates("boundaries", self.boundaries))
        for schedule in self.schedules:
            check_schedule("each of schedules", schedule)
        check(len(self.schedules) == len(self.boundaries) + 1, "there must be one schedule more than boundaries")
        check(list(self.boundaries) == sorted(self.boundaries), "boundaries must not decrease")

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        number = sum(k >= boundary for boundary in self.boundaries)
        return float(self.schedules[number](k - (self.boundaries[number - 1] if number else 0)))


@dataclass
class ReduceOnPlateau:
    r"""A number that is multiplied by a factor when losses stop falling: PyTorch's ``ReduceLROnPlateau``.

    .. math:: x \leftarrow \max(\gamma x, l)

    Call `observe` with each loss. A loss is better than the best one :math:`b` if it is below :math:`b (1 - \theta)`;
    after more than ``patience`` losses in a row that are not better, the number is reduced.

    Parameters
    ----------
    value : float
        The number :math:`x`.
    factor : float
        The factor :math:`\gamma`.
    patience : int
        Number of losses in a row that may be no better.
    threshold : float
        The fraction :math:`\theta`.
    cooldown : int
        Number of losses after a reduction that do not count.
    low : float
        The lowest number, :math:`l`. A reduction by less than 1e-8 is left out, as in PyTorch.
    best : float or None
        The best loss so far.
    n_bad, n_cool : int
        Number of losses in a row that were no better, and number of next losses that do not count.

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

    def __post_init__(self) -> None:
        check_numbers(value=self.value, threshold=self.threshold, low=self.low)
        check_steps(0, patience=self.patience, cooldown=self.cooldown)
        check_number("factor", self.factor)
        check(0 <= self.factor < 1, f"factor must be in [0, 1), not {self.factor!r}")

    def __call__(self, k: int) -> float:
        """Return the number after the losses that were observed; it does not depend on ``k``."""
        return self.value

    def observe(self, loss: float) -> None:
        """Compare a loss with the best one so far; reduce the number if too many were no better.

        Raises
        ------
        TypeError
            If the loss is not one number.
        """
        try:
            loss = float(loss)
        except (TypeError, ValueError):
            raise TypeError(f"loss must be a number, not {loss!r}") from None
        # A first loss that is NaN is not the best: no later one would be below it.
        if loss < (inf if self.best is None else self.best * (1 - self.threshold)):
            self.best, self.n_bad = loss, 0
        else:
            self.n_bad += 1
        if self.n_cool > 0:
            self.n_cool, self.n_bad = self.n_cool - 1, 0
        if self.n_bad > self.patience:
            lower = max(self.value * self.factor, self.low)
            if self.value - lower > 1e-8:
                self.value = lower
            self.n_cool, self.n_bad = self.cooldown, 0
