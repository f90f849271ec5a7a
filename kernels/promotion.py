"""NumPy's promotion of types, for rules that meet arrays of several dtypes.

In NumPy 2 a Python number is *weak* (NEP 50): it takes the type of the array or NumPy scalar that it meets, and float64
beside an integer one. An operation on two arrays has the type of `numpy.result_type`, and an augmented assignment
rounds its result to the type of the variable. Numba differs: ``float32 * float`` is float64, ``int8 * int8`` is int64.

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

__all__ = [
    "COMPARISONS",
    "Weak",
    "WeakNumber",
    "arithmetic",
    "assignment",
    "binary_function",
    "clip",
    "comparison",
    "floating",
]
__all__ += ["negation", "sign", "where"]

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
    return from_dtype(np.promote_types(as_dtype(a), as_dtype(b)))


def _cast(context: Any, builder: Any, value: Any, source: Any, target: Any) -> Any:
    source = types.float64 if isinstance(source, Weak) else source
    target = types.float64 if isinstance(target, Weak) else target
    return context.cast(builder, value, source, target)


def _casting(result: Any) -> Callable[..., Any]:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _cast(context, builder, args[0], signature.args[0], result)

    return codegen


@intrinsic
def _lift(_typing: Any, a: Any, b: Any) -> Any:
    """Convert ``a`` to the type in which NumPy computes with ``a`` and ``b``; two weak numbers become float64."""
    result = _promoted(a, b)
    result = types.float64 if isinstance(result, Weak) else result
    return result(a, b), _casting(result)


@intrinsic
def _settle(_typing: Any, value: Any, a: Any, b: Any) -> Any:
    """Convert what Numba computed of ``a`` and ``b`` to the type that NumPy gives it."""
    promoted = _promoted(a, b)
    narrows = isinstance(promoted, Weak) or isinstance(value, types.Integer)
    result = promoted if narrows else value
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
        return _cast(context, builder, args[1], signature.args[1], result)

    return result(variable, value), codegen


@intrinsic
def floating(_typing: Any, value: Any) -> Any:
    """Return a value as it is; reject weak numbers and integers, for which NumPy and Numba may differ."""
    if not isinstance(value, types.Float | types.Boolean):
        raise TypingError(f"a function of {value} in a rule for several dtypes")
    return value(value), lambda _context, _builder, _signature, args: args[0]


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
def binary_function(function: Any) -> Any:
    """Return a compiled function of two numbers, such as `numpy.maximum`, with NumPy's promotion."""
    return inline_jit(lambda a, b: function(floating(_lift(a, b)), floating(_lift(b, a))))


@inline_jit
def where(condition, a, b):
    """Choose as `numpy.where` does, with its promotion."""
    a, b = _lift(a, b), _lift(b, a)
    return a if condition else b


@inline_jit
def sign(x):
    """Return what `numpy.sign` does, for which the sign of -0.0 is 0.0; Numba's is -0.0."""
    s = np.sign(x)
    return s + (s - s)


@inline_jit
def clip(x, low, high):
    """Bound a number as `numpy.clip` does with numbers as bounds: NaN stays NaN, and ``x`` wins over an equal bound."""
    x = _lift(_lift(x, low), high)
    low, high = _lift(low, x), _lift(high, x)
    x = x if x >= low or x != x else low
    return x if x <= high or x != x else high
