"""Steps whose length is estimated from all arrays together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from fastoptim.arguments import true_or_false
from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import AdamLike, Slot
from fastoptim.transforms import Number, Options

__all__ = ["Prodigy"]


class Prodigy(AdamLike):
    r"""Adam that finds its learning rate: the step is an estimate of the distance to the solution.

    .. math::

        A &\leftarrow \beta_3 A + \frac{d}{d_0} \delta \sum g (p_0 - p), \qquad \delta = \eta d \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) d g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) d^2 g^2 \\
        s &\leftarrow \beta_3 s + \frac{d}{d_0} \delta g \\
        d' &= \max\left(d, c \frac{A}{\sum |s|}\right) \\
        p &\leftarrow p - \delta \frac{m}{\sqrt{v} + d' \epsilon},
         \qquad d \leftarrow d'

    The sums are over all elements of all arrays, and :math:`p_0` are the parameters before the first step.

    Parameters
    ----------
    lr : float
        The factor :math:`\eta` of the estimate, not negative: 1, or a schedule that falls from 1.
    beta1, beta2 : float
        The fractions of the two means kept at each step, from 0 to less than 1.
    beta3 : float, optional
        The fraction kept of the sums of the estimate, from 0 to less than 1; the default is the root of ``beta2``.
    eps : float
        :math:`\epsilon`, not negative.
    d0 : float
        The first estimate :math:`d_0`, greater than 0; rather too small than too large, because estimates only grow.
    d_coef : float
        The factor :math:`c` of the estimate, not negative.
    bias_correction : bool
        Whether :math:`\delta` has Adam's correction :math:`\sqrt{1 - \beta_2^t} / (1 - \beta_1^t)`, as in optax.
    safeguard_warmup : bool
        Whether s takes d in place of :math:`\delta`, so that a schedule that begins with small numbers does not make
        the estimate too large.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`. Here ``weight_decay`` is multiplied by
        :math:`\delta`.

    Attributes
    ----------
    p0 : dict or None
        The parameters before the first step.
    m, v, s : dict or None
        The running means of the gradient and of its square, and of the gradient for the estimate.
    d, numerator : float
        The estimate, and :math:`A`.

    References
    ----------
    K. Mishchenko and A. Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", ICML 2024.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> opt = Prodigy(d0=0.1)
    >>> for _ in range(10):
    ...     opt.update(params, {"x": params["x"]})
    >>> opt.d > 0.1
    True
    """

    slots = ("p0", "m", "v", "s")
    p0: Slot
    m: Slot
    v: Slot
    s: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.prodigy)
    in_rule = ("weight_decay",)
    measure: ClassVar[Callable[..., Any] | None] = staticmethod(rules.prodigy_sums)
    squares = (False, False)
    n_ratios = 1
    shared: ClassVar[Mapping[str, float]] = {"d": 1e-6, "numerator": 0.0}
    beta3 = Hyperparameter(0, 1, below=True)
    d0 = Hyperparameter(1e-300)
    d_coef = Hyperparameter(0)
    bias_correction = False
    safeguard_warmup = False
    d: float
    numerator: float

    def __init__(
        self,
        lr: Number = 1.0,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        beta3: Number | None = None,
        *,
        eps: Number = 1e-8,
        d0: float = 1e-6,
        d_coef: Number = 1.0,
        bias_correction: bool = False,
        safeguard_warmup: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.beta3 = sqrt(self.beta2) if beta3 is None else beta3
        self.eps = eps
        self.d = self.d0 = d0
        self.d_coef = d_coef
        self.bias_correction = true_or_false("bias_correction", bias_correction)
        self.safeguard_warmup = true_or_false("safeguard_warmup", safeguard_warmup)
        super().__init__(**options)

    def initial_state(self) -> Mapping[str, float | str]:
        """Return a copy of the parameters for ``p0``."""
        return {"p0": "p"}

    def scalars(self) -> tuple[float, ...]:
        """Return the step size, the three betas, the factors of g in m, v, s and A, the decay, and epsilon."""
        beta1, beta2, t, d = self.beta1, self.beta2, self.iter, self.d
        lr_t = d * self.lr * (sqrt(1 - beta2**t) / (1 - beta1**t) if self.bias_correction else 1.0)
        of_sum = d / self.d0 * lr_t
        of_s = d / self.d0 * d if self.safeguard_warmup else of_sum
        of_m, of_v, decay = (1 - beta1) * d, (1 - beta2) * d * d, lr_t * (self.weight_decay or 0.0)
        return lr_t, beta1, beta2, self.beta3, of_m, of_v, of_s, of_sum, decay, self.eps

    def ratios(self, sums: NDArray[Any], scalars: NDArray[Any], sizes: NDArray[Any]) -> Any:  # noqa: ARG002
        """Return the next estimate, the same for all arrays."""
        numerator, denominator = sums.sum(axis=0).tolist()
        self.numerator = self.beta3 * self.numerator + numerator
        if denominator > 0:
            self.d = max(self.d, self.d_coef * self.numerator / denominator)
        return np.full((len(scalars), 1), self.d)
