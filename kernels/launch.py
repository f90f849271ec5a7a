"""Run a kernel over a range, cut into parts for as many threads as are worth their start."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numba
import numpy as np
from numba import prange

from fastoptim.kernels.jit import inner, jit, parallel_jit
from fastoptim.kernels.memory import call, store
from fastoptim.kernels.ndarray import DONE

__all__ = ["Launch", "num_threads"]

_PARALLEL_FROM = 16_384
"""Elements below which no machine gains by a second thread: to start it costs as much as updating some ten thousand."""

_TRIALS = 3
"""Runs by which one thread and several are compared, now and again."""
_FIRST_INTERVAL, _LAST_INTERVAL = 0.02, 1.0
"""Seconds of updates until the next comparison, twice as many each time that nothing has changed."""
_MUCH = 4
"""How many times as long as usual is a reason to think again."""

_ALIGNMENT = 64
"""Parts begin at multiples of this many elements, so that no two threads write to one cache line."""

_SAFE_LAYERS = {"omp", "tbb"}
"""Numba's third threading layer, workqueue, aborts the process when two Python threads enter it at once."""


class _Setting(threading.local):
    parts: int | None = None
    is_compiled = False


_setting = _Setting()
_forked = False


def _forbid_threads() -> None:
    # GNU OpenMP ends a forked child at its first parallel region.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forbid_threads)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Cut the updates of this Python thread into ``n`` parts, to run side by side.

    Only how long an update takes depends on it, never a result. Without it, an update tries now and again whether
    several threads are faster than one. Numba's own setting is left as it is, and limits how many parts run at a time:
    ``NUMBA_NUM_THREADS``, or what ``numba.set_num_threads`` said last.

    Parameters
    ----------
    n : int
        Number of parts; 1 keeps every update of this thread on the one core it runs on, as is best where several
        Python threads each train a model of their own.

    Raises
    ------
    ValueError
        If ``n`` is not a whole number from 1 on.

    Examples
    --------
    >>> import fastoptim as fo
    >>> import numpy as np
    >>> opt, params = fo.SGD(lr=1.0), {"w": np.ones(10_000)}
    >>> with fo.num_threads(1):
    ...     opt.update(params, {"w": np.ones(10_000)})
    >>> float(params["w"].sum())
    0.0
    """
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"num_threads takes a whole number from 1 on, not {n!r}")
    before, _setting.parts = _setting.parts, n
    try:
        yield
    finally:
        _setting.parts = before


def _threads() -> int:
    if _forked:
        return 1
    available = int(numba.get_num_threads())
    return available if numba.threading_layer() in _SAFE_LAYERS else 1


@inner
def _finish(rows, total):
    # Whether a step has been taken is written here, where no signal comes between the kernel and this word.
    if total:
        store(np.intp, (rows + 8 * DONE,), 0, 1)


@jit
def _run(kernel, rows, total):
    call(kernel, rows, 0, total)
    _finish(rows, total)


@parallel_jit
def _run_parallel(kernel, rows, total, parts):
    blocks = (total + _ALIGNMENT - 1) // _ALIGNMENT
    for k in prange(parts):
        start = blocks * k // parts * _ALIGNMENT
        stop = min(total, blocks * (k + 1) // parts * _ALIGNMENT)
        call(kernel, rows, start, stop)
    _finish(rows, total)


def _middle(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


class Launch:
    """A kernel over a table of rows, run by one thread or by several; which is faster is found by trying now and again.

    No rule of thumb will do. On the same machine and for the same million elements, two threads are twice as fast as
    one in a loop of updates alone, and ten times slower right after a product by OpenBLAS: its idle threads keep their
    cores for some milliseconds more, and the threads of OpenMP wait for one. No result depends on the choice.

    Parameters
    ----------
    kernel : int
        Address of a native function ``(rows, start, stop)``.
    rows : int
        Address of the table of rows.
    total : int
        Number of elements in all rows.
    """

    __slots__ = ("_interval", "_left", "_parallel", "_times", "_usual", "_work", "total")

    def __init__(self, kernel: Any, rows: int, total: int) -> None:
        self.total = total
        self._work = (kernel, rows, total)
        self._parallel = False
        self._left = 0
        self._interval = _FIRST_INTERVAL
        self._usual = 0.0
        self._times: dict[bool, list[float]] = {False: [], True: []}

    def run(self) -> None:
        """Run the kernel once over all elements."""
        if self.total < _PARALLEL_FROM or (parts := _setting.parts) == 1:
            _run(*self._work)
        elif parts is None and self._left and not self._parallel:
            self._left -= 1
            _run(*self._work)
        elif (threads := _threads()) == 1:
            _run(*self._work)
        elif parts is not None:
            _run_parallel(*self._work, parts)
        elif not self._left:
            self._try(threads)
        else:
            self._left -= 1
            if self._timed(threads) > _MUCH * self._usual:
                self._left = 0

    def _try(self, threads: int) -> None:
        if not _Setting.is_compiled:
            # What the first call compiles or loads is not to count.
            kernel, rows, _ = self._work
            _run_parallel(kernel, rows, 0, 1)
            _Setting.is_compiled = True
        # The usual way is timed first, then the other, of which one very bad run is enough.
        other = len(self._times[self._parallel]) >= _TRIALS
        parallel = self._parallel is not other
        times = self._times[parallel]
        times.append(self._timed(threads if parallel else 1))
        if not other:
            self._usual = _middle(times)
        elif len(times) >= _TRIALS or times[-1] > _MUCH * self._usual:
            self._interval = min(2 * self._interval, _LAST_INTERVAL)
            if _middle(times) < self._usual:
                self._parallel, self._usual, self._interval = parallel, _middle(times), _FIRST_INTERVAL
            self._left = max(1, int(self._interval / self._usual))
            self._times = {False: [], True: []}

    def _timed(self, parts: int) -> float:
        start = perf_counter()
        if parts == 1:
            _run(*self._work)
        else:
            _run_parallel(*self._work, parts)
        return perf_counter() - start
