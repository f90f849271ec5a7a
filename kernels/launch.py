"""Run a kernel over a range, cut into parts for as many threads as are worth their start."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from math import inf
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

_TRIALS, _LONG_TRIALS, _LONG = 7, 3, 3e-4
"""Runs by which one thread and several are compared, now and again; the middle one counts. Threads that wake slow the
first two or three, so these must be the fewer ones, unless all take so long that waking hardly counts."""
_FIRST_WAIT, _LAST_WAIT = 4, 128
"""How many times as long as trying the other way took, updates go on until the next comparison; twice as long each time
that nothing has changed. So one that cost little is soon followed by the next, as whether threads share a core, or wait
for one, may change within milliseconds; and in the end they cost a hundredth of the time."""
_LONGEST_WAIT = 5.0
"""Seconds of updates until the next comparison at most, should the machine have stood still during the last one."""

_ALIGNMENT = 64
"""Parts begin at multiples of this many elements, so that no two threads write to one cache line."""

_SAFE_LAYERS = {"omp", "tbb"}
"""Numba's third threading layer, workqueue, aborts the process when two Python threads enter it at once."""


class _Setting(threading.local):
    parts: int | None = None


def _may_be_forked() -> bool:
    # Numba's threads were started before this import. In a child of multiprocessing it may have been in the parent.
    try:
        numba.threading_layer()
    except ValueError:
        return False
    return multiprocessing.parent_process() is not None


_setting = _Setting()
_forked = _may_be_forked()


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
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"num_threads takes a whole number from 1 on, not {n!r}")
    before, _setting.parts = _setting.parts, int(n)
    try:
        yield
    finally:
        _setting.parts = before


@cache
def _has_safe_threads() -> bool:
    """Start Numba's threads, make the parallel loop ready, and tell whether they may be used."""
    with _openmp_left_alone():
        try:
            numba.get_num_threads()
        except ValueError:
            # The threading layer that NUMBA_THREADING_LAYER asks for is not installed.
            return False
    if numba.threading_layer() not in _SAFE_LAYERS:
        return False
    _run_parallel(0, 0, 0, 1)
    return True


@contextmanager
def _openmp_left_alone() -> Iterator[None]:
    # When Numba starts its threads it sets the number of threads of OpenMP, and its levels, for the Python thread that
    # asked: other users of the same OpenMP library, as PyTorch may be one, would find them changed.
    before = [
        (library, library.omp_get_max_threads(), library.omp_get_max_active_levels()) for library in _openmp_libraries()
    ]
    try:
        yield
    finally:
        for library, threads, levels in before:
            library.omp_set_num_threads(threads)
            library.omp_set_max_active_levels(levels)


def _openmp_libraries() -> list[ctypes.CDLL]:
    # Numba's module finds the functions of OpenMP where the loader looks first: among those that a library such as
    # PyTorch's has made public to all, or else in the OpenMP that it was linked with.
    found = []
    with suppress(ImportError):
        for name in (None, import_module("numba.np.ufunc.omppool").__file__):
            with suppress(AttributeError, OSError, TypeError):
                library = ctypes.CDLL(name)
                if library.omp_get_max_threads and library.omp_get_max_active_levels:
                    found.append(library)
    return found


@inner
def _finish(rows):
    # Whether a step has been taken is written here, where no signal comes between the kernel and this word.
    if rows:
        store(np.intp, (rows + 8 * DONE,), 0, 1)


@jit
def _run(kernel, rows, total):
    call(kernel, rows, 0, total)
    _finish(rows)


@parallel_jit
def _run_parallel(kernel, rows, total, parts):
    blocks = (total + _ALIGNMENT - 1) // _ALIGNMENT
    for k in prange(parts):
        start = blocks * k // parts * _ALIGNMENT
        stop = min(total, blocks * (k + 1) // parts * _ALIGNMENT)
        if start < stop:
            call(kernel, rows, start, stop)
    _finish(rows)


def _middle(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def _is_enough(times: list[float]) -> bool:
    return len(times) >= _TRIALS or (len(times) >= _LONG_TRIALS and min(times) >= _LONG)


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

    __slots__ = ("_is_long", "_left", "_parallel", "_parts", "_times", "_usual", "_wait", "_work")

    def __init__(self, kernel: Any, rows: int, total: int) -> None:
        self._work = (kernel, rows, total)
        self._is_long = total >= _PARALLEL_FROM
        self._parallel = False
        self._parts = 1
        self._left = 0.0
        self._wait = _FIRST_WAIT
        self._usual = 0.0
        self._times: dict[bool, list[float]] = {False: [], True: []}

    def run(self) -> None:
        """Run the kernel once over all elements."""
        if not self._is_long or _forked:
            _run(*self._work)
        elif (parts := _setting.parts) is not None:
            if parts > 1 and _has_safe_threads():
                _run_parallel(*self._work, min(parts, -(-self._work[2] // _ALIGNMENT)))
            else:
                _run(*self._work)
        elif self._left <= 0:
            self._try()
        elif self._parallel:
            self._left -= self._timed(self._parts)
        else:
            self._left -= self._usual
            _run(*self._work)

    def _try(self) -> None:
        # The usual way is timed first, then the other.
        other = _is_enough(self._times[self._parallel])
        parallel = self._parallel is not other
        if parallel and not _has_safe_threads():
            self._left = inf
            _run(*self._work)
            return
        # To ask Numba takes nearly as long as to start the threads, so it is not asked at each run.
        self._parts = int(numba.get_num_threads())
        times = self._times[parallel]
        times.append(self._timed(self._parts if parallel else 1))
        if not other:
            self._usual = _middle(times)
        elif _is_enough(times):
            if _middle(times) < self._usual:
                self._parallel, self._usual, self._wait = parallel, _middle(times), _FIRST_WAIT
            self._left = min(self._wait * sum(times), _LONGEST_WAIT)
            self._wait = min(2 * self._wait, _LAST_WAIT)
            self._times = {False: [], True: []}

    def _timed(self, parts: int) -> float:
        start = perf_counter()
        if parts > 1:
            _run_parallel(*self._work, parts)
        else:
            _run(*self._work)
        return perf_counter() - start
