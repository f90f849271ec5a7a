"""How to run one update: tasks that only write, and whether the next update can run the same ones."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastoptim.entries import KERNEL_TYPES, Array, Entry, State, attach
from fastoptim.kernels import ndarray as row
from fastoptim.kernels.fuse import fuse, n_scalars
from fastoptim.kernels.launch import Launch
from fastoptim.parameters import FlatDict, Layout, packed_strides

__all__ = ["Plan"]

Rule = Callable[..., Any]
Task = Callable[[tuple[float, ...]], None]
"""One piece of an update, ready to run with the scalars of the step."""


# Memory


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _spans(arrays: list[Array]) -> list[tuple[int, int]]:
    return sorted(byte_bounds(array) for array in arrays if array.size)


def _touches(spans: list[tuple[int, int]], array: Array) -> bool:
    if not array.size:
        return False
    start, stop = byte_bounds(array)
    k = bisect_right(spans, stop - 1, key=itemgetter(0))
    return k > 0 and spans[k - 1][1] > start


def _walkable(array: Array, strides: tuple[int, ...]) -> bool:
    # The stride of a dimension of one element has no meaning.
    same = all(n == 1 or a == b for n, a, b in zip(array.shape, array.strides, strides, strict=True))
    return array.size == 0 or (same and array.flags.aligned)


def _blank(like: Array, strides: tuple[int, ...]) -> Array:
    return np.ndarray(like.shape, like.dtype, np.empty(like.size, like.dtype), 0, strides)


# Tasks


class _Launch:
    """One kernel over one table of rows, each an array that lies in memory as its gradient and state do."""

    def __init__(self, rule: Rule, entries: list[Entry], scalars: Array) -> None:
        first = entries[0]
        n_slots = len(first.slots)
        self.itemsize = first.p.itemsize
        self.table = np.zeros((len(entries) + 1, row.SLOTS + n_slots), np.intp)
        self.table[1:, row.START] = np.cumsum([entry.p.size for entry in entries])
        self.table[:, row.VALUE] = _address(scalars)
        for words, entry in zip(self.table, entries, strict=False):
            words[row.ID] = id(entry.value)
            words[row.DTYPE] = id(entry.p.dtype)
            words[row.FLAGS] = row.kept_flags(id(entry.value))
            words[row.COUNT] = entry.p.size
            words[row.P :] = [_address(array) for array in (entry.p, entry.g, *entry.slots)]
        self.rows = _address(self.table)
        kernel = fuse(rule, n_slots, KERNEL_TYPES[first.p.dtype]).address
        self.run = Launch(kernel, self.rows, int(self.table[-1, row.START])).run
        self.keys = [entry.key for entry in entries]
        # The rows hold addresses, so what they point to for more than one step must live as long as they do.
        self.arrays = [(entry.value, entry.p, *entry.slots) for entry in entries]

    def __call__(self, _scalars: tuple[float, ...]) -> None:
        self.run()


@dataclass(frozen=True, slots=True)
class _Copy:
    """Bring an array to where a kernel can walk over it, or back."""

    source: Array
    target: Array

    def __call__(self, _scalars: tuple[float, ...]) -> None:
        np.copyto(self.target, self.source)


@dataclass(frozen=True, slots=True)
class _Interpret:
    """Run the text of the rule itself, on arrays or numbers of any kind, as NumPy promotes and rounds them."""

    rule: Rule
    params: Any
    entry: Entry

    def __call__(self, scalars: tuple[float, ...]) -> None:
        entry = self.entry
        operands = (entry.p, entry.g) if entry.is_array else (entry.value, entry.gradient)
        with np.errstate(all="ignore"):
            result = self.rule(*operands, *entry.slots, *map(float, scalars))
            p, *slots = result if entry.slots else (result,)
            for target, slot in zip(entry.slots, slots, strict=True):
                np.copyto(target, slot, casting="same_kind")
            if entry.is_array:
                np.copyto(entry.p, p, casting="same_kind")
            else:
                self.params[entry.key] = type(entry.value)(p)


@dataclass(frozen=True, slots=True)
class _AllOrNothing:
    """Run tasks of which one may raise, as a rule that is interpreted may; then put everything back."""

    tasks: list[Task]
    params: Any
    entries: list[Entry]

    def __call__(self, scalars: tuple[float, ...]) -> None:
        arrays = chain.from_iterable([*entry.slots, *([entry.p] if entry.is_array else [])] for entry in self.entries)
        backups = [(array, array.copy()) for array in arrays]
        try:
            for task in self.tasks:
                task(scalars)
        except Exception:
            for array, backup in backups:
                np.copyto(array, backup)
            for entry in self.entries:
                if not entry.is_array:
                    self.params[entry.key] = entry.value
            raise


# Plans


Getter = Callable[[Any], tuple[Any, ...]]
Renew = Callable[[Any, Any], Sequence[Any] | None]
"""Point launches to the gradients of the next step; return the arrays, to be held until then, or None if that fails."""


def _renewal(launched: _Launch, get: Getter, n_params: int, spans: Array, views: Sequence[Array]) -> Renew:
    guarded = np.array([id(view) for view in views], np.intp)
    table = launched.table
    check = np.array(
        [
            *(launched.rows, *(table.shape[0] - 1, table.shape[1]), launched.itemsize),
            *(_address(spans), len(spans), _address(guarded), len(guarded), id(np.ndarray)),
        ],
        np.intp,
    )
    address, refresh = _address(check), row.refresh
    held = (check, table, spans, views, guarded)

    def renew(params: Any, grads: Any, _held: Any = held) -> Sequence[Any] | None:
        try:
            if len(params) != n_params:
                return None
            arrays = get(params) + get(grads)
        except (AttributeError, IndexError, KeyError, TypeError):
            return None
        return arrays if refresh(address, id(arrays)) else None

    return renew


def _never(_params: Any, _grads: Any) -> None:
    return None


def _renew_all(renewals: list[Renew]) -> Renew:
    def renew(params: Any, grads: Any) -> Sequence[Any] | None:
        held = [renewal(params, grads) for renewal in renewals]
        return None if None in held else held

    return renewals[0] if len(renewals) == 1 else renew


def _getter(keys: list[Any]) -> Getter:
    return itemgetter(*keys) if len(keys) > 1 else lambda arrays: (arrays[keys[0]],)


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
        self._scalars = np.zeros(n_scalars(rule, len(slots)))
        self._memory = self._scalars.data
        self._pack = struct.Struct(f"{self._scalars.size}d").pack_into
        self._values: tuple[float, ...] = ()
        self.renew: Renew = _never
        self._tasks = self._schedule(entries, params, grads)

    def _schedule(self, entries: list[Entry], params: Any, grads: Any) -> list[Task]:
        buffers = [buffer for arrays in self.state.values() for buffer in arrays.buffers.values()]
        spans = _spans([entry.p for entry in entries] + buffers)
        overlap = any(a[1] > b[0] for a, b in pairwise(spans)) or any(_touches(spans, entry.g) for entry in entries)
        if overlap:
            # One parameter is to see what the update of the one before it wrote, as in a loop over the keys.
            tasks = list(chain.from_iterable(self._tasks_of([entry], params) for entry in entries))
        elif self._is_flat(entries, params, grads):
            slots = [arrays.flat for arrays in self.state.values()]
            tasks = self._tasks_of([Entry(None, params.flat, grads.flat, params.flat, grads.flat, slots)], params)
        else:
            tasks = self._tasks_of(entries, params)

        launches = [task for task in tasks if isinstance(task, _Launch)]
        if any(isinstance(task, _Interpret) for task in tasks):
            return [_AllOrNothing(tasks, params, entries)]
        if launches and len(launches) == len(tasks) and not overlap:
            self.renew = self._renewal(launches, spans, params, grads)
        return tasks

    def _renewal(self, launches: list[_Launch], spans: list[tuple[int, int]], params: Any, grads: Any) -> Renew:
        table = np.array(spans, np.intp)
        if launches[0].arrays[0][0] is getattr(params, "flat", None):
            flat = _flat_getter(params.layout, grads.layout)
            return _renewal(launches[0], flat, len(params), table, list(params.values()))
        return _renew_all([_renewal(task, _getter(task.keys), len(params), table, []) for task in launches])

    def _is_flat(self, entries: list[Entry], params: Any, grads: Any) -> bool:
        dicts = (params, grads, *self.state.values())
        return (
            all(isinstance(arrays, FlatDict) and arrays.layout == params.layout for arrays in dicts)
            and len(params.layout.sizes) == 1
            and all(entry.dtype is not None for entry in entries)
        )

    def _tasks_of(self, entries: list[Entry], params: Any) -> list[Task]:
        before: list[Task] = []
        after: list[Task] = []
        interpreted: list[Task] = []
        compiled: dict[np.dtype[Any], list[Entry]] = {}
        for entry in entries:
            if entry.dtype is None or _touches(_spans([entry.p, *entry.slots]), entry.g):
                interpreted.append(_Interpret(self.rule, params, entry))
                continue
            strides = entry.slots[0].strides if entry.slots else packed_strides(entry.p)
            p, g = entry.p, entry.g
            if not _walkable(p, strides):
                p = _blank(p, strides)
                before.append(_Copy(entry.p, p))
                after.append(_Copy(p, entry.p))
            if not _walkable(g, strides):
                g = _blank(g, strides)
                before.append(_Copy(entry.g, g))
            compiled.setdefault(entry.dtype, []).append(replace(entry, p=p, g=g))
        launches = [_Launch(self.rule, group, self._scalars) for group in compiled.values()]
        return [*before, *launches, *after, *interpreted]

    @property
    def is_renewable(self) -> bool:
        """Whether `renew` can succeed."""
        return self.renew is not _never

    def set_scalars(self, values: tuple[float, ...]) -> None:
        """Take the scalars of this step; `TypeError` if they are not what the rule takes."""
        try:
            self._pack(self._memory, 0, *values)
        except (struct.error, TypeError):
            raise TypeError(
                f"scalars() must return a tuple of the {self._scalars.size} numbers that the rule takes after its "
                f"state, but it returned {values!r}"
            ) from None
        self._values = values

    def run(self) -> None:
        """Write."""
        for task in self._tasks:
            task(self._values)
