"""The calls that other threads are in, looked at without harm to them."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["current_frames"]

_looking = threading.RLock()

if hasattr(os, "register_at_fork"):
    # No child begins with the collector switched off, or the lock taken, by a thread that it does not have.
    os.register_at_fork(before=_looking.acquire, after_in_parent=_looking.release, after_in_child=_looking.release)


@contextmanager
def current_frames() -> Iterator[dict[int, FrameType]]:
    """Give the top frame of each thread, by its number; the frames below are to be asked for inside only.

    To ask for a frame makes an object, and that may call the garbage collector. If this calls Python in turn, as a
    finalizer or an entry of ``gc.callbacks`` is, other threads go on in the middle of it, and return from the very
    function whose frame is about to be read: CPython 3.11 reads what lies there instead.
    """
    with _looking:
        was_enabled = gc.isenabled()
        try:
            gc.disable()
            yield sys._current_frames()
        finally:
            if was_enabled:
                gc.enable()
