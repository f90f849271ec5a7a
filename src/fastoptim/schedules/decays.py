"""Schedules that go one way: constant, in steps, exponential, polynomial, along half a cosine, with a root."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastoptim.schedules.checks import check_numbers, check_steps, numbers_of_updates

__all__ = ["constant", "cosine", "exponential", "inverse_sqrt", "linear", "multistep", "polynomial", "step"]


@dataclass(frozen=True)
class constant:
    r"""The same number in each step.

    .. math:: x_k = x

    Parameters
    ----------
    value : float
        The number :math:`x`.

    Examples
    --------
    >>> constant(0.1)(1000)
    0.1
    """

    value: float

    def __post_init__(self) -> None:
        check_numbers(value=self.value)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        return self.value


@dataclass(frozen=True)
class step:
    r"""A number that is multiplied by a factor every few updates: PyTorch's ``StepLR``.

    .. math:: x_k = x_0 \gamma^{\lfloor k / n \rfloor}

    Parameters
    ----------
    value : float
        The first number, :math:`x_0`.
    every : int
        Number of updates :math:`n` between two changes; `ValueError` if it is below 1.
    factor : float
        The factor :math:`\gamma`.

    Examples
    --------
    >>> [step(1.0, every=2, factor=0.5)(k) for k in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    value: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_steps(every=self.every)
        check_numbers(value=self.value, factor=self.factor)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        return float(self.value * self.factor ** (k // self.every))


@dataclass(frozen=True)
class multistep:
    r"""A number that is multiplied by a factor at each milestone: PyTorch's ``MultiStepLR``.

    .. math:: x_k = x_0 \gamma^{|\{m \in M : m \le k\}|}

    Parameters
    ----------
    value : float
        The first number, :math:`x_0`.
    milestones : sequence of int
        The numbers of updates :math:`M`, in any order; a number that is given twice counts twice.
    factor : float
        The factor :math:`\gamma`.

    Examples
    --------
    >>> [multistep(1.0, (2, 3), factor=0.5)(k) for k in range(5)]
    [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    value: float
    milestones: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_numbers(value=self.value, factor=self.factor)
        milestones = numbers_of_updates("milestones", self.milestones)
        object.__setattr__(self, "milestones", tuple(sorted(milestones)))

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        return float(self.value * self.factor ** sum(k >= milestone for milestone in self.milestones))


@dataclass(frozen=True)
class exponential:
    r"""A number that is multiplied by a factor at each update: PyTorch's ``ExponentialLR``.

    .. math:: x_k = x_0 \gamma^k

    Parameters
    ----------
    value : float
        The first number, :math:`x_0`.
    factor : float
        The factor :math:`\gamma`.

    Examples
    --------
    >>> exponential(1.0, 0.5)(3)
    0.125
    """

    value: float
    factor: float

    def __post_init__(self) -> None:
        check_numbers(value=self.value, factor=self.factor)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        return float(self.value * self.factor**k)


@dataclass(frozen=True)
class polynomial:
    r"""From one number to another along a power of the updates that are left; then the other.

    .. math:: x_k = x_n + (x_0 - x_n) \left(1 - \frac{\min(k, n)}{n}\right)^q

    Parameters
    ----------
    value, end : float
        The first and the last number, :math:`x_0` and :math:`x_n`.
    steps : int
        Number of updates :math:`n`; `ValueError` if it is below 1.
    power : float
        The power :math:`q`.

    Examples
    --------
    >>> [polynomial(1.0, 2, power=2.0)(k) for k in range(4)]
    [1.0, 0.25, 0.0, 0.0]
    """

    value: float
    steps: int
    end: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        check_steps(steps=self.steps)
        check_numbers(value=self.value, end=self.end, power=self.power)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        rest = 1 - min(k, self.steps) / self.steps
        return float((self.value - self.end) * rest**self.power + self.end)


@dataclass(frozen=True)
class linear:
    r"""From one number to another in a straight line; then the other.

    .. math:: x_k = x_n + (x_0 - x_n) \left(1 - \frac{\min(k, n)}{n}\right)

    Parameters
    ----------
    value, end : float
        The first and the last number, :math:`x_0` and :math:`x_n`.
    steps : int
        Number of updates :math:`n`; `ValueError` if it is below 1.

    Examples
    --------
    >>> [linear(0.0, 1.0, 4)(k) for k in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    value: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        check_steps(steps=self.steps)
        check_numbers(value=self.value, end=self.end)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        return polynomial(self.value, self.steps, self.end)(k)


@dataclass(frozen=True)
class cosine:
    r"""From one number to another along half a cosine; then the other, where PyTorch's would rise again.

    .. math:: x_k = x_n + \frac{x_0 - x_n}{2} \left(1 + \cos \frac{\pi \min(k, n)}{n}\right)

    Parameters
    ----------
    value, end : float
        The first and the last number, :math:`x_0` and :math:`x_n`.
    steps : int
        Number of updates :math:`n`; `ValueError` if it is below 1.

    References
    ----------
    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, eq. 5.

    Examples
    --------
    >>> [round(cosine(1.0, 4)(k), 6) for k in range(6)]
    [1.0, 0.853553, 0.5, 0.146447, 0.0, 0.0]
    """

    value: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        check_steps(steps=self.steps)
        check_numbers(value=self.value, end=self.end)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        return self.end + (self.value - self.end) * (1 + math.cos(math.pi * min(k, self.steps) / self.steps)) / 2


@dataclass(frozen=True)
class inverse_sqrt:
    r"""Up to a peak in a straight line, then down with the root of the number of updates.

    .. math:: x_k = x \min\left(\frac{k + 1}{n}, \sqrt{\frac{n}{k + 1}}\right)

    Parameters
    ----------
    peak : float
        The largest number, :math:`x`.
    steps : int
        Number of updates :math:`n` up to it; `ValueError` if it is below 1.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017, eq. 3, scaled to a peak of :math:`x`.

    Examples
    --------
    >>> [inverse_sqrt(1.0, 4)(k) for k in (0, 3, 15)]
    [0.25, 1.0, 0.5]
    """

    peak: float
    steps: int

    def __post_init__(self) -> None:
        check_steps(steps=self.steps)
        check_numbers(peak=self.peak)

    def __call__(self, k: int) -> float:
        """Return the number after ``k`` updates."""
        return self.peak * min((k + 1) / self.steps, math.sqrt(self.steps / (k + 1)))
