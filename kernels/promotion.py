"""NumPy's promotion of types, for rules that meet arrays of several dtypes.

In NumPy 2 a Python number is *weak* (NEP 50): it takes the type of the array or NumPy scalar that it meets, and float64
beside an integer one. An operation on two arrays has the type of `numpy.result_type`, and an augmented assignment
rounds its result to the type of the variable. Numba differs: ``float32 * float`` is float64, ``int8 * int8`` is int64.

NumPy computes with float16 in float32 and rounds each result, and so does compiled code.

What is rejected here with `TypingError` has no cheap equal in compiled code; the text of the rule runs on arrays then.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.core.imputils import lower_constant
from numba.extending import intrinsic, models, register_model, typeof_impl
from numba.np.numpy_support import as_dtype, from_dtype

from fastoptim.kernels.jit import inline_jit

__all__ = ["COMPARISONS", "HALF", "Weak", "WeakNumber", "arithmetic", "assignment", "binary_function", "cast", "clip"]
__all__ += ["comparison", "floating", "negation", "power", "sign", "unary_function", "where"]

COMPARISONS = {operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne}


class WeakNumber(float):
    """A constant of a rule that is a Python number; ``is_float`` is false if it is an integer."""

    is_float: bool

    def __new__(cls, value: float) -> WeakNumber:  # noqa: D102
        self = super().__new__(cls, value)
        self.is_float = isinstance(value, float)
        return self


class Weak(types.Type):
    """The type of Python numbers in compiled code: float64 values that take the type of what they meet."""

    def __init__(self, is_float: bool) -> None:
        self.is_float = is_float
        super().__init__(name=f"weak_{'float' if is_float else 'int'}")


@register_model(Weak)
class _WeakModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.DoubleType())


@typeof_impl.register(WeakNumber)
def _typeof_weak(number: WeakNumber, _context: Any) -> Weak:
    return Weak(number.is_float)


@lower_constant(Weak)
def _weak_constant(_context: Any, _builder: Any, _type: Any, number: WeakNumber) -> Any:
    return ir.DoubleType()(float(number))


class Half(types.Float):
    """The type of float16 numbers in compiled code: float32 values that a float16 holds."""

    def __init__(self) -> None:
        super().__init__("float16")


@register_model(Half)
class _HalfModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.FloatType())


HALF = Half()


def _rounded_to_half(builder: Any, value: Any) -> Any:
    if value.type == ir.DoubleType():
        # Rounding twice, to float32 and then to float16, may go wrong by a tie. So the lower 40 of the 52 bits of the
        # fraction are summed up in one, below those that float16 has and within those of float32.
        word = ir.IntType(64)
        bits = builder.bitcast(value, word)
        rest = builder.icmp_unsigned("!=", builder.and_(bits, word(2**40 - 1)), word(0))
        bits = builder.or_(builder.and_(bits, word(-(2**40))), builder.shl(builder.zext(rest, word), word(40)))
        value = builder.fptrunc(builder.bitcast(bits, ir.DoubleType()), ir.FloatType())
    return builder.fpext(builder.fptrunc(value, ir.HalfType()), ir.FloatType())


def _promoted(a: Any, b: Any) -> Any:
    """Return the type in which NumPy computes with two operands; for two weak ones that is weak as well."""
    a, b = types.unliteral(a), types.unliteral(b)
    if isinstance(a, Weak) and isinstance(b, Weak):
        return Weak(a.is_float or b.is_float)
    for weak, other in ((a, b), (b, a)):
        if isinstance(weak, Weak):
            if isinstance(other, types.Float):
                return other
            if not weak.is_float:
                raise TypingError("an integer constant meets an array of integers")
            return types.float64
    dtype = np.promote_types(as_dtype(a), as_dtype(b))
    return HALF if dtype == np.float16 else from_dtype(dtype)


def _stored(kind: Any) -> Any:
    """Return Numba's type for the values of one of the types defined here."""
    return {Weak: types.float64, Half: types.float32}.get(type(kind), kind)


def cast(context: Any, builder: Any, value: Any, source: Any, target: Any) -> Any:
    """Generate the conversion of a value from one type to another, which rounds once."""
    if isinstance(target, Half) and not isinstance(source, Half):
        if isinstance(source, types.Integer | types.Boolean):
            value = context.cast(builder, value, source, types.float64)
        return _rounded_to_half(builder, value)
    return context.cast(builder, value, _stored(source), _stored(target))


def _casting(result: Any) -> Callable[..., Any]:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return cast(context, builder, args[0], signature.args[0], result)

    return codegen


