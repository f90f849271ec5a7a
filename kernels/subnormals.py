"""Flush subnormal numbers to zero inside a kernel, and only there.

If a gradient stays zero, moments decay below the smallest normal number and stay there, and arithmetic with such
numbers is tens of times slower. Processors flush them to zero at no cost if a flag of the thread is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_process_triple
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastoptim.kernels.jit import jit

__all__ = ["flush_subnormals", "flushed", "restore_subnormals"]

# Python may name another processor than LLVM compiles for: under `setarch i686`, and for x86 programs on ARM.
_X86 = get_process_triple().startswith("x86_64")
_ARM = get_process_triple().startswith(("aarch64", "arm64"))
_FLAGS = 0x8040 if _X86 else 1 << 24
"""x86: MXCSR, flush-to-zero and denormals-are-zero (Intel SDM vol. 1, 10.2.3); ARM: FPCR.FZ (Arm ARM, C5.2.8)."""


def _intrinsic(builder: Any, name: str, result: ir.Type, arguments: list[ir.Type]) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _read(builder: Any) -> Any:
    if _X86:
        slot = cgutils.alloca_once(builder, ir.IntType(32))
        pointer = builder.bitcast(slot, ir.IntType(8).as_pointer())
        builder.call(_intrinsic(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [pointer.type]), [pointer])
        return builder.zext(builder.load(slot), ir.IntType(64))
    if _ARM:
        return builder.call(_intrinsic(builder, "llvm.aarch64.get.fpcr", ir.IntType(64), []), [])
    return ir.IntType(64)(0)


def _write(builder: Any, flags: Any) -> None:
    if _X86:
        slot = cgutils.alloca_once(builder, ir.IntType(32))
        builder.store(builder.trunc(flags, ir.IntType(32)), slot)
        pointer = builder.bitcast(slot, ir.IntType(8).as_pointer())
        builder.call(_intrinsic(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [pointer.type]), [pointer])
    elif _ARM:
        builder.call(_intrinsic(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [ir.IntType(64)]), [flags])


@intrinsic
def flush_subnormals(_typing: Any) -> Any:
    """Set the flags that flush subnormal numbers to zero in this thread; return the flags from before."""

    def codegen(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        before = _read(builder)
        _write(builder, builder.or_(before, ir.IntType(64)(_FLAGS)))
        return before

    return types.int64(), codegen


@intrinsic
def restore_subnormals(_typing: Any, _flags: Any) -> Any:
    """Set the flags of this thread to those that `flush_subnormals` returned."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _write(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@jit
def _flush():
    return flush_subnormals()


@jit
def _restore(flags):
    restore_subnormals(flags)


@contextmanager
def flushed() -> Iterator[None]:
    """Flush subnormal numbers in this thread, so that NumPy computes as kernels do."""
    before = _flush()
    try:
        yield
    finally:
        _restore(before)
