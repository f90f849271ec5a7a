"""One thread at a time: whoever works on an optimizer takes its turn, and puts it back.

A turn is a list of one item. To delete the item is one operation of the interpreter that nothing can divide, no
other thread and no signal, and it fails at once if the item is gone; it costs a quarter of what `threading.Lock` does,
which for a small update would be a tenth. Two threads that share an optimizer do so by mistake, and may wait a little
longer for that.

Whoever finds the turn taken waits in a queue. Its first puts a new turn, which is its own, in the place of the old one,
and waits for that; whoever comes from then on queues up behind. So nobody waits without end for a thread that updates
without a pause.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from types import CodeType, FrameType
from typing import Any, Concatenate, ParamSpec, TypeVar

from fastoptim.stacks import current_frames

__all__ = ["alone", "takes_turn", "wait"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

_PAUSE = 0.001
_LOOKS = 20
"""So often must nobody be seen at work, one pause after the other, until it is believed."""

_PROCESS = os.getpid()

_making = threading.Lock()


def _renew() -> None:
    # The thread that has it may not be there in a forked child.
    global _making
    _making = threading.Lock()


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
            turn = wait(self, method.__name__)
        try:
            return method(self, *args, **kwargs)
        finally:
            turn.append(None)

    return in_turn


def wait(optimizer: Any, method: str) -> list[None]:
    """Wait for the turn of an optimizer, take it, and return it, to be put back.

    Raises
    ------
    RuntimeError
        If this very thread has it, or waits for it; or if nobody has it: in a child that was forked while another
        thread had it.
    """
    if len([*_uses(optimizer, sys._getframe())]) > 1:
        raise RuntimeError(
            f"this {type(optimizer).__name__} is inside an update, so its scalars() or a signal handler cannot call "
            f"{method.lstrip('_')}; let that set a flag, and look at it after the update"
        )
    turn: list[None] = []
    with _queue(optimizer):
        before, optimizer._turn = optimizer._turn, turn
        try:
            _take(before, optimizer)
        except BaseException:
            # Nobody but the first in the queue looks at the new one.
            optimizer._turn = before
            raise
    return turn


def _queue(optimizer: Any) -> threading.RLock:
    """Return the lock that the first in the queue for an optimizer has, and all others wait for."""
    with _making:
        # In a forked child the first in the queue may not be there.
        queues: dict[int, threading.RLock] = vars(optimizer).setdefault("_queues", {})
        return queues.setdefault(os.getpid(), threading.RLock())


def _take(turn: list[None], optimizer: Any) -> None:
    looks = 0
    while looks < _LOOKS:
        # Whoever comes now finds another turn than this one, so it can only be had by those that are seen here.
        looks = 0 if _is_used(optimizer) else looks + 1
        try:
            del turn[0]
        except IndexError:
            time.sleep(_PAUSE)
        else:
            return
    if os.getpid() != _PROCESS:
        raise RuntimeError(
            f"this process was forked while a thread was inside an update of this {type(optimizer).__name__}, which "
            "may be half done here; make a new optimizer"
        )
    # Somebody was interrupted between taking the turn and beginning to work.


def _is_used(optimizer: Any) -> bool:
    """Tell whether any thread has, or may just be taking or returning, the turn of an optimizer."""
    with current_frames() as frames:
        return any(not waits for top in frames.values() for waits in _uses(optimizer, top))


def _uses(optimizer: Any, top: FrameType) -> Iterator[bool]:
    """Yield for each call on a stack that takes the turn of an optimizer whether it waits for it."""
    frame: FrameType | None = top
    called = None
    while frame is not None:
        if frame.f_code in _takers and frame.f_locals.get("self") is optimizer:
            yield called is wait.__code__
        called, frame = frame.f_code, frame.f_back
