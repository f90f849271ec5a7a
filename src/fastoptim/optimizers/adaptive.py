"""Steps scaled, element by element, by past squared gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import NOTES_EPS, BuiltIn, Slot
from fastoptim.transforms import Number, Options

__all__ = ["AdaDelta", "AdaGrad", "RMSprop"]


class AdaGrad(BuiltIn):
    r"""Steps scaled, element by element, by the sum of all squared gradients.

    .. math::

        h &\leftarrow h + g^2 \\
        p &\leftarrow p - \frac{\eta g}{\sqrt{h} + \epsilon}, \qquad \epsilon = 10^{-7}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    h : dict or None
        The sum of squared gradients of each parameter.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    JMLR 12 (2011), fig. 1 with diagonal matrices.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> AdaGrad(lr=0.5).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("h",)
    h: Slot
    rule = staticmethod(rules.adagrad)
    lr = Hyperparameter(0)

    def __init__(self, lr: Number = 0.01, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.lr = lr

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate and epsilon."""
        return self.lr, NOTES_EPS


class RMSprop(BuiltIn):
    r"""AdaGrad with a running mean in place of the sum, so that its steps do not die out.

    .. math::

        h &\leftarrow \rho h + (1 - \rho) g^2 \\
        p &\leftarrow p - \frac{\eta g}{\sqrt{h} + \epsilon}, \qquad \epsilon = 10^{-7}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    decay_rate : float
        The fraction :math:`\rho` of the mean kept at each step, from 0 to less than 1.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    h : dict or None
        The running mean of squared gradients of each parameter.

    Warnings
    --------
    :math:`\epsilon` is added to the root, as in PyTorch; optax adds it inside the root.

    References
    ----------
    T. Tieleman and G. Hinton, "Lecture 6.5: rmsprop", Neural Networks for Machine Learning, 2012, slide 29.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> RMSprop(lr=0.05).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("h",)
    h: Slot
    rule = staticmethod(rules.rmsprop)
    lr = Hyperparameter(0)
    decay_rate = Hyperparameter(0, 1, below=True)

    def __init__(self, lr: Number = 0.01, decay_rate: Number = 0.99, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.lr = lr
        self.decay_rate = decay_rate

    def scalars(self) -> tuple[float, ...]:
        """Return ``lr, decay_rate, 1 - decay_rate`` and epsilon."""
        return self.lr, self.decay_rate, 1 - self.decay_rate, NOTES_EPS


class AdaDelta(BuiltIn):
    r"""Steps scaled by past steps over past gradients, in the unit of the parameters.

    .. math::

        s &\leftarrow s + (1 - \rho)(g^2 - s), \qquad d = \frac{\sqrt{a + \epsilon}}{\sqrt{s + \epsilon}} g \\
        a &\leftarrow a + (1 - \rho)(d^2 - a), \qquad p \leftarrow p - \eta d

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    rho : float
        The fraction :math:`\rho` of both means kept at each step, from 0 to less than 1.
    eps : float
        :math:`\epsilon`, not negative.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    s, a : dict or None
        The running means of squared gradients and of squared steps, for each parameter.

    References
    ----------
    M. D. Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> AdaDelta(lr=100.0).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.683772
    """

    slots = ("s", "a")
    s: Slot
    a: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.adadelta)
    lr = Hyperparameter(0)
    rho = Hyperparameter(0, 1, below=True)
    eps = Hyperparameter(0)

    def __init__(self, lr: Number = 1.0, rho: Number = 0.9, *, eps: Number = 1e-6, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.lr = lr
        self.rho = rho
        self.eps = eps

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate, ``1 - rho``, and epsilon."""
        return self.lr, 1 - self.rho, self.eps
