"""Schedules that go up and down: restarts, triangles, one cycle."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastoptim.schedules.checks import check, check_numbers, check_steps

__all__ = ["cosine_restarts", "cyclic", "one_cycle"]


@dataclass(frozen=True)
class cosine_restarts:
    r"""Half a cosine, restarted, each time longer by a factor: PyTorch's ``CosineAnnealingWarmRestarts``.

    .. math:: x_k = x_n + \frac{x_0 - x_n}{2} \left(1 + \cos \frac{\pi j}{n_i}\right), \qquad n_i = n m^i

    with :math:`j` updates since the last restart, the :math:`i`-th.

    Parameters
    ----------
    value, end : float
        The number after each restart and the one before the next, :math:`x_0` and :math:`x_n`.
    steps : int
        Number of updates :math:`n` up to the first restart; `ValueError` if it is below 1.
    growth : int
        The factor :math:`m`; `ValueError` if it is below 1.

    References
    ----------
    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, eq. 5.

    Examples
    --------
    >>> [round(cosine_restarts(1.0, 2)(k), 6) for k in range(5)]
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    value: float
    steps: int
    growth: int = 1
    end: float = 0.0

    def __post_init__(self) -> None:
        check_steps(steps=self.steps, growth=self.growth)
        check_numbers(value=self.value, end=self.end)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        length = self.steps
        if self.growth == 1:
            k %= length
        while k >= length:
            k -= length
            length *= self.growth
        return self.end + (self.value - self.end) * (1 + math.cos(math.pi * k / length)) / 2


@dataclass(frozen=True)
class cyclic:
    r"""A triangle wave, up and down in straight lines: PyTorch's ``CyclicLR`` with the policy ``"triangular"``.

    .. math:: x_k = x + (y - x) \begin{cases} j / u & j \le u \\ 1 - (j - u) / d & j > u \end{cases}

    with :math:`j = k \bmod (u + d)`.

    Parameters
    ----------
    low, high : float
        The numbers :math:`x` and :math:`y` between which it moves.
    up, down : int
        Numbers of updates :math:`u` and :math:`d`; ``down`` is as many as ``up`` by default. `ValueError` if one is
        below 1.

    References
    ----------
    L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.

    Examples
    --------
    >>> [cyclic(0.0, 1.0, up=2)(k) for k in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    low: float
    high: float
    up: int
    down: int | None = None

    def __post_init__(self) -> None:
        check_steps(up=self.up, down=self.up if self.down is None else self.down)
        check_numbers(low=self.low, high=self.high)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        down = self.up if self.down is None else self.down
        k %= self.up + down
        share = k / self.up if k <= self.up else 1 - (k - self.up) / down
        return self.low + (self.high - self.low) * share


@dataclass(frozen=True)
class one_cycle:
    r"""Up to a peak and down to nearly 0, each along half a cosine: PyTorch's ``OneCycleLR``.

    .. math:: \frac{x}{s} \to x \to \frac{x}{s e}

    The peak comes after :math:`r n - 1` updates, the end after :math:`n - 1`.

    Parameters
    ----------
    peak : float
        The largest number, :math:`x`.
    steps : int
        Number of updates :math:`n`; `ValueError` if it is below 2.
    rise : float
        The fraction :math:`r` of them that leads up; `ValueError` if it is not between 0 and 1.
    start, end : float
        The divisors :math:`s` and :math:`e`.

    References
    ----------
    L. N. Smith and N. Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    2018, section 3.

    Examples
    --------
    >>> [round(one_cycle(1.0, 21, rise=1 / 3, start=10.0)(k), 4) for k in (0, 3, 6, 13, 20)]
    [0.1, 0.55, 1.0, 0.5, 0.0]
    """

    peak: float
    steps: int
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4

    def __post_init__(self) -> None:
        check_steps(2, steps=self.steps)
        check_numbers(peak=self.peak, rise=self.rise, start=self.start, end=self.end)
        check(0 < self.rise < 1, f"rise must be a fraction between 0 and 1, not {self.rise!r}")

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        low, turn, last = self.peak / self.start, self.rise * self.steps - 1, self.steps - 1
        k = min(k, last)
        if k <= turn:
            first, second, share = low, self.peak, k / turn
        else:
            first, second, share = self.peak, low / self.end, (k - turn) / (last - turn)
        return second + (first - second) * (1 + math.cos(math.pi * share)) / 2
