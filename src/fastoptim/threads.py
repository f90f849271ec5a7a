"""On how many threads updates run: on one, on as many as the user says, or on what is measured to be faster."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from math import inf
from time import perf_counter

import numba
import numpy as np

from fastoptim.arguments import whole_number
from fastoptim.kernels.parallel import run, run_parallel, run_short
from fastoptim.kernels.table import CALLS, COUNT

__all__ = ["Autotuner", "Call", "has_safe_threads", "num_threads"]

Call = tuple[int, int, int, int]
"""A call of a program: see `fastoptim.kernels.table`."""

_PARALLEL_FROM = 16_384
"""Elements below which no machine gains by a second thread: starting it costs as much as updating ten thousand."""

_MOST_PARTS = 2**31
"""More parts than elements are none, and the number must fit into a word."""

_TRIALS, _LONG_TRIALS, _LONG_S = 7, 3, 3e-4
"""Runs by which one thread and several are compared; the median counts. The first two or three parallel runs include
the wake-up of threads; seven samples make the median robust to it. Three suffice for runs longer than 0.3 ms."""
_FIRST_WAIT, _MAX_BACKOFF = 4, 128
"""Time of updates until the next comparison, as a multiple of what trying the other way took. It doubles each time that
nothing has changed, so that in the end comparisons cost a hundredth of the time; it starts small, because whether
threads share a core or wait for one may change within milliseconds."""
_LONGEST_WAIT_S = 5.0
"""Longest time of updates until the next comparison, in case the machine stood still during the last one."""

_SAFE_LAYERS = {"omp", "tbb"}
"""Numba's third threading layer, workqueue, aborts the process when two Python threads enter it at once."""


class _Setting(threading.local):
    parts: int | None = None
    has_safe_threads: bool | None = None


def _may_be_forked() -> bool:
    # If Numba's threads were started before this import, a child of multiprocessing may have them from its parent.
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
    """Cut the updates of this Python thread into ``n`` parts that run in parallel.

    It affects how long an update takes, never a result. Without it, updates measure from time to time whether several
    threads are faster than one. Numba's own setting, ``NUMBA_NUM_THREADS`` or the last ``numba.set_num_threads``, stays
    as it is and limits how many parts run at a time.

    Parameters
    ----------
    n : int
        Number of parts; 1 keeps every update of this thread on the core it runs on, which is best where several Python
        threads each train a model.

    Raises
    ------
    ValueError
        If ``n`` is not an integer >= 1.

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
    before, _setting.parts = _setting.parts, whole_number("the number of threads", n)
    try:
        yield
    finally:
        _setting.parts = before


def has_safe_threads() -> bool:
    """Start Numba's threads, load the parallel loop, and tell whether this Python thread may use them."""
    if _setting.has_safe_threads is None:
        _setting.has_safe_threads = False
        if _can_start_threads(numba.config.NUMBA_NUM_THREADS):
            # A layer may be missing, or /dev/shm, of which Numba warns: then updates are only slower.
            with suppress(ImportError, OSError, ValueError, Warning), _settings_left_alone():
                numba.get_num_threads()
                if numba.threading_layer() in _SAFE_LAYERS:
                    # The name keeps the program's memory alive while it runs.
                    nothing = Autotuner([])
                    run_parallel(nothing.program.ctypes.data, 1, 1)
                    _setting.has_safe_threads = True
    return _setting.has_safe_threads


def _can_start_threads(n: int) -> bool:
    # GNU OpenMP has threads of its own for each Python thread, and ends the process if the system allows no more.
    if sys.is_finalizing():
        # A thread that is started now waits for ever.
        return False
    stop, started = threading.Event(), []
    try:
        for _ in range(n):
            thread = threading.Thread(target=stop.wait, daemon=True)
            thread.start()
            started.append(thread)
        return True
    except RuntimeError:
        return False
    finally:
        stop.set()
        for thread in started:
            thread.join()


@contextmanager
def _settings_left_alone() -> Iterator[None]:
    # Numba asks multiprocessing for a lock, which would fix the method by which processes start.
    # When Numba starts its threads it sets the number of threads of OpenMP, and its levels, for the Python thread that
    # asked: other users of the same OpenMP library, as PyTorch may be one, would find them changed.
    before = [
        (library, library.omp_get_max_threads(), library.omp_get_max_active_levels()) for library in _openmp_libraries()
    ]
    is_chosen = multiprocessing.get_start_method(allow_none=True)
    try:
        yield
    finally:
        if not is_chosen:
            multiprocessing.set_start_method(None, force=True)
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


