"""Steps scaled, element by element, by past squared gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from fastoptim.arguments import true_or_false
from fastoptim.hyperparameters import Choice, Hyperparameter, Switch
from fastoptim.kernels import rules
from fastoptim.optimizers.base import NOTES_EPS, BuiltIn, Slot, Variants
from fastoptim.transforms import Number, Options

__all__ = ["AdaDelta", "AdaGrad", "RMSprop"]

_INSIDE = {"optax", "keras"}
"""The libraries that add epsilon inside the root."""


class AdaGrad(BuiltIn):
    r"""Steps scaled, element by element, by the sum of all squared gradients.

    .. math::

        h &\leftarrow h + g^2 \\
        p &\leftarrow p - \frac{\eta}{1 + (t - 1) \delta} \frac{g}{\sqrt{h} + \epsilon}

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 0.01, and 0.001 as in Keras. optax has no default.
    lr_decay : float
        :math:`\delta`, not negative: how fast the learning rate falls, as in PyTorch.
    initial_accumulator : float, optional
        What h begins with, not negative: 0, and 0.1 as in optax and Keras.
    eps : float, optional
        :math:`\epsilon`, not negative: 1e-7, and 1e-10 as in PyTorch.
    like : {"notes", "torch", "optax", "keras"}
        Whose defaults, and whose root: in optax and Keras it is :math:`\sqrt{h + \epsilon}`.
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
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.adagrad)
    variants: ClassVar[Variants] = {("h",): rules.adagrad_inside}
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "notes": {"lr": 0.01, "initial_accumulator": 0.0, "eps": NOTES_EPS},
        "torch": {"lr": 0.01, "initial_accumulator": 0.0, "eps": 1e-10},
        "optax": {"lr": 0.01, "initial_accumulator": 0.1, "eps": 1e-7},
        "keras": {"lr": 0.001, "initial_accumulator": 0.1, "eps": 1e-7},
    }
    lr_decay = Hyperparameter(0)
    initial_accumulator = Hyperparameter(0, is_fixed=True)
    eps = Hyperparameter(0)

    def __init__(
        self,
        lr: Number | None = None,
        *,
        lr_decay: Number = 0.0,
        initial_accumulator: float | None = None,
        eps: Number | None = None,
        like: str = "notes",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr, initial_accumulator=initial_accumulator, eps=eps)
        self.lr_decay = lr_decay
        super().__init__(**options)

    def variant(self) -> tuple[str, ...] | None:
        """Return the slot of the rule with epsilon inside the root, or None for the notes' rule."""
        return ("h",) if self.like in _INSIDE else None

    def initial_state(self) -> dict[str, float | str]:
        """Return what h begins with."""
        return {"h": self.initial_accumulator} if self.initial_accumulator else {}

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate of this step and epsilon."""
        decay = self.lr_decay
        return self.lr / (1 + (self.iter - 1) * decay) if decay else self.lr, self.eps


class RMSprop(BuiltIn):
    r"""AdaGrad with a running mean in place of the sum, so that its steps do not die out.

    .. math::

        h &\leftarrow \rho h + (1 - \rho) g^2 \\
        p &\leftarrow p - \frac{\eta g}{\sqrt{h} + \epsilon}

    Centered, and with momentum :math:`\mu`,

    .. math::

        a &\leftarrow \rho a + (1 - \rho) g \\
        b &\leftarrow \mu b + \frac{g}{\sqrt{h - a^2} + \epsilon}, \qquad p \leftarrow p - \eta b

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 0.01, and 0.001 as in Keras. optax has no default.
    decay_rate : float, optional
        The fraction :math:`\rho` of the means kept at each step, from 0 to less than 1; 0.99, and 0.9 as in optax and
        Keras.
    centered : bool
        Whether to subtract the squared mean of gradients, so that steps are scaled by their variance.
    momentum : float
        The fraction :math:`\mu` of b kept at each step, from 0 to 1.
    eps : float, optional
        :math:`\epsilon`, not negative: 1e-7 as in the notes and Keras, 1e-8 as in PyTorch and optax.
    like : {"notes", "torch", "optax", "keras"}
        Whose defaults, and whose formulas: in optax and Keras :math:`\epsilon` is inside the root, and :math:`\eta` is
        in b instead of the step. b is not converted if this is changed between updates.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    h : dict or None
        The running mean of squared gradients of each parameter.
    a : dict or None
        The running mean of gradients, if it is centered.
    b : dict or None
        The momentum, if there is any.

    References
    ----------
    T. Tieleman and G. Hinton, "Lecture 6.5: rmsprop", Neural Networks for Machine Learning, 2012, slide 29.
    Centered, with momentum: A. Graves, "Generating sequences with recurrent neural networks", 2013, eqs. 38-41.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> RMSprop(lr=0.05).update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.5
    """

    slots = ("h",)
    optional_slots = ("a", "b")
    h: Slot
    a: Slot
    b: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.rmsprop)
    variants: ClassVar[Variants] = {
        ("h",): rules.rmsprop_inside,
        ("h", "a"): rules.rmsprop_centered,
        ("h", "b"): rules.rmsprop_momentum,
        ("h", "a", "b"): rules.rmsprop_centered_momentum,
    }
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "notes": {"lr": 0.01, "decay_rate": 0.99, "eps": NOTES_EPS},
        "torch": {"lr": 0.01, "decay_rate": 0.99, "eps": 1e-8},
        "optax": {"lr": 0.01, "decay_rate": 0.9, "eps": 1e-8},
        "keras": {"lr": 0.001, "decay_rate": 0.9, "eps": 1e-7},
    }
    decay_rate = Hyperparameter(0, 1, below=True)
    centered = Choice(lambda _owner, name, value: true_or_false(name, value))
    momentum = Switch(0, 1)
    eps = Hyperparameter(0)

    def __init__(
        self,
        lr: Number | None = None,
        decay_rate: Number | None = None,
        *,
        centered: bool = False,
        momentum: Number = 0.0,
        eps: Number | None = None,
        like: str = "notes",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr, decay_rate=decay_rate, eps=eps)
        self.centered = centered
        self.momentum = momentum
        super().__init__(**options)

    def variant(self) -> tuple[str, ...] | None:
        """Return the slots of the variant, or None for the notes' rule: h alone, and epsilon outside of the root."""
        further = ("a",) * (vars(self).get("centered") is True) + ("b",) * self._is_on("momentum")
        return ("h", *further) if further or self.like in _INSIDE else None

    def scalars(self) -> tuple[float, ...]:
        """Return ``lr, decay_rate, 1 - decay_rate`` and epsilon; variants take the scalars that `rules` names."""
        lr, decay_rate, eps, variant = self.lr, self.decay_rate, self.eps, self._variant
        if variant is None or variant == ("h",):
            return lr, decay_rate, 1 - decay_rate, eps
        is_inside = self.like in _INSIDE
        inside, outside = (eps, 0.0) if is_inside else (0.0, eps)
        if "b" not in variant:
            return lr, decay_rate, 1 - decay_rate, inside, outside
        scale, share = (1.0, lr) if is_inside else (lr, 1.0)
        return scale, decay_rate, 1 - decay_rate, inside, outside, self.momentum, share


