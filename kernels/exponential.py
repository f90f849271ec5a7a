r"""The exponential function as arithmetic alone, so that loops with it are vectorized; calls of the C library are not.

With :math:`x = n \log 2 + r` and :math:`|r| \le \log(2) / 2`, it is :math:`2^n e^r`; a Taylor polynomial gives the
second factor. It differs from NumPy's by a few units in the last place.
"""

from __future__ import annotations

from math import factorial, log
from typing import Any

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from fastoptim.kernels.jit import DISABLED

__all__ = ["exponential"]

_LIMITS = {32: (-104.0, 89.0), 64: (-746.0, 710.0)}
"""Below and above, the result is zero and infinite."""
_DEGREES = {32: 7, 64: 13}
_MANTISSAS = {32: 23, 64: 52}
_BIASES = {32: 127, 64: 1023}
_LOG2_HIGH = {32: 0.693359375, 64: float.fromhex("0x1.62e42fee00000p-1")}
"""So few bits of log(2) that their products with n are exact."""
_LOG2_LOW = {32: -2.12194440054690583e-4, 64: 1.90821492927058770e-10}


def _codegen(_context: Any, builder: Any, signature: Any, args: Any) -> Any:
    size = signature.return_type.bitwidth
    kind, integer = args[1].type, ir.IntType(size)
    mantissa, bias = _MANTISSAS[size], _BIASES[size]

    def constant(value: float) -> Any:
        return ir.Constant(kind, value)

    low, high = map(constant, _LIMITS[size])
    # NaN is neither below nor above.
    x = builder.select(builder.fcmp_ordered("<", args[1], low), low, args[1])
    x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
    # Adding so large a number rounds to an integer, which is then in the lowest bits.
    shift = constant(1.5 * 2.0**mantissa)
    shifted = builder.fadd(builder.fmul(x, constant(1 / log(2))), shift)
    whole = builder.fsub(shifted, shift)
    rest = builder.fsub(x, builder.fmul(whole, constant(_LOG2_HIGH[size])))
    rest = builder.fsub(rest, builder.fmul(whole, constant(_LOG2_LOW[size])))
    result = constant(1 / factorial(_DEGREES[size]))
    for power in range(_DEGREES[size] - 1, -1, -1):
        result = builder.fadd(builder.fmul(result, rest), constant(1 / factorial(power)))
    # Half of the exponent twice, because the whole one may have no number.
    n = builder.sub(builder.bitcast(shifted, integer), builder.bitcast(shift, integer))
    half = builder.ashr(n, integer(1))
    for exponent in half, builder.sub(n, half):
        bits = builder.shl(builder.add(exponent, integer(bias)), integer(mantissa))
        result = builder.fmul(result, builder.bitcast(bits, kind))
    return result


@intrinsic(prefer_literal=True)
def _exponential(_typing: Any, T: Any, x: Any) -> Any:
    return T.instance_type(T, T.instance_type if x != T.instance_type else x), _codegen


def _numpy(_T: Any, x: Any) -> Any:
    return np.exp(x)


exponential = _numpy if DISABLED else _exponential
"""Return ``exp(x)`` for a number of a type ``T``, float32 or float64; in compiled code only, unless that is off."""
