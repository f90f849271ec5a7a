"""Products by BLAS, and forks that must not come between."""

import os
import threading
import time
from contextlib import suppress

from fastoptim.stacks import current_frames

__all__ = ["products"]

_PLACES = "fastoptim.network", __name__


class _Products:
    """Calls of BLAS that are under way, for which a fork waits: OpenBLAS leaves its locks to the child as they are.

    A child that was forked while another thread multiplied would wait for ever at its own first product.
    """

    def __init__(self) -> None:
        self._threads: list[int] = []
        self._gate = threading.RLock()
        self._is_closed = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self._go_on)

    def __enter__(self) -> None:
        self._threads.append(threading.get_ident())
        while self._is_closed:
            # Whoever forks looks at the list after closing the gate, so one of the two sees the other.
            # All of its entries: one that an interruption left here would keep the fork waiting for this very thread.
            while threading.get_ident() in self._threads:
                self._threads.remove(threading.get_ident())
            with self._gate:
                self._threads.append(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):
            self._threads.remove(threading.get_ident())

    def _wait(self) -> None:
        self._gate.acquire()
        self._is_closed = True
        while any(map(_is_inside, self._threads.copy())):
            time.sleep(1e-4)

    def _go_on(self) -> None:
        self._is_closed = False
        self._gate.release()


def _is_inside(thread: int) -> bool:
    # An interruption can come between entering and the block, and then nobody leaves: only what runs counts.
    with current_frames() as frames:
        frame = frames.get(thread) if thread != threading.get_ident() else None
        while frame is not None and frame.f_globals.get("__name__") not in _PLACES:
            frame = frame.f_back
        return frame is not None


products = _Products()
"""To be entered by whoever calls BLAS."""
