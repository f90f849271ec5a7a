"""The array table of an update, seen from Python: filled once, bound to new arrays at each step, run by one call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastoptim.kernels import table
from fastoptim.kernels.finite import finite
from fastoptim.kernels.fuse import fuse
from fastoptim.kernels.jit import DISABLED
from fastoptim.kernels.reduce import add_blocks
from fastoptim.kernels.strided import BLOCK
from fastoptim.parameters import FlatDict
from fastoptim.threads import Autotuner, Call
from fastoptim.update.composition import Sums
from fastoptim.update.layout import Ranges, address, form, merged, walk
from fastoptim.update.precision import Dice
from fastoptim.update.segments import calls, order_of_state, walked
from fastoptim.update.touched import TouchedRows
from fastoptim.update.validate import Array, Parameter

__all__ = ["Arrays", "KernelTask"]

Arrays = tuple[Sequence[Any], ...]
"""Parameters and gradients, each in the order of the rows; where any gradient is row-sparse, also the rows it has."""

_SEARCHED = np.float32, np.float64


def _with_dtype(array: Any, dtype: np.dtype[Any]) -> Any:
    """Return a view of an array with an equal dtype: unpickled arrays have a dtype object of their own."""
    if type(array) is np.ndarray and array.dtype is not dtype and array.dtype == dtype:
        return array.view(dtype)
    return array


class KernelTask:
    """Binds all arrays of an update, and updates those of segments that have a kernel, all in one call.

    Parameters
    ----------
    segments : list of list of Parameter
        The rows of each segment, to be run in this order. The fallback updates those without a kernel.
    scalars : ndarray of float64
        Where the kernels read the scalars of a step: a line for each group, or for each row.
    lines : sequence of int
        The line of each row.
    sums : sequence of Sums
        What to sum before the rows are updated.
    state : dict
        The state.
    dice : Dice or None
        What state is rounded with, if any is rounded at random.
    views : list of ndarray
        Arrays that must be writable as well as the parameters.
    may_move : bool
        Whether parameters may be other arrays at each step. They may not if any overlap.

    Attributes
    ----------
    keys : list
        Keys of the rows.
    program : ndarray of intp
        What `run` runs.
    committed : ndarray
        Of one word, which is 1 once `run` has run all kernels.
    """

    def __init__(
        self,
        segments: list[list[Parameter]],
        *,
        scalars: Array,
        lines: Sequence[int] | Array,
        sums: Sequence[Sums],
        state: Mapping[str, FlatDict],
        dice: Dice | None,
        views: Sequence[Array],
        may_move: bool,
    ) -> None:
        rows = [row for segment in segments for row in segment]
        self.keys = [row.key for row in rows]
        n_slots = len(rows[0].slots) if rows else 0
        words = np.zeros((len(rows), table.SLOTS + n_slots), np.intp)
        starts = address(words) + words.strides[0] * np.arange(len(rows) + 1)
        words[:, table.NEXT] = starts[1:]
        words[:, table.VALUE] = address(scalars) + np.asarray(lines, np.intp) * scalars.strides[0]
        words[:, table.DICE] = 0 if dice is None else address(dice.words)
        words[:, table.FIXED] = [row.is_fixed for row in rows]
        for line, row in zip(words, rows, strict=True):
            line[table.P :] = [address(array) for array in (row.p, row.g, *row.slots)]
        flags = [[table.ALIGNED if row.kernel and not strided else 0 for strided in row.strided] for row in rows]
        forms = [form(type(row.value), row.p, table.WRITEABLE | p) for row, (p, _) in zip(rows, flags, strict=True)]
        g_forms = [form(type(row.gradient), row.g, g) for row, (_, g) in zip(rows, flags, strict=True)]
        walks = [walk(*walked(row), order_of_state(row)) if any(row.strided) else [] for row in rows]
        columns = (table.FORM, forms), (table.G_FORM, g_forms), (table.WALK, walks)
        self._kept: list[Any] = [self._describe(words, column, each) for column, each in columns]
        # The forms name types and dtypes by their addresses.
        self._kept += [(type(row.value), row.p.dtype, type(row.gradient), row.g.dtype) for row in rows]
        # The rows themselves would keep the arrays of the first step alive.
        program: list[Call] = []
        searches, first = [], 0
        self._resized: list[tuple[int, int]] = []
        for segment in segments:
            stops = np.cumsum([row.p.size for row in segment])
            last = first + len(segment)
            words[first:last, table.STOP] = stops
            words[first + 1 : last, table.START] = stops[:-1]
            kernel, kind = segment[0].kernel, (*segment[0].kinds, None, None)[1]
            if kernel is not None and segment[0].rows is not None:
                self._resized.append((len(program), first))
            if kernel is not None:
                program += calls(kernel.address, int(starts[first]), segment)
            if kernel is not None and segment[0].rows is None and kind in _SEARCHED and not segment[0].strided[1]:
                searches.append((slice(first, last), kind, int(starts[first]), int(stops[-1])))
            first = last
        self._searches = searches
        self._touched = self._describe_rows(words, rows, max((len(each.squares) for each in sums), default=0))
        self._measures = self._make_measures(sums, segments, rows, words, starts)
        self._autotuner = Autotuner(program)
        # Touched rows are many or few in each step.
        self.run = self._autotuner.run if self._resized else self._autotuner.runner()
        self.program = self._autotuner.program
        self.committed = self.program[:1]
        self._words = words
        self._extents = np.array([each[table.LOW : table.HIGH + 1] for each in forms], np.intp).reshape(-1, 2)
        self._dtypes = [row.p.dtype for row in rows], [row.g.dtype for row in rows]
        buffers = [buffer for arrays in state.values() for buffer in arrays.buffers.values()]
        self._state_ranges = [byte_bounds(buffer) for buffer in buffers if buffer.size]
        self._places: list[int] = []
        self._slots = [array for arrays in state.values() for array in arrays.values()]
        spans, overlap = merged(self._state_ranges + self._parameter_ranges())
        self._spans = np.array(spans, np.intp).reshape(-1, 2)
        view_ids = np.array([id(view) for view in views], np.intp)
        self._check = np.array(
            [
                *(starts[0], len(rows), address(self._autotuner.program), address(self._spans), len(spans)),
                *(address(view_ids), len(views), may_move and not overlap, 0),
            ],
            np.intp,
        )
        self._kept += [scalars, view_ids, dice]
        self._touch([row.rows for row in rows])

    def _make_measures(
        self, sums: Sequence[Sums], segments: list[list[Parameter]], rows: list[Parameter], words: Array, starts: Any
    ) -> list[Autotuner]:
        """Return a program for each of the sums; all of them store the sums of the blocks in one place."""
        sizes = [row.p.size if row.kernel and row.rows is None else 0 for row in rows]
        n_blocks = -(-np.array(sizes, np.intp) // BLOCK)
        width = max((len(each.squares) for each in sums), default=0)
        self._blocks = np.zeros(int(n_blocks.sum()) * width)
        self._totals = [np.zeros((len(rows), len(each.squares))) for each in sums]
        ends = (width * np.cumsum(n_blocks)).tolist()
        self._spans_of_blocks = [
            (end - width * n, n) if row.kernel else None
            for row, end, n in zip(rows, ends, n_blocks.tolist(), strict=True)
        ]
        added = np.array([(starts[0], *each.shape, address(each)) for each in self._totals], np.intp).reshape(-1, 4)
        self._kept.append(added)
        words[:, table.SUMS] = np.where(
            n_blocks > 0, address(self._blocks) + 8 * width * (np.cumsum(n_blocks) - n_blocks), 0
        )
        programs = []
        for each, given in zip(sums, added, strict=True):
            program: list[Call] = []
            first = 0
            for segment in segments:
                if segment[0].kernel is not None:
                    is_sparse = segment[0].rows is not None
                    kernel = fuse(each.function, segment[0].kinds, segment[0].strided, each.squares, is_sparse)
                    program += calls(kernel.address, int(starts[first]), segment)
                    self._kept.append(kernel)
                first += len(segment)
            if program:
                program.append((add_blocks().address, address(given), 0, 1))
            programs.append(Autotuner(program))
        return programs

    def measure(self, k: int) -> Array:
        """Return the sums number ``k`` of each row, of shape (rows, sums); they are 0 for rows without a kernel."""
        totals = self._totals[k]
        if DISABLED:
            # No row has a kernel, and nothing compiled can run.
            return totals
        self._measures[k].run()
        for _, row in self._resized:
            totals[row] = self._touched[row].sums(totals.shape[1])
        return totals

    def blocks(self, k: int) -> list[Array | None]:
        """Return the sums number ``k`` of the blocks of each row, of shape (blocks, sums); None without a kernel."""
        width = self._totals[k].shape[1]
        return [
            None if span is None else self._blocks[span[0] : span[0] + span[1] * width].reshape(-1, width)
            for span in self._spans_of_blocks
        ]

    @staticmethod
    def _describe(words: Array, column: int, descriptions: list[list[int]]) -> Array:
        """Enter the addresses of descriptions into a column, and return the memory that they are in."""
        numbers = np.array([number for each in descriptions for number in each], np.intp)
        lengths = [len(each) for each in descriptions]
        words[:, column] = address(numbers) + numbers.itemsize * (np.cumsum(lengths, dtype=np.intp) - lengths)
        return numbers

    def _parameter_ranges(self) -> Ranges:
        bounds = self._words[:, table.P, np.newaxis] + self._extents
        return [(start, stop) for start, stop in bounds.tolist()]

    def bind(self, arrays: Arrays) -> Arrays | None:
        """Bind arrays of the forms of the rows that lie where they may; return them, or None."""
        self._touch(*arrays[2:])
        return arrays if self.bind_rows(arrays) else None

    @cached_property
    def bind_rows(self) -> Callable[[Arrays], bool]:
        """What `fastoptim.kernels.table.bind` does; loading it takes a tenth of the first step, which does without."""
        return table.bind(self._check)

    def _describe_rows(self, words: Array, rows: list[Parameter], n_sums: int) -> dict[int, TouchedRows]:
        """Return what describes the touched rows, by position."""
        memory = self._kept[1]
        places = (words[:, table.G_FORM] - address(memory)) // memory.itemsize
        sparse = [k for k, row in enumerate(rows) if row.rows is not None]
        return {k: TouchedRows(words[k], memory[places[k] :], rows[k], n_sums) for k in sparse}

    def _touch(self, rows: Sequence[Any] = ()) -> None:
        totals = {k: touched.touch(rows[k]) for k, touched in self._touched.items()}
        for segment, k in self._resized:
            for tuner in (self._autotuner, *self._measures):
                tuner.resize(segment, totals[k])

    def rebind(self, arrays: Arrays, may_move: bool) -> Arrays | None:
        """Bind arrays that `bind` refused, if they only lie elsewhere or came from a pickle.

        Parameters
        ----------
        arrays : tuple
            Parameters and gradients.
        may_move : bool
            Whether to bind parameters that have come back to where they were a few steps ago, as they do when dicts
            take turns.

        Returns
        -------
        tuple or None
            The arrays, or views of them, to be kept alive until the kernels have run; None if they do not fit.
        """
        params, grads, *rows = arrays
        known = *(tuple(map(_with_dtype, *each)) for each in zip((params, grads), self._dtypes, strict=True)), *rows
        if self.bind(known):
            return known
        if not self.keys or not (may_move or self._is_new_place(params[0])):
            return None
        before = int(self._words[0, table.P])
        self._check[table.MOVES] = 1
        fits = self.bind(known)
        self._check[table.MOVES] = 0
        if not fits:
            return None
        self._places = [before, *self._places[:2]]
        spans, overlap = merged(self._state_ranges + self._parameter_ranges())
        if overlap or len(spans) != len(self._spans) or not all(slot.flags.writeable for slot in self._slots):
            # No array has this address, so none is bound.
            self._words[:, table.P] = 0
            return None
        self._spans[...] = np.reshape(spans, (-1, 2))
        return self.bind(known)

    def _is_new_place(self, array: Any) -> bool:
        return not isinstance(array, np.ndarray) or address(array) not in self._places

    @cached_property
    def _search(self) -> Autotuner:
        return Autotuner([(finite(kind).address, start, 0, total) for _, kind, start, total in self._searches])

    def nonfinite_keys(self, gradients: Sequence[Array]) -> list[Hashable]:
        """Return the keys of bound gradients that are NaN or infinite."""
        rest = dict(enumerate(gradients))
        if self._searches:
            self._words[:, table.FOUND] = 0
            self._search.run()
        found = set(np.flatnonzero(self._words[:, table.FOUND]).tolist())
        for rows, *_ in self._searches:
            for k in range(len(self.keys))[rows]:
                del rest[k]
        found |= {k for k, g in rest.items() if not np.isfinite(g).all()}
        return [key for k, key in enumerate(self.keys) if k in found]
