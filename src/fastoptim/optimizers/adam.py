"""Adam, which scales momentum by past squared gradients; with decoupled weight decay; and rectified."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, ClassVar, Unpack

from fastoptim.kernels import adam_rules, rules
from fastoptim.optimizers.base import NOTES_EPS, AdamLike, Slot
from fastoptim.transforms import Number, Options

__all__ = ["Adam", "AdamW", "RAdam"]

_CORRECTED_FIRST = {"torch", "optax"}
"""The libraries that add epsilon to the corrected root."""


class Adam(AdamLike):
    r"""Adaptive moment estimation: momentum and scaling, both corrected for their start at zero.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p - \eta_t \frac{m}{\sqrt{v} + \epsilon_t},
        \qquad \eta_t = \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, about the largest step an element can take; not negative.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, not negative; the default is 1e-7 as in the notes and Keras, 1e-8 as in PyTorch and optax.
    like : {"notes", "torch", "optax", "keras"}
        Whose Adam: :math:`\epsilon_t = \epsilon` as in the notes and Keras, or :math:`\epsilon \sqrt{1 - \beta_2^t}`,
        which adds :math:`\epsilon` after the correction, as in PyTorch and optax.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1 and section 2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> Adam(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("m", "v")
    m: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.adam)
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "notes": {"eps": NOTES_EPS},
        "torch": {"eps": 1e-8},
        "optax": {"eps": 1e-8},
        "keras": {"eps": 1e-7},
    }

    def __init__(
        self,
        lr: Number = 0.001,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number | None = None,
        like: str = "notes",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the corrected learning rate, ``1 - beta1``, ``1 - beta2`` and the epsilon of this step."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        root = sqrt(1.0 - beta2**t)
        lr_t = self.lr * root / (1.0 - beta1**t)
        if self.like == "notes":
            return lr_t, 1 - beta1, 1 - beta2, self.eps
        return lr_t, 1 - beta1, 1 - beta2, self.eps * root if self.like in _CORRECTED_FIRST else self.eps


class AdamW(Adam):
    r"""Adam with decoupled weight decay: the decay is not scaled by past gradients.

    .. math::

        p &\leftarrow (1 - \eta \lambda) p \\
        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    It is `Adam` with the transform ``weight_decay``, and PyTorch's epsilon.

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, about the largest step an element can take; not negative.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, added to the corrected root; not negative. The default is 1e-8, and 1e-7 as in Keras.
    like : {"torch", "optax", "keras"}
        Whose defaults, and whose epsilon; see `Adam`.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`. Here ``weight_decay``, :math:`\lambda`, has a default:
        0.01 as in PyTorch, 1e-4 as in optax, 0.004 as in Keras. The paper's is :math:`\eta \lambda` here.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> AdamW(lr=0.5, weight_decay=0.1).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.45
    """

    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "torch": {"eps": 1e-8, "weight_decay": 0.01},
        "optax": {"eps": 1e-8, "weight_decay": 1e-4},
        "keras": {"eps": 1e-7, "weight_decay": 0.004},
    }

    def __init__(
        self,
        lr: Number = 0.001,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number | None = None,
        like: str = "torch",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, beta1, beta2, eps=eps, like=like, **options)
        if "weight_decay" not in options:
            self.weight_decay = self.defaults[like]["weight_decay"]


def rectification(beta2: float, t: int) -> tuple[float, float]:
    """Return the length of the mean of squares at step ``t``, and the rectification of the step.

    Liu et al. (2020), algorithm 2. Up to a length of 4 the variance is not finite, and the factor is 0.
    """
    limit = 2 / (1 - beta2) - 1
    rho = limit - 2 * t * beta2**t / (1 - beta2**t)
    return rho, sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) if rho > 4 else 0.0


class RAdam(AdamLike):
    r"""Rectified Adam: the first steps are not scaled, until the mean of squares is long enough to trust.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        \rho &= \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \qquad \rho_\infty = \frac{2}{1 - \beta_2} - 1 \\
        p &\leftarrow p - \eta R \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}
         \text{ where } \rho > 5, \quad p - \eta \frac{m}{1 - \beta_1^t} \text{ before} \\
        R^2 &= \frac{(\rho - 4)(\rho - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho}

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 0.001 in both libraries.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, not negative; 1e-8 in both libraries.
    like : {"torch", "optax"}
        Whose rule: PyTorch adds epsilon before the correction, and scales steps where :math:`\rho > 5`; optax, where
        :math:`\rho \ge 5`.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.

    References
    ----------
    L. Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020, algorithm 2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> RAdam(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    -1.0
    """

    slots = ("m", "v")
    m: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.radam)
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "torch": {"lr": 0.001, "eps": 1e-08},
        "optax": {"lr": 0.001, "eps": 1e-08},
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
        """Return the step size, ``1 - beta1``, ``1 - beta2``, the weight of the root, and epsilon."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        c1, c2 = 1 - beta1**t, 1 - beta2**t
        rho, factor = rectification(beta2, t)
        if rho < 5 or (rho == 5 and self.like == "torch"):
            return self.lr / c1, 1 - beta1, 1 - beta2, 0.0, 1.0
        eps = self.eps * (sqrt(c2) if self.like == "optax" else 1)
        return self.lr * factor * sqrt(c2) / c1, 1 - beta1, 1 - beta2, 1.0, eps
