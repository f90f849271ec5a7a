"""Adam scaled by a maximum of past gradients."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, ClassVar, Unpack

from fastoptim.kernels import adam_rules
from fastoptim.optimizers.base import AdamLike, Slot
from fastoptim.transforms import Number, Options

__all__ = ["AMSGrad", "AdaMax"]


class AMSGrad(AdamLike):
    r"""Adam with the largest mean of squared gradients so far, so that its steps never grow.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        h &\leftarrow \max(h, v),
         \qquad p \leftarrow p - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{h / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 0.001 in all three libraries.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, not negative; 1e-8, and 1e-7 as in Keras.
    like : {"torch", "optax", "keras"}
        Whose rule and defaults: optax keeps the maximum of the corrected mean, Keras adds epsilon before the
        correction.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.
    h : dict or None
        The largest v so far.

    References
    ----------
    S. J. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and beyond", ICLR 2018, algorithm 2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> AMSGrad(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("m", "v", "h")
    m: Slot
    v: Slot
    h: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.amsgrad)
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "torch": {"lr": 0.001, "eps": 1e-08},
        "optax": {"lr": 0.001, "eps": 1e-08},
        "keras": {"lr": 0.001, "eps": 1e-07},
    }

    def __init__(
        self,
        lr: Number | None = None,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number | None = None,
        like: str = "torch",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the step size, ``1 - beta1``, ``1 - beta2``, the scale of v, and epsilon."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        c1, c2 = 1 - beta1**t, 1 - beta2**t
        if self.like == "optax":
            return self.lr / c1, 1 - beta1, 1 - beta2, 1 / c2, self.eps
        return self.lr * sqrt(c2) / c1, 1 - beta1, 1 - beta2, 1.0, self.eps * (1 if self.like == "keras" else sqrt(c2))


class AdaMax(AdamLike):
    r"""Adam scaled by a decaying maximum of gradients in place of the root of a mean.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        u &\leftarrow \max(\beta_2 u, |g| + \epsilon), \qquad p \leftarrow p - \frac{\eta}{1 - \beta_1^t} \frac{m}{u}

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 0.002, and 0.001 as in Keras.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, not negative; 1e-8, and 1e-7 as in Keras.
    like : {"torch", "optax", "keras"}
        Whose rule and defaults: Keras adds epsilon to u where it divides.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, u : dict or None
        The running mean of the gradient and its decaying maximum, for each parameter.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> AdaMax(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("m", "u")
    m: Slot
    u: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.adamax)
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "torch": {"lr": 0.002, "eps": 1e-08},
        "optax": {"lr": 0.002, "eps": 1e-08},
        "keras": {"lr": 0.001, "eps": 1e-07},
    }

    def __init__(
        self,
        lr: Number | None = None,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number | None = None,
        like: str = "torch",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the step size, ``1 - beta1``, ``beta2``, and epsilon inside and outside of the maximum."""
        lr_t = self.lr / (1 - self.beta1**self.iter)
        inside, outside = (0.0, self.eps) if self.like == "keras" else (self.eps, 0.0)
        return lr_t, 1 - self.beta1, self.beta2, inside, outside
