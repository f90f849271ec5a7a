"""Adam with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, ClassVar, Unpack

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import adam_rules
from fastoptim.optimizers.base import AdamLike, Slot
from fastoptim.transforms import Number, Options

__all__ = ["Adan", "NAdam"]


class NAdam(AdamLike):
    r"""Adam with Nesterov's momentum, whose fraction grows with the number of steps.

    .. math::

        \mu_t &= \beta_1 (1 - \tfrac12 0.96^{\psi t}), \qquad \Pi_t = \mu_1 \cdots \mu_t \\
        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p - \eta \frac{\frac{1 - \mu_t}{1 - \Pi_t} g
         + \frac{\mu_{t+1}}{1 - \Pi_{t+1}} m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 0.002 as in PyTorch, 0.001 as in optax and Keras.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, not negative; 1e-8, and 1e-7 as in Keras.
    momentum_decay : float, optional
        :math:`\psi`, not negative; 0.004 as in PyTorch, 1 as in Keras. With optax's rule, whose
        :math:`\mu_t = \beta_1`, it has no effect.
    like : {"torch", "optax", "keras"}
        Whose rule and defaults.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.
    product : float
        The product :math:`\Pi_t`.

    References
    ----------
    T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> NAdam(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.471774
    """

    slots = ("m", "v")
    m: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.nadam)
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "torch": {"lr": 0.002, "eps": 1e-08, "momentum_decay": 0.004},
        "optax": {"lr": 0.001, "eps": 1e-08, "momentum_decay": 0.0},
        "keras": {"lr": 0.001, "eps": 1e-07, "momentum_decay": 1.0},
    }
    momentum_decay = Hyperparameter(0)
    running: ClassVar[Mapping[str, float]] = {"product": 1.0}
    product: float

    def __init__(
        self,
        lr: Number | None = None,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number | None = None,
        momentum_decay: Number | None = None,
        like: str = "torch",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr, beta1=beta1, beta2=beta2, eps=eps, momentum_decay=momentum_decay)
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the weights of gradient and mean, ``1 - beta1``, ``1 - beta2``, and epsilon."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        root = sqrt(1 - beta2**t)
        if self.like == "optax":
            weights = (1 - beta1) / (1 - beta1**t), beta1 / (1 - beta1 ** (t + 1))
        else:
            now, then = (beta1 * (1 - 0.5 * 0.96 ** (self.momentum_decay * k)) for k in (t, t + 1))
            self.product *= now
            weights = (1 - now) / (1 - self.product), then / (1 - self.product * then)
        return self.lr * root * weights[0], self.lr * root * weights[1], 1 - beta1, 1 - beta2, self.eps * root


class Adan(AdamLike):
    r"""Adam with Nesterov's momentum in terms of the gradient, from its differences between steps.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m), \qquad d = g - g_- \\
        v &\leftarrow v + (1 - \beta_2)(d - v) \\
        n &\leftarrow n + (1 - \beta_3)((g + \beta_2 d)^2 - n), \qquad g_- \leftarrow g \\
        p &\leftarrow \frac{1}{1 + \eta \lambda} \left(p - \eta \frac{m / (1 - \beta_1^t)
         + \beta_2 v / (1 - \beta_2^t)}{\sqrt{n / (1 - \beta_3^t)} + \epsilon}\right)

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    beta1, beta2, beta3 : float
        The fractions of the three means kept at each step, from 0 to less than 1; the paper writes one minus each.
    eps : float
        :math:`\epsilon`, not negative.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`. Here ``weight_decay``, :math:`\lambda`, divides
        parameters after the step, as in the paper.

    Attributes
    ----------
    m, v, n : dict or None
        The running means of the gradient, of its differences, and of squares, for each parameter.
    previous : dict or None
        The gradient :math:`g_-` of the last step; in the first one :math:`d` is 0.

    References
    ----------
    X. Xie et al., "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models", 2022, algorithm 1.

    Notes
    -----
    optax 0.2.8 takes :math:`1 - \beta_2` for :math:`\beta_2` in the step and in :math:`n`, which is another rule.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> Adan(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("m", "v", "n", "previous")
    m: Slot
    v: Slot
    n: Slot
    previous: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.adan)
    in_rule = ("weight_decay",)
    beta3 = Hyperparameter(0, 1, below=True)

    def __init__(
        self,
        lr: Number = 0.001,
        beta1: Number = 0.98,
        beta2: Number = 0.92,
        beta3: Number = 0.99,
        *,
        eps: Number = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.beta3 = beta3
        self.eps = eps
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the step sizes of both means, one minus each beta, ``beta2``, epsilon, and the factor of the decay."""
        beta1, beta2, beta3, t = self.beta1, self.beta2, self.beta3, self.iter
        root = sqrt(1 - beta3**t)
        lr_m, lr_v = self.lr * root / (1 - beta1**t), self.lr * beta2 * root / (1 - beta2**t)
        shrink = 1 / (1 + self.lr * (self.weight_decay or 0.0))
        if t == 1:
            # There is no difference yet.
            return lr_m, 0.0, 1 - beta1, 0.0, 1 - beta3, 0.0, self.eps * root, shrink
        return lr_m, lr_v, 1 - beta1, 1 - beta2, 1 - beta3, beta2, self.eps * root, shrink
