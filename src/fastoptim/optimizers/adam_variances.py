"""Adam scaled by another estimate of the variance of gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, ClassVar, Unpack

from fastoptim.kernels import adam_rules
from fastoptim.optimizers.adam import rectification
from fastoptim.optimizers.base import AdamLike, Slot
from fastoptim.transforms import Number, Options

__all__ = ["AdaBelief", "Yogi"]


class AdaBelief(AdamLike):
    r"""Adam scaled by the distance of gradients from their mean: steps are long where gradients agree.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        s &\leftarrow s + (1 - \beta_2)((g - m)^2 - s) + \epsilon \\
        p &\leftarrow p - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{s / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, not negative; 1e-16 in both libraries.
    like : {"optax", "timm"}
        Whose rule. timm and the authors' package rectify it as `RAdam` does: while :math:`\rho < 5`,
        :math:`p \leftarrow p - \eta m / (1 - \beta_1^t)`.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, s : dict or None
        The running means of the gradient and of its squared distance from it, for each parameter.

    References
    ----------
    J. Zhuang et al., "AdaBelief optimizer", NeurIPS 2020, algorithm 2. L. Liu et al., "On the variance of the adaptive
    learning rate and beyond", ICLR 2020.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> AdaBelief(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.444444
    """

    slots = ("m", "s")
    m: Slot
    s: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.adabelief)
    defaults: ClassVar[dict[str, dict[str, float]]] = {"optax": {"eps": 1e-16}, "timm": {"eps": 1e-16}}

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
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the step size, one minus each beta, what is added to s, the weight of its root, and epsilon."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        lr_t, root = self.lr / (1 - beta1**t), sqrt(1 - beta2**t)
        if self.like == "optax":
            return lr_t * root, 1 - beta1, 1 - beta2, self.eps, 1.0, self.eps * root
        rho, factor = rectification(beta2, t)
        if rho < 5:
            return lr_t, 1 - beta1, 1 - beta2, self.eps, 0.0, 1.0
        return lr_t * root * factor, 1 - beta1, 1 - beta2, self.eps, 1.0, self.eps


class Yogi(AdamLike):
    r"""Adam whose mean of squares moves by no more than the squared gradient.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v - (1 - \beta_2) \operatorname{sign}(v - g^2) g^2 \\
        p &\leftarrow p - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float
        :math:`\epsilon`, not negative.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, which begin with 1e-6.

    References
    ----------
    M. Zaheer et al., "Adaptive methods for nonconvex optimization", NeurIPS 2018, algorithm 2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> Yogi(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.500139
    """

    slots = ("m", "v")
    m: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.yogi)

    def __init__(
        self,
        lr: Number = 0.01,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number = 1e-3,
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        super().__init__(**options)

    def initial_state(self) -> Mapping[str, float | str]:
        """Return 1e-6 for both means, as the authors' code does."""
        return {"m": 1e-6, "v": 1e-6}

    def scalars(self) -> tuple[float, ...]:
        """Return the step size, ``1 - beta1``, ``1 - beta2``, and epsilon."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        root = sqrt(1 - beta2**t)
        lr_t = self.lr * root / (1 - beta1**t)
        return lr_t, 1 - beta1, 1 - beta2, self.eps * root
