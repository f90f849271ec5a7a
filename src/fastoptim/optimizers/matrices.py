"""Rules of whole arrays: directions made orthogonal, and means of squares for rows and columns alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, ClassVar, Unpack

from fastoptim.arguments import true_or_false
from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import adam_rules, matrix
from fastoptim.optimizers.base import AdamLike, BuiltIn, Slot
from fastoptim.transforms import Number, Options

__all__ = ["Adafactor", "Muon"]


class Muon(AdamLike):
    r"""Momentum made orthogonal for arrays of two axes, and AdamW for all others.

    .. math::

        m &\leftarrow m + (1 - \mu)(g - m), \qquad u = (1 - \mu) g + \mu m \\
        p &\leftarrow p - \eta \sqrt{\max(1, \text{outputs} / \text{inputs})} \, U V^\top
        \quad \text{with} \quad u = U \Sigma V^\top

    Five iterations of Newton and Schulz, which are products of matrices, take the place of the decomposition; singular
    values become 0.7 to 1.2 in place of 1.

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative, for all arrays. Groups may have others.
    momentum : float
        The fraction :math:`\mu` of the mean gradient kept at each step, from 0 to less than 1.
    beta1, beta2 : float
        The fractions of the two means of AdamW kept at each step, from 0 to less than 1.
    eps : float
        The epsilon of AdamW, not negative.
    consistent_rms : float
        If not 0, the factor of :math:`\eta` is this number times the root of the longer axis. With 0.2, steps are about
        as long as those of AdamW, so one learning rate fits both (Liu et al. 2025).
    nesterov : bool
        Whether the direction is :math:`u` instead of :math:`m`.
    like : {"optax", "torch"}
        Whose rule and defaults. Weights have the axes (inputs, outputs) in optax, as in this package's network, and
        (outputs, inputs) in PyTorch, where ``weight_decay`` is 0.1 unless it is given. optax corrects the bias of
        :math:`u`, which changes its direction in the first steps, and other arrays take Nesterov's momentum.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    m : dict or None
        The running mean of the gradient of each parameter.
    v : dict or None
        The running mean of its square, of shape (0,) for arrays of two axes.

    References
    ----------
    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    J. Liu et al., "Muon is scalable for LLM training", 2025.

    Notes
    -----
    The authors leave embeddings and the last layer to AdamW: name these in ``frozen`` here, and all others in
    ``frozen`` of an `AdamW` that updates the same dicts.

    BLAS computes the products, in the dtype of the arrays, or in float32 for float16; PyTorch rounds to bfloat16. Their
    last bits may depend on the number of threads of the BLAS.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"W": np.zeros((2, 2))}
    >>> Muon(lr=1.0).update(params, {"W": np.array([[0.0, 5.0], [-5.0, 0.0]])})
    >>> params["W"].round(2) + 0.0
    array([[ 0.  , -1.11],
           [ 1.11,  0.  ]])
    """

    slots = ("m", "v")
    m: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(adam_rules.nadam)
    defaults: ClassVar[dict[str, dict[str, float]]] = {"optax": {}, "torch": {"weight_decay": 0.1}}
    momentum = Hyperparameter(0, 1, below=True)
    consistent_rms = Hyperparameter(0)
    nesterov = True

    def __init__(
        self,
        lr: Number = 0.001,
        momentum: Number = 0.95,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number = 1e-8,
        consistent_rms: Number = 0.0,
        nesterov: bool = True,
        like: str = "optax",
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.momentum = momentum
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.consistent_rms = consistent_rms
        self.nesterov = true_or_false("nesterov", nesterov)
        self._follow(like)
        if "weight_decay" not in options:
            self.weight_decay = self.defaults[like].get("weight_decay")
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the factors of g and m in the step of other arrays, ``1 - beta1``, ``1 - beta2``, and epsilon."""
        lr, beta1, beta2, t = self.lr, self.beta1, self.beta2, self.iter
        root = sqrt(1 - beta2**t)
        of_gradient, of_mean = 0.0, lr * root / (1 - beta1**t)
        if self.like == "optax" and self.nesterov:
            of_gradient, of_mean = (1 - beta1) * of_mean, beta1 * lr * root / (1 - beta1 ** (t + 1))
        return of_gradient, of_mean, 1 - beta1, 1 - beta2, self.eps * root

    def array_slots(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]] | None:
        """Return an empty ``v`` for arrays of two axes, and None for others, which `rule` updates."""
        return {"v": (0,)} if len(shape) == 2 else None

    def array_rule(self, p: Any, g: Any, m: Any, v: Any, *_: Any) -> Any:
        """Return a matrix after its step, and its slots."""
        mu, t, is_optax = self.momentum, self.iter, self.like == "optax"
        of_gradient, of_mean = (1 - mu, mu) if self.nesterov else (0.0, 1.0)
        if is_optax:
            of_gradient, of_mean = of_gradient / (1 - mu**t), of_mean / (1 - mu ** (t + self.nesterov))
        inputs, outputs = p.shape if is_optax else p.shape[::-1]
        factor = sqrt(max(1.0, outputs / max(inputs, 1)))
        if self.consistent_rms:
            factor = self.consistent_rms * sqrt(max(inputs, outputs))
        least, added = (0.0, 1e-8) if is_optax else (1e-7, 0.0)
        return *matrix.muon(p, g, m, self.lr * factor, of_gradient, of_mean, 1 - mu, least, added), v


