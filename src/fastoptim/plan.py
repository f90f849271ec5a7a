"""How to run one update: tasks that only write, and whether the next update can run the same ones."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from typing import Any

import numpy as np

from fastoptim.entries import KERNEL_TYPES, Array, Entry, State, attach
from fastoptim.interpret import AllOrNothing, Interpret, Rule, Task
from fastoptim.kernels import ndarray as row
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
        self.table = np.zeros((len(entries) + 1, row.SLOTS + n_slots), np.intp)
        self.table[1:, row.START] = np.cumsum([entry.p.size for entry in entries])
        self.table[:, row.VALUE] = address(scalars)
        views = []
        for words, entry in zip(self.table, entries, strict=False):
            views.append(np.asarray(entry.value).view())
            words[row.ID] = id(entry.value)
            words[row.VIEW] = id(views[-1])
            words[row.P :] = [address(array) for array in (entry.p, entry.g, *entry.slots)]
        self.rows = address(self.table)
        kernel = fuse(rule, n_slots, KERNEL_TYPES[first.p.dtype]).address
        self.run = Launch(kernel, self.rows, int(self.table[-1, row.START])).run
        self.keys = [entry.key for entry in entries]
        # The rows hold addresses, so what they point to for more than one step must live as long as they do.
        self.arrays = [(entry.value, entry.p, *entry.slots) for entry in entries]
        self.views = views

    def __call__(self, _scalars: tuple[float, ...]) -> None:
        self.run()


@dataclass(frozen=True, slots=True)
class _Copy:
    """Bring an array to where a kernel can walk over it, or back."""

    source: Array
    target: Array

    def __call__(self, _scalars: tuple[float, ...]) -> None:
        np.copyto(self.target, self.source)


Getter = Callable[[Any], tuple[Any, ...]]
Renew = Callable[[Any, Any], Sequence[Any] | None]
"""Point launches to the gradients of the next step; return the arrays, to be held until then, or None if that fails."""


def _renewal(launched: _Launch, get: Getter, n_params: int, spans: Spans, views: Sequence[Array]) -> Renew:
    span_table = np.array(spans, np.intp)
    guarded = np.array([id(view) for view in views], np.intp)
    table = launched.table
    check = np.array(
        [
            *(launched.rows, *(table.shape[0] - 1, table.shape[1]), launched.itemsize),
            *(address(span_table), len(spans), address(guarded), len(guarded), id(np.ndarray)),
        ],
        np.intp,
    )
    where, refresh = address(check), row.refresh
    held = (check, launched, span_table, views, guarded)

    def renew(params: Any, grads: Any, _held: Any = held) -> Sequence[Any] | None:
        try:
            if len(params) != n_params:
                return None
            arrays = get(params) + get(grads)
        except (AttributeError, IndexError, KeyError, TypeError):
            return None
        if refresh(where, id(arrays)):
            return arrays
        arrays = _with_gradients_laid_out(arrays, spans)
        return arrays if refresh(where, id(arrays)) else None

    return renew


def _with_gradients_laid_out(arrays: tuple[Any, ...], spans: Spans) -> tuple[Any, ...]:
    """Copy the gradients that would fit, did they only lie in memory as their parameters do."""
    half = len(arrays) // 2

    def laid_out(p: Any, g: Any) -> Any:
        same_kind = isinstance(p, np.ndarray) and type(g) is np.ndarray and g.shape == p.shape and g.dtype == p.dtype
        return laid_out_copy(g, packed_strides(p)) if same_kind and not touches(spans, g) else g

    return (*arrays[:half], *map(laid_out, arrays[:half], arrays[half:]))


def _never(_params: Any, _grads: Any) -> None:
    return None


def _renew_all(renewals: list[Renew]) -> Renew:
    def renew(params: Any, grads: Any) -> Sequence[Any] | None:
        held = [renewal(params, grads) for renewal in renewals]
        return None if None in held else held

    return renewals[0] if len(renewals) == 1 else renew


def _getter(keys: list[Any], of_list: bool) -> Getter:
    values: Getter = operator.itemgetter(*keys) if len(keys) > 1 else lambda arrays: (arrays[keys[0]],)

    def get(arrays: Any) -> tuple[Any, ...]:
        if isinstance(arrays, (list, tuple)) is not of_list:
            raise TypeError("another container")
        return values(arrays)

    # Only whole numbers can be taken for positions of a list as well as for keys of a dict.
    return get if any(isinstance(key, int) for key in keys) else values


def _flat_getter(first: Layout, second: Layout) -> Getter:
    def get(arrays: Any) -> tuple[Any, ...]:
        if arrays.layout is not first and arrays.layout is not second:
            raise KeyError("another layout")
        return (arrays.flat,)

    return get


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

    Raises
    ------
    KeyError, TypeError, ValueError
        If anything forbids the update. Nothing has been written then.
    """

    def __init__(
        self, rule: Rule, slots: tuple[str, ...], params: Any, grads: Any, entries: list[Entry], state: State | None
    ) -> None:
        if state is None:
            layout = Layout.of((entry.key, entry.p) for entry in entries)
            state = {name: FlatDict.zeros(layout) for name in slots}
        attach(entries, state)
        self.rule = rule
        self.state = state
        # The kernels read the scalars of a step from here.
        self._scalars = np.zeros(n_scalars(rule, slots))
        self.set_scalars = partial(struct.Struct(f"{self._scalars.size}d").pack_into, self._scalars.data, 0)
        self.renew: Renew = _never
        self._tasks = self._schedule(entries, params, grads)
        only = self._tasks[0] if len(self._tasks) == 1 else None
        self.run: Callable[[], None] = only.run if isinstance(only, _Launch) else self._run_all

    def _schedule(self, entries: list[Entry], params: Any, grads: Any) -> list[Task]:
        buffers = [buffer for arrays in self.state.values() for buffer in arrays.buffers.values()]
        spans = spans_of([entry.p for entry in entries] + buffers)
        overlap = any(a[1] > b[0] for a, b in pairwise(spans)) or any(touches(spans, entry.g) for entry in entries)
        if overlap:
            # One parameter is to see what the update of the one before it wrote, as in a loop over the keys.
            tasks = list(chain.from_iterable(chain(*self._tasks_of([entry], params)) for entry in entries))
            return [AllOrNothing(tasks, params, entries)]
        if self._is_flat(entries, params, grads):
            slots = [arrays.flat for arrays in self.state.values()]
            entries = [Entry(None, params.flat, grads.flat, params.flat, grads.flat, slots)]
        interpreted, before, launches, after = self._tasks_of(entries, params)
        if interpreted:
            interpreted = [AllOrNothing(interpreted, params, [task.entry for task in interpreted])]
        elif launches and not after:
            for copy_gradient in before:
                copy_gradient(())
            before = []
            self.renew = self._renewal(launches, spans, params, grads)
        return [*interpreted, *before, *launches, *after]

    def _renewal(self, launches: list[_Launch], spans: Spans, params: Any, grads: Any) -> Renew:
        if launches[0].arrays[0][0] is getattr(params, "flat", None):
            flat = _flat_getter(params.layout, grads.layout)
            return _renewal(launches[0], flat, len(params), spans, list(params.values()))
        getters = [_getter(task.keys, isinstance(params, list | tuple)) for task in launches]
        return _renew_all(
            [_renewal(task, get, len(params), spans, []) for task, get in zip(launches, getters, strict=True)]
        )

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
        for task in self._tasks:
            task(scalars)
