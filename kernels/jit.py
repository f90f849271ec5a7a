"""How this package is compiled: Numba's options and its cache on disk.

Every kernel is free of fast-math, so that no multiplication and addition are contracted and each operation rounds as
NumPy rounds it, and divides as NumPy does, by IEEE 754 and without a test for zero, so that loops vectorize.
"""

from __future__ import annotations

import _thread
import hashlib
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numba
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.compiler import Compiler, CompilerBase
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

__all__ = ["DISABLED", "inner", "jit", "native", "parallel_jit"]

DISABLED = bool(numba.config.DISABLE_JIT)
"""Whether ``NUMBA_DISABLE_JIT`` is set: then all kernels run as the Python they are written in."""

_OPTIONS = {"error_model": "numpy", "nogil": True}


_PATIENCE = 60.0
"""Seconds that a fork waits for another thread that compiles. One that was interrupted may have left the lock taken."""


class _CompilerLock:
    """Numba's lock, taken over a fork: a child of a process that compiles would wait for ever for it."""

    def __init__(self) -> None:
        self._is_taken = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._take, after_in_parent=self._give, after_in_child=self._give)

    def _take(self) -> None:
        self._is_taken = global_compiler_lock._lock.acquire(timeout=_PATIENCE)

    def _give(self) -> None:
        if self._is_taken:
            global_compiler_lock._lock.release()


_CompilerLock()


def _digest_of_sources() -> str:
    # Numba looks only at the file of the function itself, but a function is compiled together with what it calls:
    # after an upgrade that changes one file of this package, the cached code of every other one is suspect.
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


_SOURCES = _digest_of_sources()


class _Cache(FunctionCache):
    """Numba's cache on disk, but kept in files of which a bad one costs time and nothing else.

    A file holds the code for one signature. Its name stands for all that the code was compiled from and for, and it
    begins with a checksum. Numba itself lists the files of a function in an index, and takes what it finds on trust: a
    damaged file stops the program, or runs, and two processes that add a signature each, at once, may leave an index
    that gives the code of one for the other.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled for a signature, or None if there is no file of it, or none that is whole."""
        # Numba would make its compiler ready first: import some hundred modules, SciPy's among them, and register all
        # that they define, which takes three times as long as everything else in a first update. What is loaded needs
        # only the addresses of Numba's run time, by which it is linked.
        rtsys.initialize(target_context)
        # Whatever is wrong with a file, its code can be compiled anew.
        with suppress(Exception):
            path = self._path(sig, target_context.codegen())
            content = path.read_bytes()
            data = content[_CHECKSUM_SIZE:]
            if content[:_CHECKSUM_SIZE] == _checksum(path, data):
                return self._impl.rebuild(target_context, pickle.loads(data))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for a signature, if that is possible."""
        if not self._impl.check_cachable(data):
            return
        with suppress(Exception):
            path = self._path(sig, data.codegen)
            content = dumps(self._impl.reduce(data))
            temporary = path.with_name(f"{uuid4().hex}.tmp")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(_checksum(path, content) + content)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def _path(self, sig: Any, codegen: Any) -> Path:
        key = repr((numba.__version__, self._index_key(sig, codegen)))
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return Path(self.cache_path) / f"{self._impl.filename_base}-{digest}.nbc"


_CHECKSUM_SIZE = hashlib.sha256().digest_size


def _checksum(path: Path, data: bytes) -> bytes:
    # Of the name as well: the file of another function is no better than a damaged one.
    return hashlib.sha256(path.name.encode() + data).digest()


def _cached(compiler: Callable[..., Any], function: Callable[..., Any]) -> Any:
    # The qualified name is part of the name of the cache file: code of other sources cannot be taken for this.
    function.__qualname__ = f"{function.__qualname__}-{_SOURCES}"
    compiled = compiler(function)
    # Where neither the package's folder nor the user's can be written, there is no cache.
    with suppress(OSError, RuntimeError):
        compiled._cache = _Cache(function)
    return _uninterrupted(compiled)


def _uninterrupted(compiled: Any) -> Any:
    """Have a function compiled, or loaded from the cache, in a thread, where no signal handler can interrupt that.

    An exception in the middle of Numba's compiler, or of LLVM, may leave them unable to compile anything else in this
    process, or end it. Whoever is interrupted goes on at once; what was begun is finished meanwhile, and kept.
    """

    def compile_apart(*signature: Any) -> Any:
        compile_now = partial(type(compiled).compile, compiled, *signature)
        # A thread would wait for ever for the lock if it is this one that has it: compiling what calls this function.
        if threading.current_thread() is not threading.main_thread() or global_compiler_lock.is_locked():
            return compile_now()
        future: Future[Any] = Future()
        finished = threading.Lock()
        finished.acquire()

        def work() -> None:
            try:
                future.set_result(compile_now())
            except BaseException as error:
                future.set_exception(error)
            finally:
                finished.release()

        # Python waits for this one at its end, as it would not for a thread of the module _thread.
        thread = threading.Thread(target=work)

        def start() -> None:
            try:
                thread.start()
            except BaseException as error:
                future.set_exception(error)
                finished.release()

        # What Thread.start and Future.result wait by raises a RuntimeError if it is interrupted at the wrong moment.
        _thread.start_new_thread(start, ())
        finished.acquire()
        return future.result()

    compiled.compile = compile_apart
    return compiled


def jit(function: Callable[..., Any], nogil: bool = True) -> Any:
    """Compile a function on first use, serially; unless ``nogil`` is false, it lets other Python threads run."""
    return function if DISABLED else _cached(numba.njit(**_OPTIONS | {"nogil": nogil}), function)


def parallel_jit(function: Callable[..., Any]) -> Any:
    """Compile a function on first use; its ``prange`` loops share out their iterations among Numba's threads."""
    return function if DISABLED else _cached(numba.njit(parallel=True, **_OPTIONS), function)


def inner(function: Callable[..., Any], pipeline: type[CompilerBase] = Compiler) -> Any:
    """Compile a function that only other compiled functions call, and that is cached as a part of them."""
    return numba.njit(pipeline_class=pipeline, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


def native(function: Callable[..., Any], n_integers: int, keep: bool) -> Any:
    """Compile now a function of integers that returns nothing; its ``address`` can be called from any other kernel.

    The products of one template must differ in their qualified names, or they are taken for one another in the cache,
    unless ``keep`` is false and they are not kept there.
    """
    if DISABLED:
        return SimpleNamespace(address=function)
    signature = (numba.types.intp,) * n_integers, numba.types.void
    compiler = partial(CFunc, sig=signature, locals={}, options=_OPTIONS)
    compiled = _cached(compiler, function) if keep else _uninterrupted(compiler(function))
    compiled.compile()
    return compiled
