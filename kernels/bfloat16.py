"""Elements that are stored as bfloat16, the upper half of a float32, and are float32 wherever they are computed with.

A float32 is rounded to the nearest of its two neighbours, and to the even one of a tie, or at random: up with the
probability of the part that is cut off, so that its expectation is kept, however small the changes of a number are.

Everything is done with integers of 32 bits. LLVM does not vectorize its own conversion to bfloat16, and Numba makes
64 bits of two unsigned integers of 32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import typeof_impl

__all__ = ["BFLOAT16", "RANDOM_BFLOAT16", "BFloat16", "Stored", "key_halves", "random_bits", "rounded", "widened"]

_I16, _I32 = ir.IntType(16), ir.IntType(32)


class BFloat16(types.Type):
    """The type of elements in memory; no value of compiled code has it."""

    def __init__(self, name: str, is_random: bool) -> None:
        self.is_random = is_random
        super().__init__(name)

    bitwidth = 16


class Stored:
    """What stands for a type of elements where it is a constant of a kernel, as `numpy.float32` does for another."""

    itemsize = 2

    def __init__(self, name: str, is_random: bool = False) -> None:
        self.__name__ = name
        self.numba_type = BFloat16(name, is_random)


BFLOAT16 = Stored("bfloat16")
"""Elements that are rounded to nearest."""
RANDOM_BFLOAT16 = Stored("random_bfloat16", is_random=True)
"""Elements that are rounded at random."""


@typeof_impl.register(Stored)
def _typeof_stored(kind: Stored, _context: Any) -> types.NumberClass:
    return types.NumberClass(kind.numba_type)


def widened(builder: Any, bits: Any) -> Any:
    """Generate the conversion of the 16 bits of a number to float32, which is exact."""
    return builder.bitcast(builder.shl(builder.zext(bits, _I32), _I32(16)), ir.FloatType())


def rounded(builder: Any, value: Any, noise: Any = None) -> Any:
    """Generate the conversion of a float32 to the 16 bits of a number.

    Parameters
    ----------
    builder
        Of LLVM instructions.
    value
        The float32. NaN stays NaN, with its sign; what is beyond the largest number becomes infinite.
    noise
        A random integer of 16 bits, or None to round to nearest.
    """
    bits = builder.bitcast(value, _I32)
    if noise is None:
        # A tie reaches the upper half only if that is odd. To choose takes fewer instructions than to add its last bit.
        is_odd = builder.icmp_unsigned("!=", builder.and_(bits, _I32(0x10000)), _I32(0))
        noise = builder.select(is_odd, _I32(0x8000), _I32(0x7FFF))
    # The sum could turn the bits of a NaN into those of another number, and NaN may have no bits in the upper half.
    quiet = builder.or_(bits, _I32(0x400000))
    bits = builder.select(builder.fcmp_unordered("uno", value, value), quiet, builder.add(bits, noise))
    return builder.trunc(builder.lshr(bits, _I32(16)), _I16)


def key_halves(builder: Any, key: Any) -> tuple[Any, Any]:
    """Generate the two integers of 32 bits in one of 64."""
    return builder.trunc(key, _I32), builder.trunc(builder.lshr(key, ir.IntType(64)(32)), _I32)


def random_bits(builder: Any, counter: Any, key: tuple[Any, Any]) -> Callable[[int], Any]:
    """Generate 32 random bits, a function of a counter and a key alone; return what takes one of their halves.

    It is the last step of MurmurHash3, by A. Appleby, which changes each bit of its result with half of the changes of
    any bit of the counter. The second half of the key is added after the first product: with the first half alone, the
    bits of two keys would be those of the same counters in another order. Just before the second product, it would only
    add a constant to that.
    """
    x = builder.xor(counter, key[0])
    x = builder.mul(builder.xor(x, builder.lshr(x, _I32(16))), _I32(0x85EBCA6B))
    x = builder.add(x, key[1])
    x = builder.mul(builder.xor(x, builder.lshr(x, _I32(13))), _I32(0xC2B2AE35))
    x = builder.xor(x, builder.lshr(x, _I32(16)))
    return lambda half: builder.lshr(x, _I32(16)) if half else builder.and_(x, _I32(0xFFFF))
