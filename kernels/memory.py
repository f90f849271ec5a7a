"""Memory by address: what a kernel needs to walk over arrays that it was never given as arguments.

Each function stands here twice, in Python and as the LLVM instructions it compiles to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from fastoptim.kernels.jit import DISABLED

__all__ = ["call", "compiles_to", "int32_at", "integers", "load", "scalars", "store"]


def compiles_to(python: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a typing and lowering of what ``python`` does; with compilation disabled, it is ``python`` that runs."""
    return lambda llvm: python if DISABLED else intrinsic(prefer_literal=True)(llvm)


def _array_at(address: int, dtype: Any, count: int) -> np.ndarray:
    buffer = (ctypes.c_char * (np.dtype(dtype).itemsize * count)).from_address(int(address))
    return np.frombuffer(buffer, dtype)


def _element(builder: Any, element: ir.Type, address: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [index])


def _python_int32_at(address: int) -> int:
    return int(_array_at(address, np.int32, 1)[0])


@compiles_to(_python_int32_at)
def int32_at(_typing: Any, address: Any) -> Any:
    """Return the 32-bit integer at an address."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        return builder.sext(builder.load(pointer), ir.IntType(64))

    return types.intp(address), codegen


def _python_integers(address: int, count: int) -> tuple[int, ...]:
    return tuple(_array_at(address, np.intp, count).tolist())


@compiles_to(_python_integers)
def integers(_typing: Any, address: Any, count: Any) -> Any:
    """Return the ``count`` address-sized integers at an address; the count is a constant of the program."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        values = [builder.load(_element(builder, word, args[0], word(k))) for k in range(count.literal_value)]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(types.intp, count.literal_value)(address, count), codegen


def _python_scalars(T: Any, address: int, count: int) -> tuple[Any, ...]:
    return tuple(T(value) for value in _array_at(address, np.float64, count))


@compiles_to(_python_scalars)
def scalars(_typing: Any, T: Any, address: Any, count: Any) -> Any:
    """Return the ``count`` float64 numbers at an address, each rounded once to type ``T``."""
    dtype = T.instance_type

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        numbers = [
            builder.load(_element(builder, ir.DoubleType(), args[1], word(k))) for k in range(count.literal_value)
        ]
        values = [context.cast(builder, number, types.float64, dtype) for number in numbers]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(dtype, count.literal_value)(T, address, count), codegen


def _python_load(T: Any, addresses: tuple[int, ...], index: int) -> tuple[Any, ...]:
    size = np.dtype(T).itemsize
    return tuple(_array_at(address + index * size, T, 1)[0] for address in addresses)


@compiles_to(_python_load)
def load(_typing: Any, T: Any, addresses: Any, index: Any) -> Any:
    """Return the element ``index`` of each of several arrays of type ``T``, given by their addresses."""
    dtype = T.instance_type

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_value_type(dtype)
        values = [
            builder.load(_element(builder, element, address, args[2]))
            for address in cgutils.unpack_tuple(builder, args[1], len(addresses))
        ]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(dtype, len(addresses))(T, addresses, index), codegen


def _python_store(T: Any, addresses: tuple[int, ...], index: int, values: Any) -> None:
    size = np.dtype(T).itemsize
    for address, value in zip(addresses, values if isinstance(values, tuple) else (values,), strict=True):
        _array_at(address + index * size, T, 1)[0] = value


@compiles_to(_python_store)
def store(_typing: Any, T: Any, addresses: Any, index: Any, values: Any) -> Any:
    """Store one value, or a tuple of them, as element ``index`` of as many arrays of type ``T``."""
    dtype = T.instance_type
    kinds = tuple(values) if isinstance(values, types.BaseTuple) else (values,)
    if len(kinds) != len(addresses):
        raise TypingError(f"it returns {len(kinds)} values, expected {len(addresses)}: the parameter and its state")
    if not all(isinstance(kind, types.Number | types.Boolean) for kind in kinds):
        raise TypingError(f"it returns {', '.join(map(str, kinds))}, expected numbers; is a return missing?")

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        element = context.get_value_type(dtype)
        unpacked = cgutils.unpack_tuple(builder, args[3]) if isinstance(values, types.BaseTuple) else [args[3]]
        pointers = cgutils.unpack_tuple(builder, args[1], len(addresses))
        for pointer, value, kind in zip(pointers, unpacked, kinds, strict=True):
            builder.store(context.cast(builder, value, kind, dtype), _element(builder, element, pointer, args[2]))
        return context.get_dummy_value()

    return types.void(T, addresses, index, values), codegen


def _python_call(function: Callable[[int, int, int], None], a: int, b: int, c: int) -> None:
    function(a, b, c)


@compiles_to(_python_call)
def call(_typing: Any, _function: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """Call the native function of three integers at an address."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 3)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), codegen
