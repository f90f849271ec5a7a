"""The plan of an update: made once for parameters of some shapes and dtypes, bound to new arrays at each step."""

from __future__ import annotations

import operator
import struct
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastoptim.kernels import table
from fastoptim.kernels.fuse import n_scalars
from fastoptim.kernels.jit import DISABLED
from fastoptim.state_files import StateFiles, in_memory
from fastoptim.update.binding import Bind, binder, flat_binder, with_keys
from fastoptim.update.composition import Composition
from fastoptim.update.fallback import FallbackTask, Rule
from fastoptim.update.kerneltask import Arrays, KernelTask
from fastoptim.update.layout import address
from fastoptim.update.numbers import Numbers
from fastoptim.update.precision import Dice, Precision, check_kernels, check_precision
from fastoptim.update.segments import as_one, sort
from fastoptim.update.state import State, attach_state
from fastoptim.update.touched import SparseGradients, check_touched
from fastoptim.update.validate import NonFiniteGradients, Parameter

__all__ = ["Plan"]


class Plan:
    """How to run one update, and the next ones with arrays of the same shapes, dtypes and strides.

    Parameters
    ----------
    composition : Composition
        The rule to run, with its transforms.
    params, grads : dict or list
        As given to `Optimizer.update`.
    parameters : list of Parameter
        What was found in them; the plan is bound to these.
    state : dict or None
        The state so far; None to begin with zeros.
    initial : mapping
        What new state begins with; see `attach_state`.
    precision : Precision
        The dtypes of the state.
    checks_finite : bool
        Whether gradients that are not finite are an error.
    n_groups : int
        Number of groups of parameters, each with scalars of its own.
    files : StateFiles or None
        Where new arrays of the state lie, if not in memory.
    shards : Shards or None
        What the parameters are parts of, if each process updates parts of all arrays; see `fastoptim.mpi.shards`.

    Attributes
    ----------
    composition, state
        What it was made for. The state is new if there was none, or if a slot or a dtype changed.
    bind : callable
        ``bind(params, grads)`` begins the next step: it returns the arrays, which must be kept alive until the plan has
        run because kernels only have their addresses, or None if they have other forms or lie elsewhere.
    takes_scalars : callable
        Takes the scalars of a step and returns True, if they are a tuple of Python floats for all parameters.
    set_scalars : callable
        Takes the scalars of a step, those of one group after the other; raises `struct.error` if they are not as many
        numbers as the rule takes.
    run : callable
        Writes.
    committed : ndarray
        Of one word: 0 as long as nothing has been written, 1 once the step cannot be undone.
    dice : Dice or None
        What state is rounded with, if any is rounded at random; its keys are entered before each run.
    journal : Journal or None
        That of the files; it is told the number of the step before each run.
    takes_arrays, views : bool, list
        Whether `array_rule` updates any arrays; if so, a view of the optimizer for each group, to be set before a run.
    is_reusable : bool
        Whether `bind` can succeed.

    Raises
    ------
    IndexError, KeyError, TypeError, ValueError, NonFiniteGradients
        If anything forbids the update, here and in ``bind``. Nothing has been written then.
    """

    def __init__(
        self,
        rule: Rule,
        composition: Composition,
        params: Any,
        grads: Any,
        parameters: list[Parameter],
        state: State | None,
        initial: Mapping[str, float | str],
        precision: Precision,
        checks_finite: bool,
        n_groups: int,
        files: StateFiles | None = None,
        shards: Any = None,
    ) -> None:
        self.rule, self.composition, self._shards = rule, composition, shards
        check_touched(parameters, composition.needs_all, initial)
        check_precision(parameters, precision)
        self.journal = None if files is None else files.journal
        if self.journal is not None:
            self.journal.check()
        count, slots = n_scalars(composition.rule, composition.slots), composition.slots
        zeros = in_memory if files is None else files.zeros
        self.state = attach_state(composition.rule, slots, count, parameters, state, initial, precision, zeros)
        self._given = np.zeros((n_groups, count))
        words = np.array([address(self._given), self._given.size, id(tuple), id(float)], np.intp)
        self.takes_scalars: Callable[[Any], bool] = table.set_scalars(words)
        pack = struct.Struct(f"{self._given.size}d").pack_into
        self.set_scalars: Callable[..., None] = partial(pack, self._given.reshape(-1).data, 0)
        self._order = [parameter.key for parameter in parameters]
        # Norms are those of each array, and groups have scalars of their own.
        is_whole = len(parameters) == len(params) and n_groups == 1 and not (composition.sums or composition.arrays)
        flat = as_one(params, grads, self.state) if is_whole and not any(each.before for each in parameters) else None
        stored = [precision.stored.get(slot) for slot in slots]
        segments, in_place, may_move = sort([flat] if flat else parameters, composition.rule, stored)
        rows = [row for segment in segments for row in segment]
        check_kernels(rows)
        self.dice = Dice.of(self.state, precision, first=0 if shards is None else shards.first)
        # Scalars that follow from sums may differ between arrays.
        each_row = not all(each.is_shared for each in composition.sums)
        self._scalars = np.zeros((len(rows), count)) if each_row else self._given
        # Right after a pass over memory little of Python is in the caches, so these views are made now.
        self._columns = [
            (self._scalars[:, each.columns], self._scalars[:, : each.columns.stop]) for each in composition.sums
        ]
        self._groups = np.array([row.group for row in rows], np.intp)
        self._compositions: list[Any] = [composition if row.slot_shapes is None else composition.arrays for row in rows]
        self.takes_arrays, self.views = any(row.slot_shapes is not None for row in rows), list[Any]()
        self._sizes = np.array([row.g.size if shards is None else shards.sizes[row.key] for row in rows], float)
        are_all_bound = not checks_finite and all(row.kernel is not None for row in rows)
        self._numbers, self._sparse = Numbers(params, rows, are_all_bound), SparseGradients(rows)
        self._kernels = KernelTask(
            segments,
            scalars=self._scalars,
            lines=range(len(rows)) if each_row else self._groups,
            sums=composition.sums,
            state=self.state,
            dice=self.dice,
            views=list(params.values()) if flat else [],
            may_move=may_move and not flat,
        )
        self.committed = self._kernels.committed
        self._fallbacks: list[FallbackTask] = []
        first = 0
        for segment in segments:
            if segment[0].kernel is None:
                rules = [each.rule for each in self._compositions[first : first + len(segment)]]
                self._fallbacks.append(FallbackTask(rules, segment, first, in_place=segment in in_place))
            first += len(segment)
        self.is_reusable = not DISABLED and all(task.is_reusable for task in self._fallbacks)
        self._checks_finite = checks_finite
        given = params, grads, self._kernels
        binds: list[Bind] = [
            flat_binder(*given, bind_rows) if flat else binder(*given, bind_rows, numbers)
            for bind_rows, numbers in ((lambda _: True, None), (None, self._numbers or None))
        ]
        if not (flat or isinstance(params, Sequence) or (may_move and len(parameters) == len(params))):
            binds = [with_keys(bind, list(params)) for bind in binds]
        self._get, self.bind = binds
        # A plan that referred to itself would keep its state, and the files of it, until garbage is collected.
        this = weakref.proxy(self)
        if self._sparse or self._fallbacks or checks_finite or self._numbers.are_copied:
            self.bind = partial(Plan._bind, this)
        has_kernels = len(self._fallbacks) < len(segments)
        self._commit = self._kernels.run if has_kernels else partial(operator.setitem, self.committed, 0, 1)
        self.run: Callable[[], object] = self._commit
        if self._numbers.are_copied or self._fallbacks or shards is not None or files is not None:
            self.run = partial(Plan._run_all, this)
        elif self._numbers:
            self.run = self._numbers.runner(self._kernels.program)
        arrays = [row.p for row in rows], [row.g for row in rows], [row.rows for row in rows]
        for task in self._fallbacks:
            task.bind(*arrays)
        if checks_finite:
            # Last: what does not fit is an error, also where such gradients are only skipped.
            self._check_finite(arrays, grads)

    # Beginning a step.

    def _bind(self, params: Any, grads: Any) -> Arrays | None:
        return self._bind_all(params, grads, self._kernels.bind)

    def rebind(self, params: Any, grads: Any, may_move: bool) -> Arrays | None:
        """Begin the next step as ``bind`` does, also if arrays lie elsewhere: see `KernelTask.rebind`."""
        return self._bind_all(params, grads, partial(self._kernels.rebind, may_move=may_move))

    def _bind_all(self, params: Any, grads: Any, bind_rows: Callable[[Arrays], Arrays | None]) -> Arrays | None:
        arrays = self._get(params, grads)
        if arrays is not None and self._numbers.are_copied:
            arrays = self._numbers.bind(*arrays)
        if arrays is not None and self._sparse:
            arrays = self._sparse.bind(*arrays)
        if arrays is not None:
            arrays = bind_rows(arrays)
        if arrays is None or not all(task.bind(*arrays) for task in self._fallbacks):
            return None
        self._numbers.params = params if self._numbers else None
        if self._sparse:
            self._sizes[...] = [g.size for g in arrays[1]]
        if self._checks_finite:
            self._check_finite(arrays, grads)
        return arrays

    def _check_finite(self, arrays: Arrays, grads: Any) -> None:
        found = set(self._kernels.nonfinite_keys(arrays[1]))
        if self._shards is not None:
            found = self._shards.union(found)
        if found:
            # The plan may be kept, but the step is not taken.
            self._release()
            if found == {None} and self._order != [None]:
                # A flat dict is one row, which has no key.
                found = {key for key, g in grads.items() if not np.isfinite(g).all()}
            raise NonFiniteGradients([key for key in self._order if key in found])

    # Taking a step.

    def convert_scalars(self, values: Any) -> None:
        """Enter scalars of other types; raise `TypeError` if they are not the numbers that the rule takes."""
        try:
            self.set_scalars(*values)
        except (struct.error, TypeError):
            raise self.composition.error(values) from None

    def measure(self, optimizer: Any) -> None:
        """Compute the scalars that follow from sums over arrays; nothing else is written."""
        if self._scalars is not self._given:
            np.take(self._given, self._groups, 0, self._scalars, "clip")
        for k, each in enumerate(self.composition.sums):
            sums = self._kernels.measure(k)
            for task in self._fallbacks:
                functions = [own.sums[k].function for own in self._compositions[task.rows]]
                sums[task.rows] = task.measure(functions, each.squares, self._lines(task.rows))
            if self._shards is not None:
                sums[...] = self._shards.total(self._kernels.keys, self._kernels.blocks(k), sums)
            columns, known = self._columns[k]
            columns[...] = each.finish(optimizer, sums, known, self._sizes)

    def _lines(self, rows: slice) -> list[tuple[Any, ...]]:
        """Return the scalars of some rows, preceded by the optimizer where `array_rule` updates the row."""
        lines = (self._given[self._groups[rows]] if self._scalars is self._given else self._scalars[rows]).tolist()
        return [
            (*([self.views[group]] if own is self.composition.arrays else []), *line)
            for group, own, line in zip(self._groups[rows], self._compositions[rows], lines, strict=True)
        ]

    def _run_all(self) -> None:
        writers: list[Any] = [*self._fallbacks, self._numbers]
        try:
            for task in self._fallbacks:
                task.prepare(self._lines(task.rows))
            if self.journal is not None:
                self.journal.begin()
            if self._shards is not None:
                self._shards.commit()
            self._commit()
            for writer in writers:
                writer.write()
        except BaseException:
            # An interruption, such as KeyboardInterrupt, must not leave half of a step behind.
            if self.committed[0]:
                for writer in writers:
                    writer.write()
            else:
                for task in self._fallbacks:
                    task.rollback()
            raise
        finally:
            if self.journal is not None:
                self.journal.end(is_done=bool(self.committed[0]))
            self._release()

    def _release(self) -> None:
        for task in self._fallbacks:
            task.release()
        self._numbers.release()
        self.views = []
