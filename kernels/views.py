"""Arrays at addresses, which the passes of a network are given in place of arrays.

An array that Numba slices and reshapes takes several times as long to compile, because of what either may raise.
Without compilation, these are functions of Python.
"""

from __future__ import annotations

import math
from ctypes import c_char
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from fastoptim.kernels.jit import DISABLED, inline_jit
from fastoptim.kernels.memory import load, word

__all__ = ["elements_of", "integer_at", "matrix_at", "number_at", "vector_at"]


def _array(context: Any, builder: Any, kind: Any, T: Any, address: Any, begin: Any, shape: Any) -> Any:
    array = make_array(kind)(context, builder)
    element = context.get_data_type(T.instance_type)
    size = context.get_constant(types.intp, context.get_abi_sizeof(element))
    data = builder.gep(builder.inttoptr(address, element.as_pointer()), [begin])
    strides = [builder.mul(size, shape[1]), size] if len(shape) == 2 else [size]
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return array._getvalue()


@intrinsic
def _vector_at(_typing: Any, T: Any, _address: Any, _begin: Any, _size: Any) -> Any:
    kind = types.Array(T.instance_type, 1, "C")

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _array(context, builder, kind, T, args[1], args[2], args[3:])

    return kind(T, types.intp, types.intp, types.intp), codegen


@intrinsic
def _matrix_at(_typing: Any, T: Any, _address: Any, _begin: Any, _rows: Any, _columns: Any) -> Any:
    kind = types.Array(T.instance_type, 2, "C")

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _array(context, builder, kind, T, args[1], args[2], args[3:])

    return kind(T, types.intp, types.intp, types.intp, types.intp), codegen


@inline_jit
def _number_at(address, k):
    (number,) = load((np.float64,), (address,), k)
    return number


def _in_python(T: Any, address: int, begin: int, *shape: int) -> Any:
    size = np.dtype(T).itemsize
    memory = (c_char * (size * math.prod(shape))).from_address(int(address) + size * int(begin))
    return np.ndarray(shape, T, memory)


if DISABLED:
    vector_at = matrix_at = _in_python

    def integer_at(address: int, k: int) -> int:
        """Return the integer number ``k`` from an address on."""
        return int(_in_python(np.intp, address, k, 1)[0])

    def number_at(address: int, k: int) -> float:
        """Return the float64 number ``k`` from an address on."""
        return float(_in_python(np.float64, address, k, 1)[0])

else:
    vector_at, matrix_at, integer_at, number_at = _vector_at, _matrix_at, word, _number_at


@inline_jit
def elements_of(T, array):
    """Return a contiguous array as one row: a long loop needs no rest of a vector at the end of each row."""
    return vector_at(T, array.ctypes.data, 0, array.size)
