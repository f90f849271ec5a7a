"""How to run one update: tasks that only write, and whether the next update can run the same ones."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, pairwise
from typing import Any, ClassVar

import numpy as np

from fastoptim.entries import KERNEL_TYPES, Array, Entry, State, attach, check_finite, checked
from fastoptim.interpret import AllOrNothing, Interpret, Rule
from fastoptim.kernels import ndarray as row
from fastoptim.kernels.finite import finite
from fastoptim.kernels.fuse import fuse, n_scalars
from fastoptim.kernels.launch import Launch
from fastoptim.parameters import FlatDict, Layout, packed_strides
from fastoptim.spans import Spans, address, blank, is_walkable, laid_out_copy, spans_of, touches

__all__ = ["Plan"]


class _Launch:
    """One kernel over one table of rows, each an array that lies in memory as its gradient and state do."""

    def __init__(self, rule: Rule, entries: list[Entry], scalars: Array) -> None:
        first = entries[0]
        n_slots = len(first.slots)
        self.itemsize = first.p.itemsize
        width = row.SLOTS + n_slots
        words = np.zeros((len(entries) + 1) * width - row.WIDTH, np.intp)
        words[0] = width
        self.found, self.done = words[1:2], words[2:3]
        self.table = words[3:].reshape(-1, width)
        self.table[1:, row.START] = np.cumsum([entry.p.size for entry in entries])
        self.table[:, row.VALUE] = address(scalars)
        views = []
        for words, entry in zip(self.table, entries, strict=False):
            views.append(np.asarray(entry.value).view())
            words[row.ID] = id(entry.value)
            words[row.VIEW] = id(views[-1])
            words[row.P :] = [address(array) for array in (entry.p, entry.g, *entry.slots)]
        self.rows = address(self.table)
        self.type = KERNEL_TYPES[first.p.dtype]
        self.total = int(self.table[-1, row.START])
        self.run = Launch(fuse(rule, n_slots, self.type).address, self.rows, self.total).run
        self.keys = [entry.key for entry in entries]
        # The rows hold addresses, so what they point to for more than one step must live as long as they do.
        self.arrays = [(entry.value, entry.p, *entry.slots) for entry in entries]
        self.views = views

    def __call__(self, _scalars: tuple[float, ...]) -> None:
        self.run()

    @cached_property
    def _search(self) -> Launch:
        return Launch(finite(self.type).address, self.rows, self.total)

    def finds_nonfinite(self) -> bool:
        """Tell whether any gradient is NaN or infinite."""
        self.found[0] = 0
        self._search.run()
        self.done[0] = 0  # That was the search, not the step.
        return bool(self.found[0])


@dataclass(frozen=True, slots=True)
class _Copy:
    """Bring an array to where a kernel can walk over it, or back."""

    source: Array
    target: Array
    done: ClassVar = (False,)

    def __call__(self, _scalars: tuple[float, ...]) -> None:
        np.copyto(self.target, self.source)


Arrays = tuple[tuple[Any, ...], tuple[Any, ...]]
"""Parameters and gradients, each in the order of the rows."""

Renew = Callable[[Any, Any], Sequence[Any] | None]
"""Point launches to the gradients of the next step; return the arrays, to be held until then, or None if that fails."""


class _Refresh:
    """Point one table of rows to the gradients of the next step."""

    def __init__(self, launched: _Launch, spans: Spans, views: Sequence[Array] = ()) -> None:
        span_table = np.array(spans, np.intp)
        guarded = np.array([id(view) for view in views], np.intp)
        self.check = np.array(
            [
                *(launched.rows, len(launched.keys), launched.table.shape[1], launched.itemsize),
                *(address(span_table), len(spans), address(guarded), len(guarded), id(np.ndarray)),
            ],
            np.intp,
        )
        self.spans = spans
        self.held = (launched, span_table, views, guarded)

    def with_copies(self, arrays: Arrays) -> Arrays | None:
        """Try once more with copies of those gradients that do not lie in memory as their parameters do."""
        params, grads = arrays
        laid_out = tuple(map(self._laid_out, params, grads))
        if all(map(operator.is_, laid_out, grads)):
            return None
        arrays = params, laid_out
        return arrays if row.refresh(address(self.check), id(arrays)) else None

    def _laid_out(self, p: Any, g: Any) -> Any:
        same_kind = isinstance(p, np.ndarray) and type(g) is np.ndarray and g.shape == p.shape and g.dtype == p.dtype
        return laid_out_copy(g, packed_strides(p)) if same_kind and not touches(self.spans, g) else g


def _renewal(launched: _Launch, spans: Spans, params: Any, grads: Any) -> Renew:
    refreshes, n_params = _Refresh(launched, spans), len(params)
    keys, of_params, of_grads = launched.keys, type(params), type(grads)
    get: Any = operator.itemgetter(*keys) if len(keys) > 1 else lambda arrays: (arrays[keys[0]],)
    refresh, check, with_copies = row.refresh, address(refreshes.check), refreshes.with_copies

    def renew(params: Any, grads: Any) -> Arrays | None:
        # What was found fit was a container of this type; an array can be asked for keys as well.
        if type(params) is not of_params or type(grads) is not of_grads:
            return None
        try:
            if len(params) != n_params:
                return None
            arrays = get(params), get(grads)
        except (IndexError, KeyError, TypeError):
            return None
        return arrays if refresh(check, id(arrays)) else with_copies(arrays)

    return renew


def _flat_renewal(launched: _Launch, spans: Spans, params: FlatDict, grads: FlatDict) -> Renew:
    refreshes = _Refresh(launched, spans, list(params.values()))
    first, second = params.layout, grads.layout
    refresh, check, with_copies = row.refresh, address(refreshes.check), refreshes.with_copies

    def renew(params: Any, grads: Any) -> Arrays | None:
        try:
            # No two dicts share a buffer, so that of the parameters tells their layout as well.
            layout = grads.layout
            if layout is not first and layout is not second:
                return None
            arrays = (params._flat,), (grads._flat,)
        except AttributeError:
            return None
        return arrays if refresh(check, id(arrays)) else with_copies(arrays)

    return renew


def _never(_params: Any, _grads: Any) -> None:
    return None


def _renew_all(renewals: list[Renew]) -> Renew:
    def renew(params: Any, grads: Any) -> Sequence[Any] | None:
        held = [renewal(params, grads) for renewal in renewals]
        return None if None in held else held

    return renewals[0] if len(renewals) == 1 else renew


def _checked(renew: Renew, launches: list[_Launch]) -> Renew:
    def renew_checked(params: Any, grads: Any) -> Sequence[Any] | None:
        held = renew(params, grads)
        if held is not None and any(launched.finds_nonfinite() for launched in launches):
            check_finite(checked(params, grads))
        return held

    return renew_checked


class Plan:
    """How to run one update, and perhaps the next ones.

    Parameters
    ----------
    rule : function
        The rule to run.
    slots : tuple of str
        Names of its state.
    params, grads : dict or list
        As given to `Optimizer.update`.
    entries : list of Entry
        What was found in them, to be held until the plan has run.
    state : dict or None
        The state so far; None to begin with zeros.
    checks_gradients : bool
        Whether gradients that are not finite are an error.

    Attributes
    ----------
    rule, state
        What it was made for. The state is new if there was none.
    renew : callable
        ``renew(params, grads)`` turns to the next step, if nothing has changed but the numbers and where the gradients
        are: it returns the arrays, to be held until the plan has run, or None if another plan must be made.
    set_scalars : callable
        Takes the scalars of a step; raises `struct.error` if they are not as many numbers as the rule takes.
    run : callable
        Writes.
    done : sequence
        Of one element, which is true when `run` has written everything, even if an interruption came before it
        returned. As long as it is false, nothing has been written.

    Raises
    ------
    KeyError, TypeError, ValueError, NonFiniteGradients
        If anything forbids the update, here and in ``renew``. Nothing has been written then.
    """

    def __init__(
        self,
        rule: Rule,
        slots: tuple[str, ...],
        params: Any,
        grads: Any,
        entries: list[Entry],
        state: State | None,
        checks_gradients: bool,
    ) -> None:
        if state is None:
            layout = Layout.of((entry.key, entry.p) for entry in entries)
            state = {name: FlatDict.zeros(layout) for name in slots}
        attach(entries, state)
        self.rule = rule
        self.state = state
        # The kernels read the scalars of a step from here.
        self._scalars = np.zeros(n_scalars(rule, slots))
        if checks_gradients:
            # Last: what does not fit is an error, also where such gradients are only skipped.
            check_finite(entries)
        self.set_scalars = partial(struct.Struct(f"{self._scalars.size}d").pack_into, self._scalars.data, 0)
        self.renew: Renew = _never
        self._tasks = self._schedule(entries, params, grads)
        only = self._tasks[0] if len(self._tasks) == 1 else None
        self.run: Callable[[], None] = only.run if isinstance(only, _Launch) else self._run_all
        # Once one task has written, all of them run.
        self.done: Any = next((task.done for task in reversed(self._tasks) if not isinstance(task, _Copy)), (False,))
        if checks_gradients and self.is_renewable:
            self.renew = _checked(self.renew, self._tasks)

    def _schedule(self, entries: list[Entry], params: Any, grads: Any) -> list[Any]:
        buffers = [buffer for arrays in self.state.values() for buffer in arrays.buffers.values()]
        spans = spans_of([entry.p for entry in entries] + buffers)
        overlap = any(a[1] > b[0] for a, b in pairwise(spans)) or any(touches(spans, entry.g) for entry in entries)
        if overlap:
            # One parameter is to see what the update of the one before it wrote, as in a loop over the keys.
            tasks = list(chain.from_iterable(chain(*self._tasks_of([entry], params)) for entry in entries))
            return [AllOrNothing(tasks, params, entries)]
        is_flat = self._is_flat(entries, params, grads)
        if is_flat:
            slots = [arrays.flat for arrays in self.state.values()]
            entries = [Entry(None, params.flat, grads.flat, params.flat, grads.flat, slots)]
        interpreted, before, launches, after = self._tasks_of(entries, params)
        if interpreted:
            interpreted = [AllOrNothing(interpreted, params, [task.entry for task in interpreted])]
        elif launches and not after:
            for copy_gradient in before:
                copy_gradient(())
            before = []
            renewal = _flat_renewal if is_flat else _renewal
            self.renew = _renew_all([renewal(launched, spans, params, grads) for launched in launches])
        return [*interpreted, *before, *launches, *after]

    def _is_flat(self, entries: list[Entry], params: Any, grads: Any) -> bool:
        dicts = (params, grads, *self.state.values())
        return (
            all(isinstance(arrays, FlatDict) and arrays.layout == params.layout for arrays in dicts)
            and len(params.layout.sizes) == 1
            and all(entry.dtype is not None for entry in entries)
        )

    def _tasks_of(self, entries: list[Entry], params: Any) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        interpreted, before, after = [], [], []
        compiled: dict[np.dtype[Any], list[Entry]] = {}
        for entry in entries:
            entry.is_aliased = touches(spans_of([entry.p, *entry.slots]), entry.g) or touches(
                spans_of(entry.slots), entry.p
            )
            if entry.dtype is None or entry.is_aliased:
                interpreted.append(Interpret(self.rule, params, entry))
                continue
            strides = entry.slots[0].strides if entry.slots else packed_strides(entry.p)
            p = entry.p
            if not is_walkable(p, strides):
                p = blank(p, strides)
                before.append(_Copy(entry.p, p))
                after.append(_Copy(p, entry.p))
            if not is_walkable(entry.g, strides):
                # The entry holds the copy as it holds all gradients: until the plan has run.
                gradient, entry.g = entry.g, blank(entry.g, strides)
                before.append(_Copy(gradient, entry.g))
            compiled.setdefault(entry.dtype, []).append(replace(entry, p=p))
        launches = [_Launch(self.rule, group, self._scalars) for group in compiled.values()]
        return interpreted, before, launches, after

    @property
    def is_renewable(self) -> bool:
        """Whether `renew` can succeed."""
        return self.renew is not _never

    def complaint(self, values: Any) -> TypeError:
        """Return the error to raise where `set_scalars` failed."""
        return TypeError(
            f"hyperparameters must be numbers: scalars() must return a tuple of the {self._scalars.size} numbers "
            f"that the rule takes after its state, but it returned {values!r}"
        )

    def _run_all(self) -> None:
        scalars = tuple(self._scalars.tolist())
        tasks, task = iter(self._tasks), None
        try:
            for task in tasks:
                task(scalars)
        except BaseException:
            # An interpreted rule may raise, but comes first and puts everything back. Anything else is an interruption,
            # such as KeyboardInterrupt, and must not leave half of a step behind.
            if task is not None and (task.done[0] or not isinstance(task, AllOrNothing)):
                for unfinished in [] if task.done[0] else [task], tasks:
                    for task in unfinished:
                        task(scalars)
            raise
