"""Threads that share an optimizer, forks, and signals: one guard for each, made of plain locks.

An optimizer's guard is a list of one item, which `Optimizer.update` deletes on entry and appends on exit. Deleting a
list item is atomic and a quarter of the price of `threading.Lock`, which would cost a small update a tenth of its time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import CodeType, FrameType
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["Guard", "acquire", "blas_calls", "deferred_signals", "exclusive", "fork_waits_for", "guarded"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

_POLL_S = 1e-4
_TIMEOUT_S = 60.0
"""How long a fork waits for other threads: an interruption may have left one of them marked as busy."""

_guarded_code: set[CodeType] = set()
_owners: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class Guard(list[None]):
    """The guard of an object: empty while a thread is inside an update, with one item otherwise.

    Attributes
    ----------
    queue : threading.Lock
        Held by the first of the threads that wait; the others wait for the lock.
    is_abandoned : bool
        Whether the thread inside the update stayed behind in the parent process of a fork.
    """

    __slots__ = ("is_abandoned", "queue")

    def __init__(self, owner: Any) -> None:
        super().__init__((None,))
        self.queue = threading.Lock()
        self.is_abandoned = False
        _owners[id(owner)] = owner

    def successor(self) -> Guard:
        """Return a guard that is taken, with the same queue."""
        guard = Guard.__new__(Guard)
        guard.queue, guard.is_abandoned = self.queue, False
        return guard


def guarded(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method that takes and releases the guard of its ``self`` in its own body."""
    _guarded_code.add(method.__code__)
    return method


def exclusive(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Decorate a method that must not run while a thread is inside an update of its ``self``."""

    @guarded
    @wraps(method)
    def with_guard(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        guard = self._guard
        try:
            del guard[0]
        except IndexError:
            guard = acquire(self, method.__name__)
        try:
            return method(self, *args, **kwargs)
        finally:
            guard.append(None)

    return with_guard


def acquire(owner: Any, method: str) -> Guard:
    """Wait for the guard of an object, take it and return it, or its successor.

    Raises
    ------
    RuntimeError
        If this thread holds the guard, or if its holder stayed behind in the parent process of a fork.
    """
    # The frame of the method that called has not got the guard yet.
    if _is_inside(owner, sys._getframe(2)):
        raise RuntimeError(
            f"this {type(owner).__name__} is inside an update, so its scalars() or a signal handler cannot call "
            f"{method.lstrip('_')}; let that set a flag, and look at it after the update"
        )
    before: Guard = owner._guard
    taken = False
    try:
        with before.queue:
            # Threads that come now find the successor taken: one that updates without a pause lets this one pass.
            before = owner._guard
            owner._guard = guard = before.successor()
            while not (taken := _try(before)):
                if before.is_abandoned:
                    raise RuntimeError(
                        f"this process was forked while a thread was inside an update of this {type(owner).__name__}, "
                        "which may be half done here; make a new optimizer"
                    )
                time.sleep(_POLL_S)
        return guard
    except BaseException:
        owner._guard = before
        if taken:
            before.append(None)
        raise


def _try(guard: Guard) -> bool:
    try:
        del guard[0]
    except IndexError:
        return False
    return True


def _is_inside(owner: Any, frame: FrameType | None) -> bool:
    """Tell whether the calls of this thread include a guarded method of an object."""
    while frame is not None:
        if frame.f_code in _guarded_code and frame.f_locals.get("self") is owner:
            return True
        frame = frame.f_back
    return False


def _abandon_guards() -> None:
    for owner in list(_owners.values()):
        if not _is_inside(owner, sys._getframe()):
            guard = Guard(owner)
            if not owner._guard:
                guard.clear()
                guard.is_abandoned = True
            owner._guard = guard


class _BlasCalls:
    """Calls of BLAS in progress. A fork waits for them: OpenBLAS would leave the child its locks as they are."""

    def __init__(self) -> None:
        self._threads: set[int] = set()
        self._gate = threading.RLock()

    def __enter__(self) -> None:
        with self._gate:
            self._threads.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self._threads.discard(threading.get_ident())

    def before_fork(self) -> None:
        self._gate.acquire()
        deadline = time.monotonic() + _TIMEOUT_S
        while self._threads - {threading.get_ident()} and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def after_fork(self) -> None:
        self._gate.release()

    def after_fork_in_child(self) -> None:
        self._threads &= {threading.get_ident()}
        self._gate.release()


blas_calls = _BlasCalls()
"""A context manager around each call of BLAS."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=blas_calls.before_fork,
        after_in_parent=blas_calls.after_fork,
        after_in_child=blas_calls.after_fork_in_child,
    )
    os.register_at_fork(after_in_child=_abandon_guards)


def fork_waits_for(lock: Any) -> None:
    """Hold a lock during forks, so that no child inherits it from a thread that it does not have."""
    taken = []
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lambda: taken.append(lock.acquire(timeout=_TIMEOUT_S)),
            after_in_parent=lambda: taken.pop() and lock.release(),
            after_in_child=lambda: taken.pop() and lock.release(),
        )


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Run the Python handlers of signals that arrive inside at the end: an exception would leave a compiler broken."""
    if threading.current_thread() is not threading.main_thread():
        # Python runs handlers in the main thread only.
        yield
        return
    arrived: list[tuple[Any, int, FrameType | None]] = []
    before: dict[int, Any] = {}

    def defer(number: int, frame: FrameType | None) -> None:
        arrived.append((before[number], number, frame))

    try:
        for valid in signal.valid_signals():
            handler = signal.getsignal(valid)
            if callable(handler):
                before[int(valid)] = handler
                signal.signal(valid, defer)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for handler, number, frame in arrived:
            handler(number, frame)
