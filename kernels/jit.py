"""How this package is compiled: Numba's options and its cache on disk.

Every kernel is free of fast-math, so that no multiplication and addition are contracted and each operation rounds as
NumPy rounds it, and divides as NumPy does, by IEEE 754 and without a test for zero, so that loops vectorize.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
from numba.core.compiler import Compiler, CompilerBase

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


def _cached(compile_: Callable[..., Any], function: Callable[..., Any]) -> Any:
    # The qualified name is part of the name of the cache file: code of other sources cannot be taken for this.
    function.__qualname__ = f"{function.__qualname__}-{_SOURCES}"
    try:
        return compile_(cache=True)(function)
    except (OSError, RuntimeError):
        # Neither the package's folder nor the user's can be written: compiling anew costs time, but works.
        return compile_(cache=False)(function)


def jit(function: Callable[..., Any], nogil: bool = True) -> Any:
    """Compile a function on first use, serially; unless ``nogil`` is false, it lets other Python threads run."""
    return _cached(partial(numba.njit, **_OPTIONS | {"nogil": nogil}), function)


def parallel_jit(function: Callable[..., Any]) -> Any:
    """Compile a function on first use; its ``prange`` loops share out their iterations among Numba's threads."""
    return _cached(partial(numba.njit, parallel=True, **_OPTIONS), function)


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
    signature = numba.types.void(*[numba.types.intp] * n_integers)
    compile_ = partial(numba.cfunc, signature, **_OPTIONS)
    return _cached(compile_, function) if keep else compile_()(function)
