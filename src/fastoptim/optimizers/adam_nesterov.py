"""Adam with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, ClassVar, Unpack

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import BuiltIn, Slot
from fastoptim.transforms import Number, Options

__all__ = ["NAdam"]


class NAdam(BuiltIn):
    r"""Adam with Nesterov's momentum, whose fraction grows.

    .. math::

        \mu_t &= \beta_1 (1 - \tfrac12 0.96^{\psi t}), \qquad \Pi_t = \mu_1 \cdots \mu_t \\
        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p - \eta \frac{\frac{1 - \mu_t}{1 - \Pi_t} g
         + \frac{\mu_{t+1}}{1 - \Pi_{t+1}} m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; the default is that of the library.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, not negative; the default is that of the library.
    momentum_decay : float, optional
        :math:`\psi`, not negative; 0.004 as in PyTorch, 1 as in Keras. optax has no such schedule.
    like : {"torch", "optax", "keras"}
        Whose rule and defaults.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.
    product : float
        :math:`\Pi_t`.

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
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.nadam)
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "torch": {"lr": 0.002, "eps": 1e-08, "momentum_decay": 0.004},
        "optax": {"lr": 0.001, "eps": 1e-08, "momentum_decay": 0.0},
        "keras": {"lr": 0.001, "eps": 1e-07, "momentum_decay": 1.0},
    }
    lr = Hyperparameter(0)
    beta1 = Hyperparameter(0, 1, below=True)
    beta2 = Hyperparameter(0, 1, below=True)
    eps = Hyperparameter(0)
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
        super().__init__(**options)
        self.beta1 = beta1
        self.beta2 = beta2
        self._follow(like, lr=lr, eps=eps, momentum_decay=momentum_decay)

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