class Adafactor(BuiltIn):
    r"""RMSprop with a mean of squares for each row and each column in place of each element.

    .. math::

        R &\leftarrow R + t^{-\gamma} (\operatorname{mean}_\text{columns} g^2 - R), \qquad
        C \leftarrow C + t^{-\gamma} (\operatorname{mean}_\text{rows} g^2 - C) \\
        u &= g / \sqrt{R C / \operatorname{mean} R}, \qquad \rho = \min(\eta, 1 / \sqrt{t}) \\
        p &\leftarrow p - \rho \max(\epsilon_2, \operatorname{rms} p) \frac{u}{\max(1, \operatorname{rms}(u) / d)}

    The state of a matrix is a row and a column; more axes are matrices side by side. Arrays of one axis or none have a
    mean of squares ``v`` for each element.

    Parameters
    ----------
    lr : float
        The largest relative step :math:`\eta`, not negative.
    decay_rate : float
        The exponent :math:`\gamma`, not negative. With 1 the means are those of all steps; the smaller it is, the more
        the newest count.
    eps : float
        The lower bound of the root of the mean of squares, not negative; 0 is the machine epsilon of the arrays' dtype.
    eps2 : float
        The lower bound :math:`\epsilon_2` of the root mean square of a parameter in its step, not negative.
    clip_threshold : float
        The largest root mean square :math:`d` of the step before it is scaled, greater than 0.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`.

    Attributes
    ----------
    rows, columns : dict or None
        The running means of the squared gradient over the last axis, and over the last but one, which has length 1.
    v : dict or None
        The running mean of the squared gradient, of shape (0,) for arrays of two or more axes.

    References
    ----------
    N. Shazeer and M. Stern, "Adafactor: adaptive learning rates with sublinear memory cost", ICML 2018, algorithms 4
    and 5, as in PyTorch.

    Notes
    -----
    NumPy computes each array as a whole, on one thread: it saves memory, not time.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"W": np.ones((2, 3))}
    >>> opt = Adafactor(lr=0.5)
    >>> opt.update(params, {"W": np.array([[1.0, -1.0, 1.0], [2.0, 2.0, -2.0]])})
    >>> params["W"]
    array([[0.5, 1.5, 0.5],
           [0.5, 0.5, 1.5]])
    >>> opt.rows["W"].shape, opt.columns["W"].shape
    ((2, 1), (1, 3))
    """

    slots = ("rows", "columns", "v")
    rows: Slot
    columns: Slot
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(matrix.adafactor)
    in_rule = ("weight_decay",)
    decay_rate = Hyperparameter(0)
    eps = Hyperparameter(0)
    eps2 = Hyperparameter(0)
    clip_threshold = Hyperparameter(1e-300)

    def __init__(
        self,
        lr: Number = 0.01,
        decay_rate: Number = 0.8,
        *,
        eps: Number = 0.0,
        eps2: Number = 1e-3,
        clip_threshold: Number = 1.0,
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.decay_rate = decay_rate
        self.eps = eps
        self.eps2 = eps2
        self.clip_threshold = clip_threshold
        super().__init__(**options)

    def scalars(self) -> tuple[float, ...]:
        """Return the relative step, the share of this step in the means, the bounds, and the decay."""
        t, decay = self.iter, self.lr * (self.weight_decay or 0.0)
        return min(self.lr, t**-0.5), t**-self.decay_rate, self.eps, self.eps2, self.clip_threshold, decay

    def array_slots(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]] | None:
        """Return the shapes of rows and columns for arrays of two or more axes."""
        if len(shape) < 2:
            return {"rows": (0,), "columns": (0,)}
        return {"rows": (*shape[:-1], 1), "columns": (*shape[:-2], 1, shape[-1]), "v": (0,)}
