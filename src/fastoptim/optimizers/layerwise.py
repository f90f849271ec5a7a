"""Steps whose length follows from the norm of each array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import BuiltIn, Slot
from fastoptim.transforms import Number, Options

__all__ = ["LAMB"]


class LAMB(BuiltIn):
    r"""Adam with the step of each array as long as its parameter, times the learning rate.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        u &= \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon},
         \qquad p \leftarrow p - \eta \frac{\lVert p \rVert}{\lVert u \rVert} u

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
    Y. You et al., "Large batch optimization for deep learning", ICLR 2020, algorithm 2. The ratio is 1 where a norm
    is 0.
    Weight decay, if any, is outside of the norm, as in Keras.

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
    lr = Hyperparameter(0)
    beta1 = Hyperparameter(0, 1, below=True)
    beta2 = Hyperparameter(0, 1, below=True)
    eps = Hyperparameter(0)
    measure: ClassVar[Callable[..., Any] | None] = staticmethod(rules.lamb_norms)
    squares = (True, True)
    n_ratios = 1

    def __init__(
        self,
        lr: Number = 0.001,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number = 1e-6,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate, ``1 - beta1``, ``1 - beta2``, both corrections, and epsilon."""
        beta1, beta2, t = self.beta1, self.beta2, self.iter
        return self.lr, 1 - beta1, 1 - beta2, 1 / (1 - beta1**t), 1 / (1 - beta2**t), self.eps

    def ratios(self, sums: NDArray[Any], columns: NDArray[Any], sizes: NDArray[Any]) -> Any:  # noqa: ARG002
        """Return the norm of each parameter over that of its step, 1 where either is 0."""
        p, step = np.sqrt(sums).T
        usual = (p > 0) & (step > 0)
        return np.where(usual, p / np.where(usual, step, 1.0), 1.0)[:, None]
