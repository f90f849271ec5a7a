"""Rules that average the parameters instead of lowering the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from math import sqrt
from typing import Any, ClassVar, Unpack

import numpy as np

from fastoptim.concurrency import exclusive
from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import rules
from fastoptim.optimizers.base import BuiltIn, Slot
from fastoptim.transforms import Number, Options
from fastoptim.update.plan import Plan
from fastoptim.update.scalars import group_view
from fastoptim.update.state import slot_of
from fastoptim.update.validate import Array, Parameter, Parameters, validate

__all__ = ["ScheduleFreeAdamW", "ScheduleFreeSGD"]


class ScheduleFreeSGD(BuiltIn):
    r"""Gradient descent whose parameters are averaged, in place of a learning rate that decays.

    The gradient is taken at :math:`y`, between the point :math:`z` that descends and its average :math:`x`. The
    parameters are :math:`y` while training and :math:`x` inside `evaluation`.

    .. math::

        \gamma &= \eta \min(1, t / t_0), \qquad w_t = t^\rho \left(\max_{s \le t} \gamma_s\right)^\alpha,
         \qquad c = \frac{w_t}{w_1 + \cdots + w_t} \\
        z &\leftarrow z - \gamma (g + \lambda y), \qquad x \leftarrow (1 - c) x + c z \\
        y &\leftarrow (1 - \beta) z + \beta x

    Only :math:`y` and :math:`z` are kept: :math:`x = y + (1 - 1 / \beta)(z - y)`.

    Parameters
    ----------
    lr : float
        The learning rate :math:`\eta`, not negative.
    beta1 : float
        The weight :math:`\beta` of the average in :math:`y`, from 0.01 to 1; it should not change during a run.
    warmup : float
        The number :math:`t_0` of steps in which the learning rate rises to ``lr``, not negative.
    rho, power : float
        The exponents :math:`\rho` and :math:`\alpha` of the weights in the average, not negative.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`. Here ``weight_decay`` is :math:`\lambda`, a part of
        the step. ``cautious`` and ``lookahead`` move :math:`y` alone.

    Attributes
    ----------
    z : dict or None
        The point that descends, for each parameter.
    weight_sum, lr_max : float
        The sum of the weights, and the largest learning rate so far.

    References
    ----------
    A. Defazio et al., "The road less scheduled", NeurIPS 2024, section 2 and algorithm 1.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> opt = ScheduleFreeSGD(lr=0.5)
    >>> for _ in range(2):
    ...     opt.update(params, {"x": 1.0})
    >>> round(params["x"], 6)
    0.225
    >>> with opt.evaluation(params):
    ...     round(params["x"], 6)
    0.25
    """

    slots: ClassVar[tuple[str, ...]] = ("z",)
    z: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.schedule_free_sgd)
    in_rule = ("weight_decay",)
    beta1 = Hyperparameter(0.01, 1)
    warmup = Hyperparameter(0)
    rho = Hyperparameter(0)
    power = Hyperparameter(0)
    running: ClassVar[Mapping[str, float]] = {"weight_sum": 0.0, "lr_max": 0.0}
    weight_sum: float
    lr_max: float
    _evaluated: frozenset[Hashable] = frozenset()
    """The keys of parameters that are averages now."""

    def __init__(
        self,
        lr: Number = 1.0,
        beta1: Number = 0.9,
        *,
        warmup: Number = 0.0,
        rho: Number = 0.0,
        power: Number = 2.0,
        **options: Unpack[Options],
    ) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.warmup = warmup
        self.rho = rho
        self.power = power
        super().__init__(**options)

    def initial_state(self) -> Mapping[str, float | str]:
        """Return a copy of the parameters for ``z``."""
        return {"z": "p"}

    def scalars(self) -> tuple[float, ...]:
        """Return the learning rate, the share of z in the average, the step size of the parameter, and the decay."""
        lr, t = self.lr * min(1.0, self.iter / (self.warmup or 1.0)), self.iter
        self.lr_max = max(self.lr_max, lr)
        weight = t**self.rho * self.lr_max**self.power
        self.weight_sum += weight
        # A learning rate that begins with 0 has no weight.
        share = weight / self.weight_sum if weight else 0.0
        return lr, share, lr * (1 - self.beta1 * (1 - share)), self.weight_decay or 0.0

    def _find_plan(self, params: Any, grads: Any) -> tuple[Plan, Any]:
        if self._evaluated:
            raise RuntimeError(
                "update cannot be called inside evaluation(), where parameters are averages and an update would be "
                "lost; call it after the with block"
            )
        return super()._find_plan(params, grads)

    @contextmanager
    def evaluation(self, params: Parameters) -> Iterator[None]:
        """Make the parameters their averages inside a ``with`` block, to evaluate the model or to save them.

        Parameters
        ----------
        params : dict or list
            The parameters, as in `Optimizer.update`. Arrays are written in place, and plain numbers are replaced.
            Frozen parameters, and those that were not updated yet, stay as they are.

        Raises
        ------
        KeyError, TypeError, ValueError
            If `Optimizer.update` would not accept them. Nothing is changed then.
        RuntimeError
            If this is called during an update, for example by a signal handler.

        Notes
        -----
        When the block ends, also by an exception, the parameters are restored bit for bit from a copy. Anything written
        to them inside the block is lost, also by `load`. In nested blocks, parameters that are averages already stay
        averages. `Optimizer.update` is an error inside.

        Saving inside the block saves the averages. To resume a run later, save it outside, because its next step starts
        from the parameters.
        """
        entered: list[tuple[Parameter, Array]] = []
        try:
            self._begin_evaluation(params, entered)
            yield
        finally:
            try:
                self._end_evaluation(params, entered)
            except BaseException:
                # An interruption, such as KeyboardInterrupt, must not leave half of the parameters averaged.
                self._end_evaluation(params, entered)
                raise

    @exclusive
    def _begin_evaluation(self, params: Any, entered: list[tuple[Parameter, Array]]) -> None:
        parameters = validate(params, params, self._groups.frozen_keys(params))
        self._groups.assign(parameters)
        averages = [(each, self._average(each)) for each in parameters if each.key not in self._evaluated]
        entered += [(each, each.p.copy()) for each, _ in averages]
        self._evaluated |= {each.key for each, _ in averages}
        # Without a plan, an update looks for one first.
        self._keep(self._state, [])
        _assign(params, averages)

    @exclusive
    def _end_evaluation(self, params: Any, entered: list[tuple[Parameter, Array]]) -> None:
        self._evaluated -= {each.key for each, _ in entered}
        _assign(params, entered)

    def _average(self, parameter: Parameter) -> Array:
        if self._state is None:
            return parameter.p
        z = slot_of(parameter, "z", self._state["z"])
        beta = group_view(self, parameter.group, self.iter).beta1
        average: Array = parameter.p + (1 - 1 / beta) * (z - parameter.p)
        return average


class ScheduleFreeAdamW(ScheduleFreeSGD):
    r"""`ScheduleFreeSGD` with gradients scaled, element by element, by past squared gradients.

    .. math::

        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        z &\leftarrow z - \gamma \left(\frac{g}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \lambda y\right),
         \qquad x \leftarrow (1 - c) x + c z \\
        y &\leftarrow (1 - \beta) z + \beta x

    The parameters are :math:`y` while training and :math:`x` inside `evaluation`; for :math:`\gamma` and :math:`c` see
    `ScheduleFreeSGD`.

    Parameters
    ----------
    lr : float
        The learning rate, not negative.
    beta1 : float
        The weight :math:`\beta` of the average in :math:`y`, from 0.01 to 1; it should not change during a run.
    beta2 : float
        The fraction of the mean of squares kept at each step, from 0 to less than 1.
    eps : float
        :math:`\epsilon`, not negative.
    warmup : float
        The number of steps in which the learning rate rises to ``lr``, not negative.
    rho, power : float
        The exponents of the weights in the average, not negative; see `ScheduleFreeSGD`.
    **options
        Transforms, groups and ``on_nonfinite``; see `Optimizer`. Here ``weight_decay`` is :math:`\lambda`, a part of
        the step. ``cautious`` and ``lookahead`` move :math:`y` alone.

    Attributes
    ----------
    z, v : dict or None
        The point that descends, and the running mean of the squared gradient, for each parameter.
    weight_sum, lr_max : float
        The sum of the weights, and the largest learning rate so far.

    References
    ----------
    A. Defazio et al., "The road less scheduled", NeurIPS 2024, algorithm 1.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> opt = ScheduleFreeAdamW(lr=0.5)
    >>> for _ in range(2):
    ...     opt.update(params, {"x": 4.0})
    >>> round(params["x"], 6)
    0.225
    >>> with opt.evaluation(params):
    ...     round(params["x"], 6)
    0.25
    """

    slots = ("z", "v")
    v: Slot
    rule: ClassVar[Callable[..., Any]] = staticmethod(rules.schedule_free_adamw)
    beta2 = Hyperparameter(0, 1, below=True)
    eps = Hyperparameter(0)

    def __init__(
        self,
        lr: Number = 0.0025,
        beta1: Number = 0.9,
        beta2: Number = 0.999,
        *,
        eps: Number = 1e-8,
        warmup: Number = 0.0,
        rho: Number = 0.0,
        power: Number = 2.0,
        **options: Unpack[Options],
    ) -> None:
        self.beta2 = beta2
        self.eps = eps
        super().__init__(lr, beta1, warmup=warmup, rho=rho, power=power, **options)

    def scalars(self) -> tuple[float, ...]:
        """Return the scalars of `ScheduleFreeSGD`, the root of the correction, ``1 - beta2``, and epsilon."""
        root = sqrt(1 - self.beta2**self.iter)
        return *super().scalars(), root, 1 - self.beta2, self.eps * root


def _assign(params: Any, values: list[tuple[Parameter, Array]]) -> None:
    for parameter, value in values:
        if isinstance(parameter.value, np.ndarray):
            np.copyto(parameter.p, value, casting="same_kind")
        else:
            params[parameter.key] = type(parameter.value)(value[()])
