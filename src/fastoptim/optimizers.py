"""The optimizers of the notes: hyperparameters in, the scalars of a step out. The formulas are in `kernels.rules`."""

from __future__ import annotations

from math import sqrt

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizer import Optimizer

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop"]

_EPS = 1e-7
"""Keeps the division by a root away from zero; the notes fix its value."""


class SGD(Optimizer):
    r"""Stochastic gradient descent.

    .. math:: p \leftarrow p - \eta g

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    on_nonfinite : {"ignore", "raise", "skip"}
        What to do about gradients that are NaN or infinite; see `Optimizer`.

    References
    ----------
    H. Robbins and S. Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22 (1951).

    Examples
    --------
    >>> import numpy as np
    >>> params = {"w": np.array([1.0, 2.0])}
    >>> SGD(lr=0.5).update(params, {"w": np.array([1.0, -1.0])})
    >>> params["w"]
    array([0.5, 2.5])
    """

    rule = staticmethod(rules.sgd)
    lr = Hyperparameter(0)

    def __init__(self, lr: float = 0.01, *, on_nonfinite: str = "ignore") -> None:
        super().__init__(on_nonfinite=on_nonfinite)
        self.lr = lr

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate."""
        return (self.lr,)


class Momentum(Optimizer):
    r"""Gradient descent with momentum: a ball that rolls down the loss and keeps its velocity.

    .. math::

        v &\leftarrow \mu v - \eta g \\
        p &\leftarrow p + v

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    momentum : float
        The part :math:`\mu` of the velocity that is kept each step, from 0 to 1.
    on_nonfinite : {"ignore", "raise", "skip"}
        What to do about gradients that are NaN or infinite; see `Optimizer`.

    Attributes
    ----------
    v : dict or None
        The velocity of each parameter.

    References
    ----------
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational Mathematics
    and Mathematical Physics 4 (1964), eq. 9. I. Sutskever et al., "On the importance of initialization and momentum
    in deep learning", ICML 2013, eqs. 1-2.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> opt = Momentum(lr=0.5)
    >>> opt.update(params, {"x": 1.0})
    >>> opt.update(params, {"x": 0.0})
    >>> round(params["x"], 12)
    0.05
    """

    slots = ("v",)
    rule = staticmethod(rules.momentum)
    lr = Hyperparameter(0)
    momentum = Hyperparameter(0, 1)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9, *, on_nonfinite: str = "ignore") -> None:
        super().__init__(on_nonfinite=on_nonfinite)
        self.lr = lr
        self.momentum = momentum

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate and the momentum."""
        return self.lr, self.momentum


class Nesterov(Optimizer):
    r"""Nesterov's accelerated gradient, written for the gradient at the point looked ahead to.

    .. math::

        p &\leftarrow p + \mu^2 v - (1 + \mu) \eta g \\
        v &\leftarrow \mu v - \eta g

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    momentum : float
        The part :math:`\mu` of the velocity that is kept each step, from 0 to 1.
    on_nonfinite : {"ignore", "raise", "skip"}
        What to do about gradients that are NaN or infinite; see `Optimizer`.

    Attributes
    ----------
    v : dict or None
        The velocity of each parameter.

    References
    ----------
    Y. Bengio, N. Boulanger-Lewandowski and R. Pascanu, "Advances in optimizing recurrent networks", ICASSP 2013,
    eqs. 6-7. Y. Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k²)", 1983.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> Nesterov(lr=0.5).update(params, {"x": 1.0})
    >>> round(params["x"], 12)
    0.05
    """

    slots = ("v",)
    rule = staticmethod(rules.nesterov)
    lr = Hyperparameter(0)
    momentum = Hyperparameter(0, 1)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9, *, on_nonfinite: str = "ignore") -> None:
        super().__init__(on_nonfinite=on_nonfinite)
        self.lr = lr
        self.momentum = momentum

    def scalars(self) -> tuple[float, ...]:
        """Return ``lr, momentum, momentum**2`` and ``(1 + momentum) * lr``."""
        return self.lr, self.momentum, self.momentum * self.momentum, (1 + self.momentum) * self.lr


class AdaGrad(Optimizer):
    r"""Steps that shrink, element by element, with the sum of all squared gradients.

    .. math::

        h &\leftarrow h + g^2 \\
        p &\leftarrow p - \frac{\eta g}{\sqrt{h} + \epsilon}, \qquad \epsilon = 10^{-7}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    on_nonfinite : {"ignore", "raise", "skip"}
        What to do about gradients that are NaN or infinite; see `Optimizer`.

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
    rule = staticmethod(rules.adagrad)
    lr = Hyperparameter(0)

    def __init__(self, lr: float = 0.01, *, on_nonfinite: str = "ignore") -> None:
        super().__init__(on_nonfinite=on_nonfinite)
        self.lr = lr

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate and epsilon."""
        return self.lr, _EPS


class RMSprop(Optimizer):
    r"""AdaGrad that forgets old gradients, so that its steps do not die out.

    .. math::

        h &\leftarrow \rho h + (1 - \rho) g^2 \\
        p &\leftarrow p - \frac{\eta g}{\sqrt{h} + \epsilon}, \qquad \epsilon = 10^{-7}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    decay_rate : float
        The part :math:`\rho` of the mean that is kept each step, from 0 to less than 1.
    on_nonfinite : {"ignore", "raise", "skip"}
        What to do about gradients that are NaN or infinite; see `Optimizer`.

    Attributes
    ----------
    h : dict or None
        The running mean of squared gradients of each parameter.

    Warnings
    --------
    :math:`\epsilon` stands outside the root, as in PyTorch; in optax it stands inside.

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
    rule = staticmethod(rules.rmsprop)
    lr = Hyperparameter(0)
    decay_rate = Hyperparameter(0, 1, below=True)

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99, *, on_nonfinite: str = "ignore") -> None:
        super().__init__(on_nonfinite=on_nonfinite)
        self.lr = lr
        self.decay_rate = decay_rate

    def scalars(self) -> tuple[float, ...]:
        """Return ``lr, decay_rate, 1 - decay_rate`` and epsilon."""
        return self.lr, self.decay_rate, 1 - self.decay_rate, _EPS


class Adam(Optimizer):
    r"""Adaptive moment estimation: momentum and scaling, both corrected for their beginning at zero.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p - \eta_t \frac{m}{\sqrt{v} + \epsilon},
        \qquad \eta_t = \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}, \quad \epsilon = 10^{-7}

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, about the largest step of an element; not negative.
    beta1, beta2 : float
        The parts of the two means that are kept each step, from 0 to less than 1.
    on_nonfinite : {"ignore", "raise", "skip"}
        What to do about gradients that are NaN or infinite; see `Optimizer`.

    Attributes
    ----------
    m, v : dict or None
        The running means of the gradient and of its square, for each parameter.

    Warnings
    --------
    :math:`\epsilon` is added to the uncorrected root, as in the paper's last formula of section 2, and in Keras;
    PyTorch and optax add it after the correction.

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
    rule = staticmethod(rules.adam)
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
        return lr_t, 1 - beta1, 1 - beta2, _EPS
