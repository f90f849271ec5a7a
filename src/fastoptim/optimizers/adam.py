"""Adam and its relatives: momentum, scaled element by element by past squared gradients."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, ClassVar

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import NOTES_EPS, BuiltIn, Slot

__all__ = ["Adam", "AdamW"]


class Adam(BuiltIn):
    r"""Adaptive moment estimation: momentum and scaling, both corrected for their start at zero.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p - \eta_t \frac{m}{\sqrt{v} + \epsilon},
        \qquad \eta_t = \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}, \quad \epsilon = 10^{-7}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, about the largest step an element can take; not negative.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    on_nonfinite : {"ignore", "raise", "skip"}
        What to do about gradients that are NaN or infinite; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.

    Warnings
    --------
    :math:`\epsilon` is added to the uncorrected root, as in Keras and in the last formula of the paper's section 2;
    PyTorch and optax add it after the correction, as `AdamW` does.

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
    lr = Hyperparameter(0)
    beta1 = Hyperparameter(0, 1, below=True)
    beta2 = Hyperparameter(0, 1, below=True)

    def __init__(
        self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, *, on_nonfinite: str = "ignore"
    ) -> None:
        super().__init__(on_nonfinite=on_nonfinite)
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2

    def scalars(self) -> tuple[float, ...]:
        """Return the corrected learning rate, ``1 - beta1``, ``1 - beta2`` and epsilon."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        lr_t = self.lr * sqrt(1.0 - beta2**t) / (1.0 - beta1**t)
        return lr_t, 1 - beta1, 1 - beta2, NOTES_EPS


class AdamW(Adam):
    r"""Adam with decoupled weight decay: the decay is not scaled by past gradients.

    .. math::

        p &\leftarrow (1 - \eta \lambda) p \\
        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, about the largest step an element can take; not negative.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float
        :math:`\epsilon`, added to the corrected root; not negative.
    weight_decay : float
        :math:`\lambda`, not negative; all parameters decay. The paper's :math:`\lambda` is :math:`\eta \lambda` here.
    on_nonfinite : {"ignore", "raise", "skip"}
        What to do about gradients that are NaN or infinite; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.

    Warnings
    --------
    :math:`\epsilon` is added after the correction, as in PyTorch and optax; `Adam` adds it before, as the notes do.

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

    rule = staticmethod(rules.adamw)
    eps = Hyperparameter(0)
    weight_decay = Hyperparameter(0)

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        on_nonfinite: str = "ignore",
    ) -> None:
        super().__init__(lr, beta1, beta2, on_nonfinite=on_nonfinite)
        self.eps = eps
        self.weight_decay = weight_decay

    def scalars(self) -> tuple[float, ...]:
        """Return Adam's scalars, with epsilon times ``sqrt(1 - beta2**t)``, and ``1 - lr * weight_decay``."""
        lr, beta1, beta2, t = self.lr, self.beta1, self.beta2, self.iter
        root = sqrt(1.0 - beta2**t)
        return lr * root / (1.0 - beta1**t), 1 - beta1, 1 - beta2, self.eps * root, 1 - lr * self.weight_decay