class AdaDelta(BuiltIn):
    r"""Steps scaled by past steps over past gradients, in the unit of the parameters.

    .. math::

        s &\leftarrow s + (1 - \rho)(g^2 - s), \qquad d = \frac{\sqrt{a + \epsilon}}{\sqrt{s + \epsilon}} g \\
        a &\leftarrow a + (1 - \rho)(d^2 - a), \qquad p \leftarrow p - \eta d

    Parameters
    ----------
    lr : float, optional
        The learning rate :math:`\eta`, not negative; 1, and 0.001 as in Keras. optax has no default.
    rho : float, optional
        The fraction :math:`\rho` of both means kept at each step, from 0 to less than 1; 0.9, and 0.95 as in Keras.
    eps : float, optional
        :math:`\epsilon`, not negative; 1e-6, and 1e-7 as in Keras.
    like : {"torch", "optax", "keras"}
        Whose defaults.
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
    defaults: ClassVar[dict[str, dict[str, float]]] = {
        "torch": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
        "optax": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
        "keras": {"lr": 0.001, "rho": 0.95, "eps": 1e-7},
    }
    rho = Hyperparameter(0, 1, below=True)
    eps = Hyperparameter(0)

    def __init__(
        self,
        lr: Number | None = None,
        rho: Number | None = None,
        *,
        eps: Number | None = None,
        like: str = "torch",
        **options: Unpack[Options],
    ) -> None:
        self._follow(like, lr=lr, rho=rho, eps=eps)
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate, ``1 - rho``, and epsilon."""
        return self.lr, 1 - self.rho, self.eps
