"""Run a kernel over a range, cut into parts for as many threads as are worth their start."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba
from numba import prange

from fastoptim.kernels.jit import jit, parallel_jit
from fastoptim.kernels.memory import call

__all__ = ["launch", "num_threads"]

_PARALLEL_FROM = 16_384
"""Elements from which two threads are faster than one: starting them costs as much as updating some ten thousand."""

_ALIGNMENT = 64
"""Parts begin at multiples of this many elements, so that no two threads write to one cache line."""

_SAFE_LAYERS = {"omp", "tbb"}
"""Numba's third threading layer, workqueue, aborts the process when two Python threads enter it at once."""


class _Setting(threading.local):
    parts: int | None = None


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

    Only how long an update takes depends on it, never a result. Numba's own setting is left as it is, and limits how
    many parts run at a time: ``NUMBA_NUM_THREADS``, or what ``numba.set_num_threads`` said last.

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
    >>> opt, params = fo.SGD(lr=1.0), {"w": np.ones(1_000_000)}
    >>> with fo.num_threads(1):
    ...     opt.update(params, {"w": np.ones(1_000_000)})
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


def _parts() -> int:
    if _forked:
        return 1
    available = numba.get_num_threads()
    if numba.threading_layer() not in _SAFE_LAYERS:
        return 1
    return available if _setting.parts is None else _setting.parts


@jit
def _run(kernel, rows, total):
    call(kernel, rows, 0, total)


@parallel_jit
def _run_parallel(kernel, rows, total, parts):
    blocks = (total + _ALIGNMENT - 1) // _ALIGNMENT
    for k in prange(parts):
        start = blocks * k // parts * _ALIGNMENT
        stop = min(total, blocks * (k + 1) // parts * _ALIGNMENT)
        call(kernel, rows, start, stop)


def launch(kernel: int, rows: int, total: int) -> None:
    """Run the kernel at an address over ``total`` elements of the table of rows at another."""
    if total < _PARALLEL_FROM or _setting.parts == 1 or (parts := _parts()) == 1:
        _run(kernel, rows, total)
    else:
        _run_parallel(kernel, rows, total, parts)
