"""Steps of one length for every element: only the sign of a gradient, or of a mean of gradients, counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import BuiltIn, Slot
from fastoptim.transforms import Number, Options

__all__ = ["Lion", "SignSGD", "Signum"]


class SignSGD(BuiltIn):
    r"""Steps of one length, against the sign of the gradient.

    .. math::

        p \leftarrow p - \eta \operatorname{sign} g

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    References
    ----------
    J. Bernstein et al., "signSGD: compressed optimisation for non-convex problems", ICML 2018, algorithm 1.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> SignSGD(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.sign_sgd)
    lr = Hyperparameter(0)

    def __init__(self, lr: Number = 0.001, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.lr = lr

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate."""
        return (self.lr,)


class Signum(BuiltIn):
    r"""Steps of one length, against the sign of the mean gradient.

    .. math::

        m &\leftarrow m + (1 - \beta)(g - m) \\
        p &\leftarrow p - \eta \operatorname{sign} m

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    beta1 : float
        The fraction :math:`\beta` of the mean kept at each step, from 0 to less than 1.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m : dict or None
        The running mean of the gradient of each parameter.

    References
    ----------
    J. Bernstein et al., "signSGD: compressed optimisation for non-convex problems", ICML 2018, algorithm 2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> Signum(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("m",)
    m: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.signum)
    lr = Hyperparameter(0)
    beta1 = Hyperparameter(0, 1, below=True)

    def __init__(self, lr: Number = 0.001, beta1: Number = 0.9, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.lr = lr
        self.beta1 = beta1

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate and ``1 - beta1``."""
        return self.lr, 1 - self.beta1


class Lion(BuiltIn):
    r"""Steps of one length, against the sign of the momentum, in which the newest gradient counts more.

    .. math::

        p &\leftarrow p - \eta \operatorname{sign}(\beta_1 m + (1 - \beta_1) g) \\
        m &\leftarrow m + (1 - \beta_2)(g - m)

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    beta1, beta2 : float
        The weight of the momentum in the step, and the fraction of it kept, from 0 to less than 1.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m : dict or None
        The momentum of each parameter.

    References
    ----------
    X. Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, algorithm 2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> Lion(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("m",)
    m: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.lion)
    lr = Hyperparameter(0)
    beta1 = Hyperparameter(0, 1, below=True)
    beta2 = Hyperparameter(0, 1, below=True)

    def __init__(
        self, lr: Number = 1e-4, beta1: Number = 0.9, beta2: Number = 0.99, **options: Unpack[Options]
    ) -> None:
        super().__init__(**options)
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate, ``beta1``, ``1 - beta1`` and ``1 - beta2``."""
        return self.lr, self.beta1, 1 - self.beta1, 1 - self.beta2
