"""Sweeps: copies of a small problem that differ in their hyperparameters, updated by one kernel call a step."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastoptim.arguments import check_function, listed, true_or_false, whole_number
from fastoptim.kernels.fuse import fuse, n_scalars
from fastoptim.kernels.jit import DISABLED
from fastoptim.kernels.table import block_table
from fastoptim.optimizer import Optimizer
from fastoptim.threads import Autotuner
from fastoptim.update.composition import Composition, compose_optimizer, structure
from fastoptim.update.layout import address
from fastoptim.update.validate import Array, Parameters, validate

__all__ = ["Sweep", "sweep"]

_DTYPES = {np.dtype(np.float32), np.dtype(np.float64)}
_ELEMENTWISE = {"maximize", "grad_scale", "clip_value", "l2", "weight_decay", "lookahead"}
"""Transforms that need nothing but the elements and numbers that follow from hyperparameters and `iter`."""


@dataclass(frozen=True)
class Sweep:
    """The result of `sweep`."""

    values: dict[str, list[Any]]
    """The hyperparameters of the K copies."""
    losses: Array | None
    """The losses of each copy before the first step and after each, of shape (K, steps + 1); None without ``loss``."""
    params: Any
    """The parameters after the last step: arrays with a leading axis of length K, in a dict or list as was given."""


def sweep(
    optimizer: Callable[..., Optimizer],
    params: Parameters,
    values: Mapping[str, Sequence[Any] | Array],
    gradient: Callable[[Any], Any],
    steps: int,
    *,
    loss: Callable[[Any], Any] | None = None,
    vectorized: bool = False,
) -> Sweep:
    """Run an optimizer with each of K hyperparameters on copies of one problem, all of them at once.

    The results have the bits of K separate runs. One kernel call updates all copies if all parameters and gradients
    have one dtype, and the optimizer's rule needs only its elements, its hyperparameters and the step number: no norms,
    products, running numbers, schedules, averages or groups. Otherwise each copy is updated on its own.

    Parameters
    ----------
    optimizer : Optimizer class, or function
        Returns an optimizer with the given hyperparameters, such as ``functools.partial(fo.Adam, beta1=0.5)``.
    params : dict or list
        The initial parameters of each copy: arrays or floats, which are not changed.
    values : dict
        A sequence of K values for each hyperparameter. Copy k gets the value at k of each: for all pairs of two
        hyperparameters, pass the raveled arrays of ``numpy.meshgrid``.
    gradient : function
        Takes parameters as arrays, and returns their gradients, in a dict or list like ``params``.
    steps : int
        Number of updates.
    loss : function, optional
        Takes parameters as ``gradient`` does, and returns the loss.
    vectorized : bool
        Whether ``gradient`` and ``loss`` take arrays with a leading axis of length K, and return them so. This is much
        faster. If it is false, they are called once for each copy.

    Returns
    -------
    Sweep
        With ``values``, ``losses`` and ``params``.

    Raises
    ------
    KeyError, TypeError, ValueError
        If parameters or hyperparameters are not what the optimizer takes, or if gradients or losses have other keys or
        shapes, or ``values`` are not sequences of one length.

    Notes
    -----
    Floating-point warnings of NumPy are off, because the largest steps often overflow.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> result = sweep(
    ...     fo.Momentum,
    ...     {"x": -7.0, "y": 2.0},
    ...     {"lr": [0.001, 0.1, 10.0]},
    ...     lambda p: {"x": p["x"] / 10, "y": 2 * p["y"]},
    ...     steps=30,
    ...     loss=lambda p: p["x"] ** 2 / 20 + p["y"] ** 2,
    ...     vectorized=True,
    ... )
    >>> result.losses.shape
    (3, 31)
    >>> result.values["lr"][np.argmin(result.losses[:, -1])]
    0.1
    """
    if not callable(optimizer):
        raise TypeError(f"sweep takes a class such as fo.Adam, or a function that makes optimizers, not {optimizer!r}")
    if not isinstance(values, Mapping):
        raise TypeError(f"values must be a dict such as {{'lr': [0.01, 0.1]}}, not {values!r}")
    options = {name: list(listed(f"the values of {name!r}", each, "[0.01, 0.1]")) for name, each in values.items()}
    lengths = {name: len(each) for name, each in options.items()}
    if len({*lengths.values()}) != 1 or 0 in lengths.values():
        raise ValueError(f"values must be a dict of sequences of one length, but their lengths are {lengths}")
    check_function("gradient", gradient, "a function of the parameters", 1)
    if loss is not None:
        check_function("loss", loss, "a function of the parameters, or None", 1)
    whole_number("steps", steps, least=0)
    true_or_false("vectorized", vectorized)
    copies = [optimizer(**dict(zip(options, each, strict=True))) for each in zip(*options.values(), strict=True)]
    problem = _Problem(params, len(copies), vectorized)
    losses = None if loss is None else np.empty((len(copies), steps + 1))
    update: Callable[[list[Array]], None] | None = None
    with np.errstate(all="ignore"):
        for t in range(steps + 1):
            if loss is not None and losses is not None:
                losses[:, t] = problem.losses(loss)
            if t < steps:
                grads = problem.gradients(gradient)
                if update is None:
                    fits = _fits_one_kernel(copies, problem, grads)
                    update = _JointUpdate(copies, problem) if fits else partial(_update_each, copies, problem)
                update(grads)
    return Sweep(options, losses, problem.params)


class _Problem:
    """The parameters of K copies of a problem, and the functions of them."""

    def __init__(self, params: Any, count: int, vectorized: bool) -> None:
        parameters = validate(params, params)
        self.keys = [each.key for each in parameters]
        self.shapes = [(count, *each.p.shape) for each in parameters]
        self._count, self._vectorized, self._is_dict = count, vectorized, isinstance(params, Mapping)
        dtypes = {each.p.dtype for each in parameters}
        self.block: Array | None = None
        if len(dtypes) == 1:
            # The elements of a copy are one row of this block, and a row of the kernel's table.
            self.block = np.empty((count, sum(each.p.size for each in parameters)), dtypes.pop())
            arrays = self.parts(self.block)
        else:
            arrays = [np.empty(shape, each.p.dtype) for shape, each in zip(self.shapes, parameters, strict=True)]
        for array, each in zip(arrays, parameters, strict=True):
            array[...] = each.p
        self.params = self.container(arrays)
        self.views = [self.container([array[k, ...] for array in arrays]) for k in range(count)]

    def parts(self, block: Array) -> list[Array]:
        """Return views of the parameters in a block, in each row of which they lie side by side."""
        stops = np.cumsum([int(np.prod(shape[1:])) for shape in self.shapes])[:-1]
        return [part.reshape(shape) for part, shape in zip(np.split(block, stops, axis=1), self.shapes, strict=True)]

    def container(self, arrays: list[Array]) -> Any:
        """Return arrays in a dict or list, as the parameters were given."""
        return dict(zip(self.keys, arrays, strict=True)) if self._is_dict else arrays

    def losses(self, loss: Callable[[Any], Any]) -> Array:
        """Return the losses of all copies."""
        losses = np.asarray(loss(self.params) if self._vectorized else [loss(view) for view in self.views])
        self._check("the loss", losses, (self._count,))
        if losses.dtype.kind not in "biuf":
            raise TypeError(f"loss must return real numbers, not {losses[0]!r}")
        return losses

    def gradients(self, gradient: Callable[[Any], Any]) -> list[Array]:
        """Return the gradients of each parameter for all copies."""
        owners = [self.params] if self._vectorized else self.views
        given: Any = [gradient(params) for params in owners]
        try:
            grads = [np.asarray(given[0][k] if self._vectorized else [each[k] for each in given]) for k in self.keys]
        except (IndexError, KeyError, TypeError):
            for params, each in zip(owners, given, strict=True):
                validate(params, each)
            raise
        for key, shape, g in zip(self.keys, self.shapes, grads, strict=True):
            if g.shape != shape:
                self._check(f"the gradient of {key!r}", g, shape)
        return grads

    def _check(self, what: str, array: Array, shape: tuple[int, ...]) -> None:
        if array.shape == shape:
            return
        if self._vectorized:
            hint = f"expected {shape}: with vectorized=True, a function takes and returns all {self._count} copies"
            raise ValueError(f"{what} has shape {array.shape}, {hint}")
        raise ValueError(f"{what} has shape {array.shape[1:]}, expected {shape[1:]}")


def _update_each(copies: list[Optimizer], problem: _Problem, grads: list[Array]) -> None:
    for k, (each, view) in enumerate(zip(copies, problem.views, strict=True)):
        each.update(view, problem.container([g[k, ...] for g in grads]))


def _fits_one_kernel(copies: list[Optimizer], problem: _Problem, grads: list[Array]) -> bool:
    """Tell whether a step needs only one composition, and scalars that do not depend on earlier steps."""
    first, composition = copies[0], compose_optimizer(copies[0])
    dtypes = {each.dtype for each in (problem.block, *grads) if each is not None}
    return (
        not (DISABLED or problem.block is None or composition.sums or composition.arrays)
        and len(dtypes) == 1
        and dtypes <= _DTYPES
        and type(first).update is Optimizer.update
        and not first.running
        and {*structure(first)} <= _ELEMENTWISE
        and all(
            type(each) is type(first)
            and compose_optimizer(each) is composition
            and each.on_nonfinite == "ignore"
            and each.state_dtype is None
            and not (vars(each)["_groups"] or vars(each)["_schedules"])
            for each in copies
        )
    )


class _JointUpdate:
    """Updates all copies by one call of one kernel, whose table has a row for each."""

    def __init__(self, copies: list[Optimizer], problem: _Problem) -> None:
        p, composition = problem.block, compose_optimizer(copies[0])
        assert p is not None
        g, state = np.empty_like(p), {slot: np.zeros_like(p) for slot in composition.slots}
        for k, each in enumerate(copies):
            for slot, value in {**each.initial_state(), "slow": "p"}.items():
                if slot in state:
                    state[slot][k] = p[k] if value == "p" else value
        values = np.zeros((len(copies), n_scalars(composition.rule, composition.slots)))
        rows = block_table(values, (p, g, *state.values()))
        kernel = fuse(composition.rule, (p.dtype.type,) * (2 + len(state)))
        self._run = Autotuner([(kernel.address, address(rows), 0, p.size)]).run
        # Keep the arrays alive: the kernel only has their addresses.
        self._kept = rows, state, kernel
        self._keys, self._grads = problem.keys, problem.parts(g)
        self._set_scalars = _ScalarTable(copies, composition, values)

    def __call__(self, grads: list[Array]) -> None:
        for key, target, g in zip(self._keys, self._grads, grads, strict=True):
            if g.dtype != target.dtype:
                raise TypeError(f"the gradient of {key!r} is of dtype {g.dtype}, and was of {target.dtype} before")
            target[...] = g
        self._set_scalars()
        self._run()


class _Lanes(np.ndarray[Any, Any]):
    """One number for each copy. Functions of single numbers and conditions raise `TypeError` or `ValueError` on it.

    Arithmetic has the same bits as with Python's floats. NumPy's powers may not, so Python computes them.
    """

    def __pow__(self, exponent: Any) -> Any:  # type: ignore[override]
        return (np.array(self, object) ** exponent).astype(float).view(_Lanes)

    def __rpow__(self, base: Any) -> Any:  # type: ignore[override]
        return (base ** np.array(self, object)).astype(float).view(_Lanes)


def _lanes(copies: list[Optimizer]) -> Optimizer | None:
    """Return an optimizer with the hyperparameters of all copies as `_Lanes`, or None if others than floats differ."""
    lanes = copy.copy(copies[0])
    for name in vars(lanes).keys() - vars(Optimizer()).keys():
        column = [vars(each).get(name) for each in copies]
        if all(type(value) is float for value in column) and len({*column}) > 1:
            vars(lanes)[name] = np.array(column).view(_Lanes)
        elif any(value is not column[0] and type(value) is not float for value in column):
            return None
    return lanes


class _ScalarTable:
    """Enters the scalars of each step, computed once for all copies if `scalars` does only arithmetic."""

    def __init__(self, copies: list[Optimizer], composition: Composition, values: Array) -> None:
        self._copies, self._composition, self._values = copies, composition, values
        self._lanes = _lanes(copies) if len(copies) > 1 else None
        self._last: list[Any] = [None] * values.shape[1]
        self._pack = struct.Struct(f"{values.shape[1]}d").pack_into
        self._has_further = bool(composition.scalars)
        self._steps = 0

    def __call__(self) -> None:
        self._steps += 1
        if self._lanes is not None:
            try:
                columns = self._scalars(self._lanes)
            except (TypeError, ValueError):
                self._lanes = None
            else:
                for k, column in enumerate(columns):
                    last = self._last[k]
                    if column is not last and (type(column) is not float or column != last):
                        self._values[:, k] = self._last[k] = column
                return
        for row, each in zip(self._values, self._copies, strict=True):
            values = self._scalars(each)
            try:
                self._pack(row.data, 0, *values)
            except struct.error:
                raise self._composition.error(values) from None

    def _scalars(self, optimizer: Optimizer) -> tuple[Any, ...]:
        vars(optimizer)["iter"] = self._steps
        values = optimizer.scalars()
        if len(values) != self._composition.n_rule_scalars:
            raise self._composition.error(values)
        return (*values, *self._composition.further_scalars(optimizer)) if self._has_further else values
