"""Steps along the sign of the gradient or of a mean of gradients; their length does not depend on its length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import BuiltIn, Slot
from fastoptim.transforms import Number, Options

__all__ = ["Lion", "Rprop", "SignSGD", "Signum"]


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

    def __init__(self, lr: Number = 0.001, **options: Unpack[Options]) -> None:
        self.lr = lr
        super().__init__(**options)

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
    beta1 = Hyperparameter(0, 1, below=True)

    def __init__(self, lr: Number = 0.001, beta1: Number = 0.9, **options: Unpack[Options]) -> None:
        self.lr = lr
        self.beta1 = beta1
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate and ``1 - beta1``."""
        return self.lr, 1 - self.beta1


class Rprop(BuiltIn):
    r"""Steps that grow while the gradient of an element keeps its sign, and shrink when it changes.

    .. math::

        s &= \operatorname{sign} g \operatorname{sign} g_- \\
        \Delta &\leftarrow \operatorname{clip}(\eta \Delta, \Delta_{\min}, \Delta_{\max}),
         \qquad \eta = \eta_+ \text{ where } s > 0, \; \eta_- \text{ where } s < 0, \; 1 \text{ elsewhere} \\
        g_- &\leftarrow 0 \text{ where } s < 0, \; g \text{ elsewhere} \\
        p &\leftarrow p - \Delta \operatorname{sign} g_-

    It is for gradients of the full data set: those of batches change their sign by chance.

    Parameters
    ----------
    lr : float
        The first step size, not negative. It has no effect later.
    eta_minus, eta_plus : float
        The factors of the step size where the sign has changed, from 0 to less than 1, and where it has not, at least
        1.
    step_min, step_max : float
        The bounds of the step size, not negative.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    previous : dict or None
        The gradient :math:`g_-` of the last step, 0 where its sign had changed.
    step_size : dict or None
        The step size :math:`\Delta` of each element.

    References
    ----------
    M. Riedmiller and H. Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm",
    ICNN 1993. C. Igel and M. Hüsken, "Improving the Rprop learning algorithm", NC 2000: iRprop-, as in PyTorch.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> opt = Rprop(lr=0.5)
    >>> opt.update(params, {"x": 4.0})
    >>> opt.update(params, {"x": 0.001})
    >>> round(params["x"], 6)
    -0.1
    """

    slots = ("previous", "step_size")
    previous: Slot
    step_size: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.rprop)
    eta_minus = Hyperparameter(0, 1, below=True)
    eta_plus = Hyperparameter(1)
    step_min = Hyperparameter(0)
    step_max = Hyperparameter(0)

    def __init__(
        self,
        lr: Number = 0.01,
        eta_minus: Number = 0.5,
        eta_plus: Number = 1.2,
        *,
        step_min: Number = 1e-6,
        step_max: Number = 50.0,
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.eta_minus = eta_minus
        self.eta_plus = eta_plus
        self.step_min = step_min
        self.step_max = step_max
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the first step size, the two factors, and the two bounds."""
        return self.lr, self.eta_minus, self.eta_plus, self.step_min, self.step_max


class Lion(BuiltIn):
    r"""Steps of one length, against the sign of the momentum, in which the newest gradient counts more.

    .. math::

        p &\leftarrow p - \eta \operatorname{sign}(\beta_1 m + (1 - \beta_1) g) \\
        m &\leftarrow m + (1 - \beta_2)(g - m)

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 1e-4, and 0.001 as in Keras.
    beta1, beta2 : float
        The weight of the momentum in the step, and the fraction of it kept, from 0 to less than 1.
    like : {"paper", "optax", "keras"}
        Whose defaults; ``weight_decay`` is off, and 0.001 as in optax.
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
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "paper": {"lr": 1e-4},
        "optax": {"lr": 1e-4, "weight_decay": 1e-3},
        "keras": {"lr": 1e-3},
    }
    beta1 = Hyperparameter(0, 1, below=True)
    beta2 = Hyperparameter(0, 1, below=True)

    def __init__(
        self,
        lr: Number | None = None,
        beta1: Number = 0.9,
        beta2: Number = 0.99,
        *,
        like: str = "paper",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr)
        self.beta1 = beta1
        self.beta2 = beta2
        if "weight_decay" not in options:
            self.weight_decay = self.defaults[like].get("weight_decay")
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate, ``beta1``, ``1 - beta1`` and ``1 - beta2``."""
        return self.lr, self.beta1, 1 - self.beta1, 1 - self.beta2