def _median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def _is_enough(times: list[float]) -> bool:
    return len(times) >= _TRIALS or (len(times) >= _LONG_TRIALS and min(times) >= _LONG_S)


class Autotuner:
    """Runs a program on one thread or on several; which is faster is found by trying both from time to time.

    No rule of thumb works. On the same machine and for the same million elements, two threads are twice as fast as
    one in a loop of updates alone, and ten times slower right after a product by OpenBLAS: its idle threads keep their
    cores for some milliseconds more, and the threads of OpenMP wait for one. No result depends on the choice.

    Parameters
    ----------
    calls : list of (int, int, int, int)
        Address of a kernel, address of the first row of a segment, and the numbers of the first element and the one
        after the last, each; see `table`.
    parallel_from : int, optional
        Elements below which a call runs on one thread.

    Attributes
    ----------
    program : ndarray of intp
        The program of the calls. Its word COMMITTED is 1 once all of them have run in this step.
    """

    __slots__ = (
        "_address",
        "_is_long",
        "_is_short",
        "_left",
        "_parallel",
        "_parallel_from",
        "_parts",
        "_times",
        "_usual",
        "_wait",
        "program",
    )

    def __init__(self, calls: list[Call], parallel_from: int | None = None) -> None:
        self.program = np.zeros(CALLS + 4 * len(calls), np.intp)
        self.program[COUNT] = len(calls)
        self.program[CALLS:] = [word for call in calls for word in call]
        self._address = self.program.ctypes.data
        self._parallel_from = _PARALLEL_FROM if parallel_from is None else parallel_from
        sizes = [last - first for _, _, first, last in calls]
        self._is_long = max(sizes, default=0) >= self._parallel_from
        self._is_short = sum(sizes) < self._parallel_from
        self._parallel = False
        self._parts = 1
        self._left = 0.0
        self._wait = _FIRST_WAIT
        self._usual = 0.0
        self._times: dict[bool, list[float]] = {False: [], True: []}

    def resize(self, k: int, total: int) -> None:
        """Give call ``k`` another number of elements, at most that which it was made with."""
        self.program[CALLS + 4 * k + 3] = total

    def runner(self) -> Callable[[], object]:
        """Return what `run` does until a call is resized.

        A short program runs on this thread. To find that out in each step takes a twentieth of a small update.
        """
        return run_short(self.program) if self._is_short else self.run

    def run(self) -> None:
        """Run the program once."""
        if not self._is_long or _forked:
            self._run_on(1)
        elif (parts := _setting.parts) is not None:
            self._run_on(parts)
        elif self._left <= 0:
            self._try()
        elif self._parallel:
            self._left -= self._timed(self._parts)
        else:
            self._left -= self._usual
            self._run_on(1)

    def _try(self) -> None:
        # The usual way is timed first, then the other.
        other = _is_enough(self._times[self._parallel])
        use_threads = self._parallel is not other
        if use_threads and not has_safe_threads():
            self._left = inf
            self._run_on(1)
            return
        if use_threads:
            # Asking Numba takes nearly as long as starting the threads, so it is not asked at each run.
            self._parts = int(numba.get_num_threads())
        times = self._times[use_threads]
        times.append(self._timed(self._parts if use_threads else 1))
        if not other:
            self._usual = _median(times)
        elif _is_enough(times):
            if _median(times) < self._usual:
                self._parallel, self._usual, self._wait = use_threads, _median(times), _FIRST_WAIT
            self._left = min(self._wait * sum(times), _LONGEST_WAIT_S)
            self._wait = min(2 * self._wait, _MAX_BACKOFF)
            self._times = {False: [], True: []}

    def _timed(self, parts: int) -> float:
        start = perf_counter()
        self._run_on(parts)
        return perf_counter() - start

    def _run_on(self, parts: int) -> None:
        if parts > 1 and has_safe_threads():
            run_parallel(self._address, min(parts, _MOST_PARTS), self._parallel_from)
        else:
            run(self._address)
