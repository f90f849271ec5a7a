"""Products by BLAS, and forks that must not come between."""

import os
import threading
import time

__all__ = ["products"]


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
            self._threads.remove(threading.get_ident())
            with self._gate:
                self._threads.append(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self._threads.remove(threading.get_ident())

    def _wait(self) -> None:
        self._gate.acquire()
        self._is_closed = True
        while any(thread != threading.get_ident() for thread in self._threads):
            time.sleep(1e-4)

    def _go_on(self) -> None:
        self._is_closed = False
        self._gate.release()


products = _Products()
"""To be entered by whoever calls BLAS."""
