"""Steps whose length follows from the norm of each array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import AdamLike, BuiltIn, Slot
from fastoptim.transforms import Number, Options

__all__ = ["LAMB", "LARS"]


class LAMB(AdamLike):
    r"""Adam with the step of each array as long as its parameter, times the learning rate.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        u &= \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \lambda p,
         \qquad p \leftarrow p - \eta \frac{\lVert p \rVert}{\lVert u \rVert} u

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, not negative; 1e-6, and 1e-7 as in Keras.
    like : {"optax", "keras", "timm"}
        Whose rule and defaults. optax has the paper's. Keras multiplies parameters by ``1 - lr * weight_decay`` before
        the step, which then has no decay. In timm the ratio is 1 without weight decay, whose default is 0.01; timm also
        clips the norm of all gradients, which is ``clip_norm=1.0`` here.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`. Here ``weight_decay`` is :math:`\lambda`, a part of
        the step whose norm is taken.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.

    References
    ----------
    Y. You et al., "Large batch optimization for deep learning", ICLR 2020, algorithm 2.

    Notes
    -----
    Where either norm is 0, the ratio is 1. The norms are those of each array.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> LAMB(lr=0.25).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.75
    """

    slots = ("m", "v")
    m: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.lamb)
    in_rule = ("weight_decay",)
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "optax": {"eps": 1e-6},
        "keras": {"eps": 1e-7},
        "timm": {"eps": 1e-6, "weight_decay": 0.01},
    }
    measure: ClassVar[Callable[..., Any] | None] = staticmethod(rules.lamb_norms)
    squares = (True, True)
    n_ratios = 1

    def __init__(
        self,
        lr: Number = 0.001,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number | None = None,
        like: str = "optax",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
        if "weight_decay" not in options:
            self.weight_decay = self.defaults[like].get("weight_decay")
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate, ``1 - beta1``, ``1 - beta2``, both corrections, epsilon, and the two decays."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        decay = self.weight_decay or 0.0
        kept, decay = (1 - self.lr * decay, 0.0) if self.like == "keras" else (1.0, decay)
        return self.lr, 1 - beta1, 1 - beta2, 1 / (1 - beta1**t), 1 / (1 - beta2**t), self.eps, kept, decay

    def ratios(self, sums: NDArray[Any], scalars: NDArray[Any], sizes: NDArray[Any]) -> Any:  # noqa: ARG002
        """Return the norm of each parameter over that of its step, 1 where either is 0."""
        p, step = np.sqrt(sums).T
        usual = (p > 0) & (step > 0)
        if self.like == "timm":
            usual &= scalars[:, -2] > 0
        return np.where(usual, p / np.where(usual, step, 1.0), 1.0)[:, None]


class LARS(BuiltIn):
    r"""Momentum with the step of each array as long as its parameter, times a coefficient and the learning rate.

    .. math::

        r &= \frac{\eta_0 \lVert p \rVert}{\lVert g \rVert + \lambda \lVert p \rVert + \epsilon} \\
        v &\leftarrow \mu v + \eta r (g + \lambda p), \qquad p \leftarrow p - v

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    momentum : float, optional
        The fraction :math:`\mu` of the velocity kept at each step, from 0 to 1; 0.9, or 0 as in timm.
    trust_coefficient : float
        :math:`\eta_0`, not negative.
    eps : float, optional
        :math:`\epsilon`, not negative; 0, or 1e-8 as in timm.
    like : {"paper", "optax", "timm"}
        Whose rule and defaults. optax divides by the norm of :math:`g + \lambda p`. timm multiplies by the learning
        rate after the momentum, and takes a ratio of 1 where there is no weight decay.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`. Here ``weight_decay`` is :math:`\lambda`, a part of
        the step.

    Attributes
    ----------
    v : dict or None
        The velocity of each parameter.

    References
    ----------
    Y. You, I. Gitman and B. Ginsburg, "Large batch training of convolutional networks", 2017, eq. 6 and algorithm 1.

    Notes
    -----
    Where either norm is 0, the ratio :math:`r` is 1, so a bias that starts at zero takes a first step a thousand times
    as long as others; give biases a group with a lower ``lr``. The norms are those of each array.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> LARS(lr=0.25, trust_coefficient=1.0).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.75
    """

    slots = ("v",)
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.lars)
    in_rule = ("weight_decay",)
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "paper": {"momentum": 0.9, "eps": 0.0},
        "optax": {"momentum": 0.9, "eps": 0.0},
        "timm": {"momentum": 0.0, "eps": 1e-8},
    }
    momentum = Hyperparameter(0, 1)
    trust_coefficient = Hyperparameter(0)
    eps = Hyperparameter(0)
    measure: ClassVar[Callable[..., Any] | None] = staticmethod(rules.lars_norms)
    squares = (True, True)
    n_ratios = 1

    def __init__(
        self,
        lr: Number = 1.0,
        momentum: Number | None = None,
        trust_coefficient: Number = 0.001,
        *,
        eps: Number | None = None,
        like: str = "paper",
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.trust_coefficient = trust_coefficient
        self._follow(like, momentum=momentum, eps=eps)
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate inside and outside of the momentum, the momentum, and what the ratio depends on."""
        decay = self.weight_decay or 0.0
        lr_in, lr_out = (1.0, self.lr) if self.like == "timm" else (self.lr, 1.0)
        within = decay if self.like == "optax" else 0.0
        return lr_in, lr_out, self.momentum, decay, within, self.trust_coefficient, self.eps

    def ratios(self, sums: NDArray[Any], scalars: NDArray[Any], sizes: NDArray[Any]) -> Any:  # noqa: ARG002
        """Return the norm of each parameter, times the coefficient, over that of its gradient; 1 where either is 0."""
        p, g = np.sqrt(sums).T
        decay, within, coefficient, eps = scalars[:, 3:7].T
        usual = (p > 0) & (g > 0)
        if self.like == "timm":
            usual &= decay > 0
        return np.where(usual, coefficient * p / np.where(usual, g + (decay - within) * p + eps, 1.0), 1.0)[:, None]
