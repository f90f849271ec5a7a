"""Adam with another numerator: a clipped mean, two means, or the mean's magnitude with the gradient's sign."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, ClassVar, Unpack

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import adam_rules
from fastoptim.optimizers.base import AdamLike, Slot
from fastoptim.transforms import Number, Options

__all__ = ["ADOPT", "AdEMAMix", "Grams"]


class Grams(AdamLike):
    r"""The length of Adam's step in the direction of the gradient's sign.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p
         - \eta \left| \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} \right| \operatorname{sign} g

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
        The running means of the gradient and of its square, for each parameter.

    References
    ----------
    Y. Cao, X. Li and Z. Song, "Grams: gradient descent with adaptive momentum scaling", 2024.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> Grams(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("m", "v")
    m: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.grams)

    def __init__(
        self,
        lr: Number = 0.001,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the step size, ``1 - beta1``, ``1 - beta2``, and epsilon."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        root = sqrt(1 - beta2**t)
        lr_t = self.lr * root / (1 - beta1**t)
        return lr_t, 1 - beta1, 1 - beta2, self.eps * root


class ADOPT(AdamLike):
    r"""Adam that scales a gradient by the squares before it, and converges for any second beta.

    .. math::

        u &= \operatorname{clip}\left(\frac{g}{\max(\sqrt{v}, \epsilon)}, \pm (t - 1)^{1/4}\right) \\
        m &\leftarrow m + (1 - \beta_1)(u - m), \qquad p \leftarrow p - \eta m \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v)

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    eps : float, optional
        :math:`\epsilon`, not negative; 1e-6 in both libraries.
    like : {"optax", "timm"}
        Whose rule: the exponent 1/4 is the paper's and optax's; timm has 0.333.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the scaled gradient and of the squared gradient, for each parameter.

    References
    ----------
    S. Taniguchi et al., "ADOPT: modified Adam can converge with any beta2", NeurIPS 2024, algorithm 2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> ADOPT(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    1.0
    """

    slots = ("m", "v")
    m: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.adopt)
    defaults: ClassVar[dict[str, dict[str, float]]] = {"optax": {"eps": 1e-6}, "timm": {"eps": 1e-6}}

    def __init__(
        self,
        lr: Number = 0.001,
        beta1: Number = 0.9,
        beta2: Number = 0.9999,
        *,
        eps: Number | None = None,
        like: str = "optax",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate, ``1 - beta1``, ``1 - beta2`` (1 in the first step), the bound, and epsilon."""
        bound = (self.iter - 1) ** (0.333 if self.like == "timm" else 0.25)
        return self.lr, 1 - self.beta1, 1 - self.beta2 if self.iter > 1 else 1.0, bound, self.eps


class AdEMAMix(AdamLike):
    r"""Adam with two means of the gradient, a fast and a very slow one.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        n &\leftarrow n + (1 - \beta_3)(g - n) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p - \eta \frac{m / (1 - \beta_1^t) + \alpha n}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    beta1, beta2, beta3 : float
        The fractions of the means kept at each step, from 0 to less than 1.
    alpha : float
        :math:`\alpha`, the weight of the slow mean; not negative. The authors let it and beta3 grow: pass schedules.
    eps : float
        :math:`\epsilon`, not negative.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m, n, v : dict or None
        The fast and the slow mean of the gradient and the mean of its square, for each parameter.

    References
    ----------
    M. Pagliardini, P. Ablin and D. Grangier, "The AdEMAMix optimizer", 2024, algorithm 1.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> AdEMAMix(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.49975
    """

    slots = ("m", "n", "v")
    m: Slot
    n: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.ademamix)
    beta3 = Hyperparameter(0, 1, below=True)
    alpha = Hyperparameter(0)

    def __init__(
        self,
        lr: Number = 0.001,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        beta3: Number = 0.9999,
        alpha: Number = 5.0,
        *,
        eps: Number = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.beta3 = beta3
        self.alpha = alpha
        self.eps = eps
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the step sizes of both means, one minus each beta, and epsilon."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        root = sqrt(1 - beta2**t)
        lr_t = self.lr * root / (1 - beta1**t)
        return lr_t, self.lr * self.alpha * root, 1 - beta1, 1 - beta2, 1 - self.beta3, self.eps * root
