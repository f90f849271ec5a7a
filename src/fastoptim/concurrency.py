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
from math import inf
from types import CodeType, FrameType
from typing import Any, Concatenate, ParamSpec, TypeVar

from numba.core.compiler_lock import global_compiler_lock

__all__ = ["Guard", "acquire", "blas_calls", "compiling", "exclusive", "guarded"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

_POLL_S, _LONGEST_POLL_S = 1e-4, 5e-3
_FORK_TIMEOUT_S = 60.0
"""How long a fork waits for other threads: an interruption may have left one of them marked as busy."""
_NESTED_TIMEOUT_S = 5.0
"""How long a thread waits that is inside another update or compiles: the other thread may be waiting for it."""

_guarded_code: set[CodeType] = set()
_owners: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_exchange = threading.RLock()
_compiler_lock: Any = global_compiler_lock._lock


class Guard(list[None]):
    """The guard of an object: empty while a thread is inside an update, with one item otherwise.

    Attributes
    ----------
    instead : Guard or None
        The guard to wait for instead, because the thread that waited for that one has given up.
    is_abandoned : bool
        Whether the thread inside the update stayed behind in the parent process of a fork.
    """

    __slots__ = ("instead", "is_abandoned")

    def __init__(self, owner: Any, is_taken: bool = False) -> None:
        super().__init__(() if is_taken else (None,))
        self.instead: Guard | None = None
        self.is_abandoned = False
        _owners[id(owner)] = owner


def guarded(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method that takes and releases the guard of its ``self`` in its own body."""
    _guarded_code.add(method.__code__)
    return method


def exclusive(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Decorate a method that must not run while a thread is inside an update of its ``self``."""

    @guarded
    @wraps(method)
    def with_guard(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            guard = self._guard
        except AttributeError:
            name, given = method.__name__, type(self).__name__
            raise TypeError(f"{name} is a method of an object, as in opt.{name}(...), not of a {given}") from None
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
    """Put a guard that is taken in the place of that of an object, wait for the old one, and return the new one.

    So threads wait in a row, each for the guard of the one before it, and one that updates without a pause lets the
    others pass.

    Raises
    ------
    RuntimeError
        If this thread has the guard; if it is inside another update, or compiles, and has waited for some seconds; or
        if the thread that has the guard cannot go on, because of a fork or because the interpreter exits.
    """
    name = type(owner).__name__
    # The frame of the method that called has not got the guard yet.
    held = _held(sys._getframe(2))
    if any(each is owner for each, _ in held):
        raise RuntimeError(
            f"this {name} is inside an update, so its scalars() or a signal handler cannot call "
            f"{method.lstrip('_')}; let that set a flag, and look at it after the update"
        )
    deadline = time.monotonic() + _NESTED_TIMEOUT_S if held or _compiler_lock._is_owned() else inf
    guard, pause = Guard(owner, is_taken=True), _POLL_S
    before: Any = None
    try:
        with _exchange:
            before, vars(owner)["_guard"] = owner._guard, guard
        while True:
            try:
                del before[0]
            except IndexError:
                if before.instead is not None:
                    before = before.instead
                    continue
            else:
                return guard
            if before.is_abandoned:
                raise RuntimeError(
                    f"this process was forked while a thread was inside an update of this {name}, which may be half "
                    "done here; make a new optimizer"
                )
            if sys.is_finalizing() or time.monotonic() > deadline:
                raise RuntimeError(
                    f"this {name} is inside an update of another thread, which cannot end: the interpreter exits, or "
                    "that thread waits for an update that this one is inside of, or for its compilation"
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_S)
    except BaseException:
        guard.instead = before
        raise


def _held(frame: FrameType | None) -> list[tuple[Any, Guard | None]]:
    """Return the objects whose guarded methods a frame and its callers are in, and the guards if they hold them."""
    held = []
    while frame is not None:
        if frame.f_code in _guarded_code:
            held.append((frame.f_locals["self"], frame.f_locals.get("guard")))
        frame = frame.f_back
    return held


class _BlasCalls:
    """Calls of BLAS in progress. A fork waits for them: OpenBLAS would leave the child its locks as they are."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.gate = threading.RLock()

    def __enter__(self) -> None:
        with self.gate:
            self.threads.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self.threads.discard(threading.get_ident())


blas_calls = _BlasCalls()
"""A context manager around each call of BLAS."""


def _before_fork() -> None:
    # A child would inherit a lock that is held by a thread which it does not have.
    deadline = time.monotonic() + _FORK_TIMEOUT_S
    _compiler_lock.acquire(timeout=_FORK_TIMEOUT_S)
    blas_calls.gate.acquire()
    while blas_calls.threads - {threading.get_ident()} and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _after_fork() -> None:
    blas_calls.gate.release()
    if _compiler_lock._is_owned():
        _compiler_lock.release()


def _after_fork_in_child() -> None:
    global _exchange
    _exchange = threading.RLock()
    blas_calls.threads &= {threading.get_ident()}
    _after_fork()
    held = {id(owner): guard for owner, guard in _held(sys._getframe())}
    for number, owner in list(_owners.items()):
        if (guard := held.get(number)) is not None:
            # A thread that waited for this one has put a guard in its place.
            owner._guard = guard
        else:
            owner._guard.is_abandoned = not owner._guard


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


@contextmanager
def compiling() -> Iterator[None]:
    """Compile inside, without signal handlers, and release Numba's lock after any exception.

    Raises
    ------
    RuntimeError
        If the interpreter exits, where the thread that has the lock may have ended.
    """
    if sys.is_finalizing():
        raise RuntimeError("an update that has to compile or load its rule cannot run while the interpreter exits")
    is_nested = _compiler_lock._is_owned()
    try:
        with _deferred_signals():
            yield
    finally:
        # An exception that another thread throws may come between the taking of the lock and Numba's try block.
        if not is_nested and _compiler_lock._is_owned():
            _compiler_lock._release_save()


@contextmanager
def _deferred_signals() -> Iterator[None]:
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
