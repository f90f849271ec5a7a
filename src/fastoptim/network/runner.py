"""How a network runs a batch: how many samples at a time, in which memory, and on which threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastoptim.concurrency import blas_calls
from fastoptim.kernels import layers, masked, passes
from fastoptim.kernels.dense import ALL_WORK
from fastoptim.kernels.jit import DISABLED, address
from fastoptim.kernels.masks import WIDTH
from fastoptim.kernels.normalization import Extension
from fastoptim.kernels.parallel import run, run_parallel
from fastoptim.threads import Autotuner, has_safe_threads

__all__ = ["Runner"]

_AT_A_TIME = 128 * max(2, numba.config.NUMBA_NUM_THREADS)
"""Samples in the workspace at a time; with more for each thread, they and their outputs would leave its cache."""
_SLICE = 16
"""The fewest samples that a thread takes through a network; with fewer, copying the weights would dominate."""
_LARGEST_KEPT = 16 << 20
"""The largest memory that is kept for the next call, in bytes."""
_SHARED_FROM = 1 << 14
"""Elements of the workspace of a batch below which its passes are not worth a second thread."""
_MOST_PROGRAMS = 16
"""Kinds of passes and sizes of batches for which programs are kept."""


class _Program(Autotuner):
    """The calls that take batches of one size through a network, some samples after the others.

    Parameters
    ----------
    words : ndarray of intp
        The words that describe the batch; a row for those samples that are in the workspace at a time.
    calls : list of (function, int, int, int)
        As of `Autotuner`, but with functions in place of their addresses.
    is_long : bool
        Whether several threads may be faster.
    """

    __slots__ = ("_calls", "_shares_products", "numbers", "words")

    def __init__(self, words: NDArray[np.intp], calls: list[tuple[Any, int, int, int]], is_long: bool) -> None:
        # The range of a single slice, which is one thread's, is 64.
        super().__init__([] if DISABLED else [(f.address, *rest) for f, *rest in calls], parallel_from=WIDTH + 1)
        self.words, self.numbers, self._calls, self._is_long = words, words.view(np.float64), calls, is_long
        # A product of 64 rows or fewer is not cut, so a parallel region would only cost time.
        self._shares_products = bool((words[:, layers.SLICE] > WIDTH).any())

    def run(self) -> None:
        if self._is_long:
            super().run()
        elif DISABLED:
            for function, row, start, stop in self._calls:
                function(row, start, stop)
        else:
            run(self._address)

    def _run_on(self, parts: int) -> None:
        if self._shares_products:
            # Samples that must be processed together are one thread's, and several share each of its products.
            is_shared = parts > 1 and has_safe_threads()
            self.words[:, masked.PARTS] = parts if is_shared else 1
            self.words[:, masked.RUN_PARALLEL] = address(run_parallel) if is_shared else 0
        super()._run_on(parts)


class _Memory:
    """The memory of one call, and the programs that use it."""

    def __init__(self) -> None:
        self.buffer = np.empty(0, np.uint64)
        self.programs: dict[tuple[int, Callable[..., Any], int], _Program] = {}

    def reserve(self, size: int) -> int:
        """Return the address of so many words; forget programs that use others, and the oldest of too many."""
        if self.buffer.size < size:
            self.buffer = np.empty(size, np.uint64)
            self.programs.clear()
        while len(self.programs) >= _MOST_PROGRAMS:
            del self.programs[next(iter(self.programs))]
        return int(self.buffer.ctypes.data)


class Runner:
    """Runs the passes of one network; concurrent calls each have their own memory, which is kept for the next ones.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of inputs, of the units of each hidden layer, and of outputs.
    is_normalized : bool
        Whether the hidden layers have batch normalization.
    activation : int
        `RELU` or `SIGMOID`.
    dtype : dtype
        That of the arithmetic.
    """

    def __init__(self, sizes: Sequence[int], is_normalized: bool, activation: int, dtype: np.dtype[Any]) -> None:
        self._table, self._work_per_row = layers.table(sizes, is_normalized)
        self._masks_per_row = sum(-(-size // WIDTH) for size in sizes[:-1])
        self._is_normalized, self._activation, self._dtype = is_normalized, activation, dtype
        self._spare: list[_Memory] = []

    def run(
        self,
        kind: int,
        x: NDArray[Any],
        params: NDArray[Any],
        *,
        out: NDArray[Any] | None = None,
        targets: NDArray[Any] | None = None,
        losses: NDArray[Any] | None = None,
        shares: NDArray[Any] | None = None,
        extension: Extension | None = None,
        decay: float = 0.0,
        compare: Callable[..., Any] = passes.labelled,
    ) -> None:
        """Run the passes of a batch.

        All arrays must be contiguous, and of the right length and dtype: nothing checks them.

        Parameters
        ----------
        kind : int
            What is wanted: `SCORES`, `LOSS` or `GRADIENT`, or the kind of a weighted loss.
        x, params : array
            The samples and the parameters.
        out : array, optional
            Receives the scores, or the gradient with respect to the parameters.
        targets : array, optional
            The class numbers; or for a weighted loss, a row for each sample.
        losses : array of float64, optional
            Receives the losses of the samples.
        shares : array, optional
            The weights of the samples, divided by their sum.
        extension : Extension or None
            What batch normalization and dropout need.
        decay : float
            The weight decay of a gradient.
        compare : callable
            `labelled` or `weighted`.
        """
        total, drawn, statistics = len(x), None, None
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = _Memory()
        program = memory.programs.get((kind, compare, total))
        if program is None:
            program = memory.programs[kind, compare, total] = self._program(
                kind, compare, extension is not None, total, memory
            )
        words, numbers = program.words, program.numbers
        if extension is not None:
            drawn, statistics = extension.drawn, extension.statistics
            words[:, layers.IS_TRAINING], words[:, layers.DROPS] = extension.is_training, extension.drops
            words[:, layers.N_UNITS_OF_STATISTICS] = statistics.shape[1]
            numbers[:, layers.RATIO] = extension.ratio
        numbers[:, layers.DECAY] = decay
        # Kernels read the places of the arrays from this tuple, which must live until they are done.
        arrays = x, params, out, targets, losses, shares, drawn, statistics
        words[:, layers.ARRAYS] = id(arrays)
        with blas_calls:
            program.run()
        if not self._spare and memory.buffer.nbytes <= _LARGEST_KEPT:
            self._spare.append(memory)

    def penalty(self, params: NDArray[Any], decay: float) -> float:
        """Return ``decay / 2`` times the sum of the squares of all weights, added in float64."""
        starts, sizes = self._table[:, layers.WEIGHTS], self._table[:, layers.INPUTS] * self._table[:, layers.OUTPUTS]
        weights = (params[start : start + size] for start, size in zip(starts, sizes, strict=True))
        return 0.5 * decay * sum(float(np.add.reduce(w * w, dtype=np.float64)) for w in weights)

    def _program(
        self, kind: int, compare: Callable[..., Any], is_extended: bool, total: int, memory: _Memory
    ) -> _Program:
        # BLAS computes whole products, and normalization needs the means of all samples.
        is_whole = total < masked.FEWEST_ROWS or self._is_normalized
        has_gradients = kind == passes.GRADIENT or compare is passes.weighted
        size = max(total, 1)
        height = size if is_whole else _SLICE
        n_turns = 1 if is_whole else -(-size // _AT_A_TIME)
        capacity = -(-size // (n_turns * height)) * height
        firsts = np.arange(0, total, capacity)
        work = -(-self._work_per_row * capacity * self._dtype.itemsize // 8)
        masks, counts = self._masks_per_row * capacity, capacity // height * len(self._table)
        start = memory.reserve(work + masks + counts)
        words = np.zeros((len(firsts), layers.N_WORDS), np.intp)
        values: dict[int, int | NDArray[np.intp]] = {
            masked.PRODUCT: masked.product_address(self._dtype),
            masked.PARTS: 1,
            layers.FIRST: firsts,
            layers.ROWS: np.minimum(capacity, total - firsts),
            layers.CAPACITY: capacity,
            layers.TOTAL: total,
            layers.SLICE: height,
            layers.KIND: kind,
            layers.ACTIVATION: self._activation,
            layers.N_LAYERS: len(self._table),
            layers.N_IN_TURN: 1 if has_gradients else len(firsts),
            layers.LAYERS: self._table.ctypes.data,
            layers.WORKSPACE: start,
            layers.BITS: start + 8 * work,
            layers.COUNTS: start + 8 * (work + masks),
        }
        for place, value in values.items():
            words[:, place] = value
        propagate = passes.propagate(self._dtype, compare, is_extended)
        calls = []
        for row in words if has_gradients else words[:1]:
            calls.append((propagate, row.ctypes.data, 0, -(-int(row[layers.ROWS]) // height) * WIDTH))
            if has_gradients:
                calls.append((passes.weight_gradients(self._dtype), row.ctypes.data, 0, ALL_WORK))
        is_long = total >= masked.FEWEST_ROWS and total * self._work_per_row >= _SHARED_FROM
        return _Program(words, calls, is_long)
