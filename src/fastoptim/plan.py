"""The plan of an update: made once for parameters of some shapes and dtypes, bound to new arrays at each step."""

from __future__ import annotations

import operator
import struct
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastoptim.fallback import FallbackTask, Rule
from fastoptim.kernels import table
from fastoptim.kernels.fuse import n_scalars
from fastoptim.kerneltask import Arrays, KernelTask, Row
from fastoptim.layout import merged, overlapping_groups, touches
from fastoptim.numbertask import NumberTask
from fastoptim.parameters import FlatDict
from fastoptim.state import State, attach_state
from fastoptim.validate import Array, NonFiniteGradients, Parameter, items_getter

__all__ = ["Plan"]


class Plan:
    """How to run one update, and the next ones with arrays of the same shapes, dtypes and strides.

    Parameters
    ----------
    rule : function
        The rule to run.
    slots : tuple of str
        Names of its state.
    params, grads : dict or list
        As given to `Optimizer.update`.
    parameters : list of Parameter
        What was found in them; the plan is bound to these.
    state : dict or None
        The state so far; None to begin with zeros.
    checks_finite : bool
        Whether gradients that are not finite are an error.

    Attributes
    ----------
    rule, state
        What it was made for. The state is new if there was none, or if a dtype changed.
    bind : callable
        ``bind(params, grads)`` begins the next step: it returns the arrays, which must be kept alive until the plan has
        run because kernels only have their addresses, or None if another plan must be made.
    set_scalars : callable
        Takes the scalars of a step; raises `struct.error` if they are not as many numbers as the rule takes.
    run : callable
        Writes.
    committed : ndarray
        Of one word: 0 as long as nothing has been written, 1 once the step cannot be undone.
    is_reusable : bool
        Whether `bind` can succeed.

    Raises
    ------
    KeyError, TypeError, ValueError, NonFiniteGradients
        If anything forbids the update, here and in ``bind``. Nothing has been written then.
    """

    def __init__(
        self,
        rule: Rule,
        slots: tuple[str, ...],
        params: Any,
        grads: Any,
        parameters: list[Parameter],
        state: State | None,
        checks_finite: bool,
    ) -> None:
        count = n_scalars(rule, slots)
        self.rule = rule
        self.state = attach_state(rule, slots, count, parameters, state)
        self._scalars = np.zeros(count)
        self.set_scalars: Callable[..., None] = partial(struct.Struct(f"{count}d").pack_into, self._scalars.data, 0)
        self._order = [parameter.key for parameter in parameters]
        flat = None if any(parameter.before for parameter in parameters) else self._as_one(params, grads)
        self._is_flat = flat is not None
        numbers, number_rows = self._number_rows(parameters, params, grads)
        self._numbers = numbers
        taken = {id(parameter) for parameter in numbers.parameters} if numbers else set()
        rest = [parameter for parameter in parameters if id(parameter) not in taken]
        segments, others, may_move = self._sort([flat] if flat else rest, params)
        buffers = [buffer for arrays in self.state.values() for buffer in arrays.buffers.values()]
        self._kernels = KernelTask(
            segments,
            others,
            number_rows,
            scalars=self._scalars,
            ranges=[byte_bounds(buffer) for buffer in buffers if buffer.size],
            views=list(params.values()) if flat else [],
            may_move=may_move and not flat,
        )
        self.committed: Array = self._kernels.committed
        self.is_reusable = all(task.is_reusable for task in self._fallbacks)
        bind = self._bind_flat(params, grads) if flat else self._bind_by_key(params, grads)
        self.bind: Callable[[Any, Any], Arrays | None] = self._with_check(bind) if checks_finite else bind
        if checks_finite:
            # Last: what does not fit is an error, also where such gradients are only skipped.
            rows = [row.parameter for segment in segments for row in segment] + [row.parameter for row in others]
            self._check_finite(([row.value for row in rows], [row.gradient for row in rows]), grads)
        has_kernels = bool(segments or numbers)
        self._commit = self._kernels.run if has_kernels else partial(operator.setitem, self.committed, 0, 1)
        self.run: Callable[[], None] = self._run_all if self._fallbacks else self._run_kernels
        if not numbers and not self._fallbacks:
            self.run = self._commit

    def error(self, values: Any) -> TypeError:
        """Return the error to raise where `set_scalars` failed."""
        return TypeError(
            f"hyperparameters must be numbers: scalars() must return a tuple of the {self._scalars.size} numbers "
            f"that the rule takes after its state, but it returned {values!r}"
        )

    def _as_one(self, params: Any, grads: Any) -> Parameter | None:
        """Return the buffers of flat dicts as one parameter, if all are packed alike and do not overlap."""
        dicts = (params, grads, *self.state.values())
        if not all(isinstance(each, FlatDict) and each.layout.packs_like(params.layout) for each in dicts):
            return None
        if len(params.buffers) != 1 or not params.flat.flags.writeable:
            return None
        p, g, *slots = (each.flat for each in dicts)
        if merged([byte_bounds(array) for array in (p, g, *slots) if array.size])[1]:
            return None
        return Parameter(None, p, g, p, g, slots)

    def _number_rows(self, parameters: list[Parameter], params: Any, grads: Any) -> tuple[NumberTask | None, list[Row]]:
        """Return the task of the numbers among the parameters, and rows that stand for them, if a kernel takes them."""
        numbers = [parameter for parameter in parameters if NumberTask.takes(parameter)]
        rest = [parameter for parameter in parameters if not NumberTask.takes(parameter)]
        state, _ = merged([byte_bounds(slot) for parameter in numbers for slot in parameter.slots])
        # What shares memory must be updated in the order of the keys, which the fallback does.
        if not numbers or any(touches(state, array) for parameter in rest for array in (parameter.p, parameter.g)):
            return None, []
        task = NumberTask(params, grads, numbers)
        try:
            return task, [Row.of(copy, self.rule) for copy in task.copies]
        except TypeError:
            # What cannot be compiled may still run on numbers.
            return None, []

    def _sort(self, parameters: list[Parameter], params: Any) -> tuple[list[list[Row]], list[Row], bool]:
        """Sort parameters into the segments of the kernels and the tasks of the fallback.

        Returns
        -------
        segments : list of list of Row
            Those that kernels update.
        others : list of Row
            Arrays that the fallback updates.
        may_move : bool
            Whether no two parameters overlap.
        """
        alike: dict[Any, list[Row]] = {}
        in_turn: list[list[Row]] = []
        alone: list[Row] = []
        self._fallbacks: list[FallbackTask] = []
        others: list[Row] = []
        groups, overlap = _groups(parameters)
        for group in groups:
            aliased = overlap and any(map(_is_aliased, group))
            rows = [Row(parameter) if aliased else Row.of(parameter, self.rule) for parameter in group]
            if overlap:
                written, _ = merged([byte_bounds(array) for parameter in group for array in _written(parameter)])
                for row in rows:
                    row.fixed = touches(written, row.parameter.g)
            if aliased or (len(group) > 1 and any(row.kernel is None for row in rows)):
                self._fallbacks.append(self._fallback(rows, params, others, in_place=True))
            elif len(group) > 1:
                # Each parameter must see what the one before it wrote.
                in_turn += [[row] for row in rows]
            elif rows[0].kernel is None:
                alone += rows
            else:
                alike.setdefault((rows[0].kinds, rows[0].strided), []).append(rows[0])
        if alone:
            self._fallbacks.append(self._fallback(alone, params, others, in_place=False))
        return [*alike.values(), *in_turn], others, not overlap

    def _fallback(self, group: list[Row], params: Any, others: list[Row], *, in_place: bool) -> FallbackTask:
        places = []
        for row in group:
            places.append(len(others) if row.has_arrays else -1)
            if row.has_arrays:
                others.append(Row(row.parameter, fixed=row.fixed))
        return FallbackTask(self.rule, params, [row.parameter for row in group], places, in_place=in_place)

    # Beginning a step.

    def _bind_flat(self, params: FlatDict, grads: FlatDict) -> Callable[[Any, Any], Arrays | None]:
        # A reference to the dict would keep its memory alive until the next update.
        expected: Any = weakref.ref(params)
        first, second = params.layout, grads.layout
        rebind, bind_rows, check = self._kernels.rebind, table.bind, self._kernels.check

        def bind(params: Any, grads: Any) -> Arrays | None:
            if params is not expected():
                return None
            try:
                layout = grads.layout
                if layout is not first and layout is not second and layout not in (first, second):
                    return None
                arrays = (params._flat,), (grads._flat,)
            except AttributeError:
                return None
            return arrays if bind_rows(check, id(arrays)) else rebind(arrays)

        return self._with_tasks(bind) if self._fallbacks else bind

    def _bind_by_key(self, params: Any, grads: Any) -> Callable[[Any, Any], Arrays | None]:
        n_params, of_params, of_grads = len(params), type(params), type(grads)
        keys, rebind, bind_rows, check = self._kernels.keys, self._kernels.rebind, table.bind, self._kernels.check
        get_params, get_grads = items_getter(keys, of_params), items_getter(keys, of_grads)

        def bind(params: Any, grads: Any) -> Arrays | None:
            # The plan fits containers of these types; an array can be asked for keys as well.
            if type(params) is not of_params or type(grads) is not of_grads:
                return None
            try:
                if len(params) != n_params:
                    return None
                arrays = get_params(params), get_grads(grads)
            except (IndexError, KeyError, TypeError):
                return None
            return arrays if bind_rows(check, id(arrays)) else rebind(arrays)

        if not keys and not self._fallbacks and self._numbers:
            return self._bind_numbers(self._numbers, params, grads)
        return self._with_tasks(bind) if self._numbers or self._fallbacks else bind

    def _bind_numbers(self, numbers: NumberTask, params: Any, grads: Any) -> Callable[[Any, Any], Arrays | None]:
        n_params, of_params, of_grads = len(params), type(params), type(grads)
        committed, bind_numbers = self.committed, numbers.bind

        def bind(params: Any, grads: Any) -> Arrays | None:
            if type(params) is not of_params or type(grads) is not of_grads or len(params) != n_params:
                return None
            committed[0] = 0
            return ((), ()) if bind_numbers(params, grads) else None

        return bind

    def _with_tasks(self, bind_rows: Callable[[Any, Any], Arrays | None]) -> Callable[[Any, Any], Arrays | None]:
        n_rows = len(self._kernels.keys) - sum(task.n_rows for task in self._fallbacks)
        numbers, fallbacks = self._numbers, self._fallbacks

        def bind(params: Any, grads: Any) -> Arrays | None:
            arrays = bind_rows(params, grads)
            if arrays is None:
                return None
            try:
                others = arrays[0][n_rows:], arrays[1][n_rows:]
                fits = all(task.bind(params, grads, others) for task in fallbacks)
            except (IndexError, KeyError, TypeError):
                return None
            return arrays if fits and (numbers is None or numbers.bind(params, grads)) else None

        return bind

    def _with_check(self, bind_all: Callable[[Any, Any], Arrays | None]) -> Callable[[Any, Any], Arrays | None]:
        def bind(params: Any, grads: Any) -> Arrays | None:
            arrays = bind_all(params, grads)
            if arrays is not None:
                self._check_finite(arrays, grads)
            return arrays

        return bind

    def _check_finite(self, arrays: Arrays, grads: Any) -> None:
        keys = self._kernels.nonfinite_keys(arrays)
        keys += [key for task in self._fallbacks for key in task.nonfinite_keys()]
        if keys == [None] and self._is_flat:
            keys = [key for key, g in grads.items() if not np.isfinite(g).all()]
        if keys:
            # The plan may be kept, but the step is not taken.
            self._release()
            found = set(keys)
            raise NonFiniteGradients([key for key in self._order if key in found])

    # Taking a step.

    def _run_kernels(self) -> None:
        numbers: Any = self._numbers
        try:
            self._commit()
            numbers.write()
        except BaseException:
            # An interruption, such as KeyboardInterrupt, must not leave half of a step behind.
            if self.committed[0]:
                numbers.write()
            raise

    def _run_all(self) -> None:
        scalars = tuple(self._scalars.tolist())
        writers: list[Any] = [*self._fallbacks, *([self._numbers] if self._numbers else [])]
        try:
            for task in self._fallbacks:
                task.prepare(scalars)
            self._commit()
            for writer in writers:
                writer.write()
        except BaseException:
            if self.committed[0]:
                for writer in writers:
                    writer.write()
            else:
                for task in self._fallbacks:
                    task.rollback()
            raise
        finally:
            self._release()

    def _release(self) -> None:
        for task in self._fallbacks:
            task.release()
        if self._numbers:
            self._numbers.release()


def _written(parameter: Parameter) -> list[Array]:
    return [parameter.p, *parameter.slots]


def _groups(parameters: list[Parameter]) -> tuple[list[list[Parameter]], bool]:
    """Return groups of parameters that share memory, and whether anything overlaps at all."""
    ranges, overlap = merged([byte_bounds(array) for parameter in parameters for array in _written(parameter)])
    if not overlap and not any(touches(ranges, parameter.g) for parameter in parameters):
        return [[parameter] for parameter in parameters], False
    groups = overlapping_groups([_written(p) for p in parameters], [p.g for p in parameters])
    return [[parameters[k] for k in group] for group in groups], True


def _is_aliased(parameter: Parameter) -> bool:
    """Tell whether the gradient shares memory with what is written, or the parameter with its state."""
    slots, _ = merged([byte_bounds(slot) for slot in parameter.slots])
    return touches(slots, parameter.p) or touches(merged([byte_bounds(parameter.p), *slots])[0], parameter.g)
