"""How this package is compiled: Numba's options.

No kernel uses fast-math, so no multiplication and addition are contracted and each operation rounds as NumPy rounds it.
Division follows IEEE 754, as NumPy's does, without a test for zero, so that loops vectorize.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import numba
from llvmlite.binding import get_host_cpu_features, get_process_triple
from numba.core.ccallback import CFunc
from numba.core.compiler import Compiler, CompilerBase

from fastoptim.concurrency import compiling
from fastoptim.kernels.cache import CodeCache

__all__ = [
    "DISABLED",
    "HAS_AVX512",
    "HAS_FLOAT16",
    "HAS_FMA",
    "bind_globals",
    "cfunc",
    "inline_jit",
    "jit",
    "parallel_jit",
]

DISABLED = bool(numba.config.DISABLE_JIT)
"""Whether ``NUMBA_DISABLE_JIT`` is set: then networks run as Python, and rules by the fallback."""

_FEATURES = numba.config.CPU_FEATURES


def _has(feature: str) -> bool:
    """Return whether Numba compiles for a processor with a feature."""
    return get_host_cpu_features().get(feature, False) if _FEATURES is None else f"+{feature}" in _FEATURES


HAS_FLOAT16 = _has("f16c") or get_process_triple().startswith(("aarch64", "arm64"))
"""Whether the processor converts float16 numbers; LLVM would call functions for it that are not there."""
HAS_AVX512 = _has("avx512f") and bool(numba.config.ENABLE_AVX)
"""Whether there are 32 registers of 64 bytes."""
HAS_FMA = _has("fma") and _has("avx2") and bool(numba.config.ENABLE_AVX)
"""Whether vectors of 32 bytes are multiplied and added at once; LLVM would call a function for each element."""

_OPTIONS = {"error_model": "numpy", "nogil": True}


def _cached(compiled: Any, function: Callable[..., Any], is_current: Callable[[], bool] = lambda: True) -> Any:
    compiled._cache = CodeCache(function, is_current)
    return compiled


def _uninterrupted(compiled: Any) -> Any:
    """Let no signal handler interrupt a compilation: Numba and LLVM may be unable to compile afterwards."""
    compile_now = compiled.compile

    def compile_uninterrupted(*signature: Any) -> Any:
        with compiling():
            return compile_now(*signature)

    compiled.compile = compile_uninterrupted
    return compiled


def jit(function: Callable[..., Any], nogil: bool = True) -> Any:
    """Compile a function on first use, serially; unless ``nogil`` is false, it lets other Python threads run."""
    if DISABLED:
        return function
    return _uninterrupted(_cached(numba.njit(**_OPTIONS | {"nogil": nogil})(function), function))


def parallel_jit(function: Callable[..., Any]) -> Any:
    """Compile a function on first use; its ``prange`` loops share out their iterations among Numba's threads."""
    return function if DISABLED else _uninterrupted(_cached(numba.njit(parallel=True, **_OPTIONS)(function), function))


def inline_jit(function: Callable[..., Any], pipeline: type[CompilerBase] = Compiler) -> Any:
    """Compile a function that only other compiled functions call, and that is cached as a part of them."""
    return numba.njit(pipeline_class=pipeline, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


@compiling()
def cfunc(
    function: Callable[..., Any],
    n_integers: int,
    is_current: Callable[[], bool] | None,
    returns: numba.types.Type = numba.types.void,
) -> Any:
    """Compile now a function of integers, which mostly returns nothing; other code can call its ``address``.

    It is cached unless ``is_current`` is None or, after the compilation, false. Functions made from one template must
    then differ in their qualified names, which are part of the names of their files.
    """
    signature = (numba.types.intp,) * n_integers, returns
    compiled = partial(CFunc, sig=signature, locals={}, options=_OPTIONS)(function)
    if is_current:
        _cached(compiled, function, is_current)
    compiled.compile()
    return compiled


def address(compiled: Any) -> int:
    """Return the address of a function of integers that was compiled for one signature, to be called as in C."""
    (result,) = compiled.overloads.values()
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name))


def bind_globals(template: Callable[..., Any], names: dict[str, Any], suffix: str) -> FunctionType:
    """Return a function with the code of a template, in which some global names have other values.

    The cache looks at no globals, so the suffix of its name must stand for them. The name also keeps the symbols of
    kernels apart that were cached by different processes and are loaded by a third. Loading a function from the cache
    imports its module, which for a custom rule may have changed or gone: hence this module's name.
    """
    function = getattr(template, "py_func", template)
    bound = FunctionType(
        function.__code__,
        {**function.__globals__, **names, "__name__": __name__},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    bound.__qualname__ = f"{function.__name__}-{suffix}"
    return bound
