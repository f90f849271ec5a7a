"""One thread at a time: whoever works on an optimizer takes its turn, and puts it back.

A turn is a list of one item. To delete the item is one operation of the interpreter that nothing can divide, no
other thread and no signal, and it fails at once if the item is gone; it costs a quarter of what `threading.Lock` does,
which for a small update would be a tenth. Two threads that share an optimizer do so by mistake, and may wait a little
longer for that.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from types import CodeType, FrameType
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["alone", "takes_turn", "wait"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

_PAUSE = 0.001
_LOOKS = 20
"""So often must nobody be seen at work, one pause after the other, until it is believed."""

_PROCESS = os.getpid()

_joining = threading.RLock()


def _renew() -> None:
    # The thread that has it may not be there in a forked child.
    global _joining
    _joining = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

_takers: set[CodeType] = set()


def takes_turn(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method that takes and returns the turn of its ``self`` by itself."""
    _takers.add(method.__code__)
    return method


def alone(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Decorate a method that has to wait until no thread is inside an update of its ``self``."""

    @takes_turn
    @wraps(method)
    def in_turn(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        turn = self._turn
        try:
            del turn[0]
        except IndexError:
            turn = wait(self)
        try:
            return method(self, *args, **kwargs)
        finally:
            turn.append(None)

    return in_turn


def wait(optimizer: Any) -> list[None]:
    """Wait for the turn of an optimizer, take it, and return it, to be put back.

    Raises
    ------
    RuntimeError
        If this very thread has it, or nobody: a child that was forked while another thread had it.
    """
    looks = 0
    before: list[None] | None = None
    turn: list[None] = []
    while looks < _LOOKS:
        inside = _threads_inside(optimizer)
        if threading.get_ident() in inside:
            raise RuntimeError(
                f"this {type(optimizer).__name__} is inside an update, and cannot be updated or be given another "
                "state by its own scalars() or by a signal handler"
            )
        if before is None:
            # Whoever comes from now on waits for this thread; else one that updates without a pause would go first
            # for ever.
            with _joining:
                before, optimizer._turn = optimizer._turn, turn
        looks = 0 if inside else looks + 1
        try:
            del before[0]
        except IndexError:
            time.sleep(_PAUSE)
            continue
        return turn
    if os.getpid() != _PROCESS:
        raise RuntimeError(
            f"this process was forked while a thread was inside an update of this {type(optimizer).__name__}, which "
            "may be half done here; make a new optimizer"
        )
    # Somebody was interrupted between taking the turn and beginning to work.
    return turn


def _threads_inside(optimizer: Any) -> set[int]:
    inside = set()
    for thread, top in sys._current_frames().items():
        frame: FrameType | None = top
        called = None
        while frame is not None:
            if frame.f_code in _takers and called is not wait.__code__ and frame.f_locals.get("self") is optimizer:
                inside.add(thread)
            called, frame = frame.f_code, frame.f_back
    return inside
