"""Steps along the gradient, with or without momentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from fastoptim.hyperparameters import Hyperparameter, Switch
from fastoptim.kernels import rules
from fastoptim.optimizers.base import BuiltIn, Slot, Variants
from fastoptim.transforms import Number, Options

__all__ = ["SGD", "Momentum", "Nesterov"]

_LR_LAST = {"torch", "optax"}
"""The libraries whose velocity is a sum of gradients, and which multiply it by the learning rate in the step."""

_RATES: dict[str, dict[str, float]] = {
    "notes": {"lr": 0.01},
    "torch": {"lr": 0.001},
    "optax": {"lr": 0.01},
    "keras": {"lr": 0.01},
}


class SGD(BuiltIn):
    r"""Stochastic gradient descent.

    .. math:: p \leftarrow p - \eta g

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 0.01, and 0.001 as in PyTorch. optax has no default.
    like : {"notes", "torch", "optax", "keras"}
        Whose learning rate.
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
    defaults: ClassVar[dict[str, dict[str, float]]] = _RATES

    def __init__(self, lr: Number | None = None, *, like: str = "notes", **options: Unpack[Options]) -> None:
        self._follow(like, lr=lr)
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate."""
        return (self.lr,)


class Momentum(BuiltIn):
    r"""Gradient descent with momentum: a ball that rolls down the loss and keeps part of its velocity.

    .. math::

        v &\leftarrow \mu v - \eta (1 - \tau) g \\
        p &\leftarrow p + v

    In PyTorch and optax a change of the learning rate also scales older gradients:

    .. math::

        v &\leftarrow \mu v - (1 - \tau) g \\
        p &\leftarrow p + \eta v

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 0.01, and 0.001 as in PyTorch. optax has no default.
    momentum : float
        The fraction :math:`\mu` of the velocity kept at each step, from 0 to 1.
    dampening : float
        The fraction :math:`\tau` of gradients left out, from 0 to 1; not in the first step, as in PyTorch.
    like : {"notes", "torch", "optax", "keras"}
        Whose velocity: Keras has that of the notes. The velocity is not converted if this changes between updates.
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
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.momentum)
    variants: ClassVar[Variants] = {("v",): rules.scaled_momentum}
    defaults: ClassVar[dict[str, dict[str, float]]] = _RATES
    momentum = Hyperparameter(0, 1)
    dampening = Switch(0, 1)

    def __init__(
        self,
        lr: Number | None = None,
        momentum: Number = 0.9,
        *,
        dampening: Number = 0.0,
        like: str = "notes",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr)
        self.momentum = momentum
        self.dampening = dampening
        super().__init__(**options)

    def variant(self) -> tuple[str, ...] | None:
        """Return the slot of the rule for PyTorch's velocity or dampening, or None for the notes' rule."""
        return ("v",) if self.like in _LR_LAST or self._is_on("dampening") else None

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate and the momentum; or the share of the gradient, the momentum, and the scale."""
        if self._variant is None:
            return self.lr, self.momentum
        share = 1.0 if self.iter == 1 else 1.0 - self.dampening
        return (share, self.momentum, self.lr) if self.like in _LR_LAST else (share * self.lr, self.momentum, 1.0)


class Nesterov(BuiltIn):
    r"""Nesterov's accelerated gradient, in terms of the gradient at the lookahead point.

    .. math::

        p &\leftarrow p + \mu^2 v - (1 + \mu) \eta g \\
        v &\leftarrow \mu v - \eta g

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 0.01, and 0.001 as in PyTorch. optax has no default.
    momentum : float
        The fraction :math:`\mu` of the velocity kept at each step, from 0 to 1.
    like : {"notes", "torch", "optax", "keras"}
        Whose velocity: in PyTorch and optax it is without :math:`\eta`, which multiplies the whole step instead, so
        that a change of the learning rate also scales older gradients. The velocity is not converted if this changes
        between updates.
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
    defaults: ClassVar[dict[str, dict[str, float]]] = _RATES
    momentum = Hyperparameter(0, 1)

    def __init__(
        self, lr: Number | None = None, momentum: Number = 0.9, *, like: str = "notes", **options: Unpack[Options]
    ) -> None:
        self._follow(like, lr=lr)
        self.momentum = momentum
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the factor of the gradient in the velocity, ``momentum``, and the factors of both in the step."""
        lr, momentum = self.lr, self.momentum
        if self.like in _LR_LAST:
            return 1.0, momentum, lr * momentum * momentum, (1 + momentum) * lr
        return lr, momentum, momentum * momentum, (1 + momentum) * lr