@intrinsic
def _lift(_typing: Any, a: Any, b: Any) -> Any:
    """Convert ``a`` to the type in which NumPy computes with ``a`` and ``b``; two weak numbers become float64."""
    promoted = _promoted(a, b)
    return _stored(promoted)(a, b), _casting(promoted)


@intrinsic
def _settle(_typing: Any, value: Any, a: Any, b: Any) -> Any:
    """Convert what Numba computed of ``a`` and ``b`` to the type that NumPy gives it."""
    promoted = _promoted(a, b)
    narrows = isinstance(promoted, Weak | Half) or isinstance(value, types.Integer)
    result = promoted if narrows else value
    return result(value, a, b), _casting(result)


@intrinsic
def _half_if(_typing: Any, value: Any, a: Any, b: Any) -> Any:
    """Round what a function returned to float16 if NumPy computes it with ``a`` and ``b`` so."""
    result = HALF if isinstance(_promoted(a, b), Half) and isinstance(value, types.Float) else value
    return result(value, a, b), _casting(result)


@intrinsic
def _rounded_to(_typing: Any, variable: Any, value: Any) -> Any:
    """Convert a value to the type of the variable that it is assigned to by ``+=`` and the like."""
    if isinstance(variable, Weak):
        result = value
    else:
        result = types.unliteral(variable)
        if isinstance(result, types.Integer) and not isinstance(value, types.Integer):
            raise TypingError("an array of integers does not take the result of an augmented assignment")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return cast(context, builder, args[1], signature.args[1], result)

    return result(variable, value), codegen


@intrinsic
def floating(_typing: Any, value: Any) -> Any:
    """Return a value as it is; reject float16, weak numbers and integers, for which NumPy and Numba may differ."""
    if isinstance(value, Half) or not isinstance(value, types.Float | types.Boolean):
        raise TypingError(f"a function of {value} in a rule for several dtypes")
    return value(value), _casting(value)


@intrinsic
def _argument(_typing: Any, value: Any) -> Any:
    """Return a value as a function of Numba takes it; reject weak numbers and integers."""
    if not isinstance(value, types.Float | types.Boolean):
        raise TypingError(f"a function of {value} in a rule for several dtypes")
    return _stored(value)(value), _casting(_stored(value))


@cache
def arithmetic(operation: Any) -> Any:
    """Return the compiled ``operation(a, b)`` with NumPy's promotion."""
    return inline_jit(lambda a, b: _settle(operation(_lift(a, b), _lift(b, a)), a, b))


@cache
def comparison(operation: Any) -> Any:
    """Return the compiled comparison of two numbers with NumPy's promotion."""
    return inline_jit(lambda a, b: operation(_lift(a, b), _lift(b, a)))


@cache
def assignment(operation: Any) -> Any:
    """Return the compiled augmented assignment ``a = operation(a, b)``, rounded to the type of ``a``."""
    return inline_jit(lambda a, b: _rounded_to(a, _settle(operation(_lift(a, b), _lift(b, a)), a, b)))


@cache
def negation(operation: Any) -> Any:
    """Return the compiled ``operation(a)``, of the type of ``a``."""
    return inline_jit(lambda a: _settle(operation(_lift(a, a)), a, a))


@cache
def power(exponent: int) -> Any:
    """Return the compiled power with a literal integer as exponent."""
    return inline_jit(lambda a: _half_if(_argument(a) ** exponent, a, a))


@cache
def unary_function(function: Any) -> Any:
    """Return a compiled function of one number, such as `numpy.sqrt`."""
    return inline_jit(lambda a: _half_if(function(_argument(a)), a, a))


@cache
def binary_function(function: Any) -> Any:
    """Return a compiled function of two numbers, such as `numpy.maximum`, with NumPy's promotion."""
    return inline_jit(lambda a, b: _half_if(function(_argument(_lift(a, b)), _argument(_lift(b, a))), a, b))


@inline_jit
def where(condition, a, b):
    """Choose as `numpy.where` does, with its promotion."""
    x, y = _lift(a, b), _lift(b, a)
    return _half_if(x if condition else y, a, b)


@inline_jit
def sign(x):
    """Return what `numpy.sign` does, for which the sign of -0.0 is 0.0; Numba's is -0.0."""
    s = np.sign(x)
    return s + type(s)(0)


@inline_jit
def clip(x, low, high):
    """Bound a number as `numpy.clip` does with numbers as bounds: NaN stays NaN, and ``x`` wins over an equal bound."""
    a, b = _lift(x, low), _lift(low, x)
    bounded = _half_if(a if a >= b or a != a else b, x, low)
    a, b = _lift(bounded, high), _lift(high, bounded)
    return _half_if(a if a <= b or a != a else b, bounded, high)
