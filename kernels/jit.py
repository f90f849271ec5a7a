"""How this package is compiled: Numba's options and its cache on disk.

Every kernel is free of fast-math, so that no multiplication and addition are contracted and each operation rounds as
NumPy rounds it, and divides as NumPy does, by IEEE 754 and without a test for zero, so that loops vectorize.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.compiler import Compiler, CompilerBase
from numba.core.runtime import rtsys

__all__ = ["DISABLED", "inner", "jit", "native", "parallel_jit"]

DISABLED = bool(numba.config.DISABLE_JIT)
"""Whether ``NUMBA_DISABLE_JIT`` is set: then all kernels run as the Python they are written in."""

_OPTIONS = {"error_model": "numpy", "nogil": True}


def _digest_of_sources() -> str:
    # Numba looks only at the file of the function itself, but a function is compiled together with what it calls:
    # after an upgrade that changes one file of this package, the cached code of every other one is suspect.
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


_SOURCES = _digest_of_sources()


class _Cache(FunctionCache):
    """A cache from which code is loaded without a compiler.

    Numba makes its compiler ready before it looks into the cache: it imports some hundred modules, SciPy's among them,
    and registers all that they define. That takes three times as long as everything else in a first update.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code compiled for a signature, or None."""
        # This much a loaded function needs: the addresses of Numba's run time, by which it is linked.
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


def _cached(compiled: Any, function: Callable[..., Any]) -> Any:
    # The qualified name is part of the name of the cache file: code of other sources cannot be taken for this.
    function.__qualname__ = f"{function.__qualname__}-{_SOURCES}"
    # Where neither the package's folder nor the user's can be written, compiling anew costs time, but works.
    with suppress(OSError, RuntimeError):
        compiled._cache = _Cache(function)
    return compiled


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function on first use, serially; it runs without the GIL."""
    return function if DISABLED else _cached(numba.njit(**_OPTIONS)(function), function)


def parallel_jit(function: Callable[..., Any]) -> Any:
    """Compile a function on first use; its ``prange`` loops share out their iterations among Numba's threads."""
    return function if DISABLED else _cached(numba.njit(parallel=True, **_OPTIONS)(function), function)


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
    compiled = CFunc(function, signature, locals={}, options=_OPTIONS)
    if keep:
        _cached(compiled, function)
    compiled.compile()
    return compiled
