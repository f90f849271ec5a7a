"""Steps along the gradient, with or without momentum."""

from __future__ import annotations

from typing import Unpack

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import BuiltIn, Slot
from fastoptim.transforms import Number, Options

__all__ = ["SGD", "Momentum", "Nesterov"]


class SGD(BuiltIn):
    r"""Stochastic gradient descent.

    .. math:: p \leftarrow p - \eta g

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    References
    ----------
    H. Robbins and S. Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22 (1951).

    Examples
    --------
    >>> import numpy as np
    >>> params = {"w": np.array([1.0, 2.0])}
    >>> SGD(lr=0.5).update(params, {"w": np.array([1.0, -1.0])})
    >>> params["w"]
    array([0.5, 2.5])
    """

    rule = staticmethod(rules.sgd)
    lr = Hyperparameter(0)

    def __init__(self, lr: Number = 0.01, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.lr = lr

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate."""
        return (self.lr,)


class Momentum(BuiltIn):
    r"""Gradient descent with momentum: a ball that rolls down the loss and keeps part of its velocity.

    .. math::

        v &\leftarrow \mu v - \eta g \\
        p &\leftarrow p + v

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    momentum : float
        The fraction :math:`\mu` of the velocity kept at each step, from 0 to 1.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    v : dict or None
        The velocity of each parameter.

    References
    ----------
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational Mathematics
    and Mathematical Physics 4 (1964), eq. 9. I. Sutskever et al., "On the importance of initialization and momentum
    in deep learning", ICML 2013, eqs. 1-2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> opt = Momentum(lr=0.5)
    >>> opt.update(params, {"x": 1.0})
    >>> opt.update(params, {"x": 0.0})
    >>> round(params["x"], 12)
    0.05
    """

    slots = ("v",)
    v: Slot
    rule = staticmethod(rules.momentum)
    lr = Hyperparameter(0)
    momentum = Hyperparameter(0, 1)

    def __init__(self, lr: Number = 0.01, momentum: Number = 0.9, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.lr = lr
        self.momentum = momentum

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate and the momentum."""
        return self.lr, self.momentum


class Nesterov(BuiltIn):
    r"""Nesterov's accelerated gradient, in terms of the gradient at the lookahead point.

    .. math::

        p &\leftarrow p + \mu^2 v - (1 + \mu) \eta g \\
        v &\leftarrow \mu v - \eta g

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    momentum : float
        The fraction :math:`\mu` of the velocity kept at each step, from 0 to 1.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    v : dict or None
        The velocity of each parameter.

    References
    ----------
    Y. Bengio, N. Boulanger-Lewandowski and R. Pascanu, "Advances in optimizing recurrent networks", ICASSP 2013,
    eqs. 6-7. Y. Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k²)", 1983.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> Nesterov(lr=0.5).update(params, {"x": 1.0})
    >>> round(params["x"], 12)
    0.05
    """

    slots = ("v",)
    v: Slot
    rule = staticmethod(rules.nesterov)
    lr = Hyperparameter(0)
    momentum = Hyperparameter(0, 1)

    def __init__(self, lr: Number = 0.01, momentum: Number = 0.9, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.lr = lr
        self.momentum = momentum

    def scalars(self) -> tuple[float, ...]:
        """Return ``lr, momentum, momentum**2`` and ``(1 + momentum) * lr``."""
        return self.lr, self.momentum, self.momentum * self.momentum, (1 + self.momentum) * self.lr
