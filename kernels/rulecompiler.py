"""How the text of a rule is compiled where Numba would take it for something else than NumPy does.

Numbers written in a rule are weak: they take the type of what they meet. In NumPy 2, ``(1 - beta) * g`` is float32 for
float32 operands (NEP 50). Numba would type the ``1`` as int64 and lift the expression to float64 (numba issue 888):
other bits, and half the speed. Where all arrays have one dtype, it is enough to give the constants that type; where
they have several, each operation becomes one of `promotion`.

`numpy.where`, `numpy.clip` and `numpy.sign` do to numbers what they do to arrays. A rule cannot raise: the exception
would be lost.
"""

from __future__ import annotations

import operator
from types import ModuleType
from typing import Any

import numpy as np
from numba.core import ir, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.errors import UnsupportedError
from numba.core.ir_utils import get_definition, guard, mk_unique_var
from numba.core.untyped_passes import InlineClosureLikes

from fastoptim.kernels import promotion
from fastoptim.kernels.jit import inline_jit

__all__ = ["MixedRuleCompiler", "RuleCompiler"]

_POWERS = {operator.pow, operator.ipow}


@inline_jit
def _where(condition, a, b):
    # Numba's own makes arrays of no dimensions of its arguments, one after the other on the heap.
    return a if condition else b


@inline_jit
def _clip(x, low, high):
    x = x if x >= low or x != x else low
    return x if x <= high or x != x else high


_REPLACED = {np.where: _where, np.clip: _clip, np.sign: promotion.sign}


def _number(func_ir: Any, source: Any) -> Any:
    """Return the number written as a literal, as the name of a global one, or as a module's, such as ``math.pi``."""
    return source.value if isinstance(source, ir.Const | ir.Global | ir.FreeVar) else _attribute(func_ir, source)


def _attribute(func_ir: Any, source: Any) -> Any:
    """Return what an expression such as ``math.pi`` or ``np.where`` is: the attribute of a module."""
    if isinstance(source, ir.Expr) and source.op == "getattr":
        module = guard(get_definition, func_ir, source.value)
        if isinstance(getattr(module, "value", None), ModuleType):
            return getattr(module.value, source.attr, None)
    return None


def _is_power(expression: Any) -> bool:
    fn = {"binop": "fn", "inplace_binop": "immutable_fn"}.get(getattr(expression, "op", ""))
    return fn is not None and getattr(expression, fn) in _POWERS


def _exponents(blocks: Any) -> set[str]:
    # An integer exponent stays one: x**2 is x*x, while a float exponent calls the power function.
    values = (assignment.value for block in blocks for assignment in block.find_insts(ir.Assign))
    return {value.rhs.name for value in values if isinstance(value, ir.Expr) and _is_power(value)}


@register_pass(mutates_CFG=False, analysis_only=False)
class _OneDtype(FunctionPass):
    _name = "fastoptim_one_dtype"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        blocks = state.func_ir.blocks.values()
        for block in blocks:
            _reject_raise(block)
            for assignment in block.find_insts(ir.Assign):
                function = _attribute(state.func_ir, assignment.value)
                if callable(function) and function in _REPLACED:
                    assignment.value = ir.Global(function.__name__, _REPLACED[function], assignment.loc)
        if state.args[0] is not types.float32:
            return True
        exponents = _exponents(blocks)
        for block in blocks:
            for assignment in block.find_insts(ir.Assign):
                number = _number(state.func_ir, assignment.value)
                if type(number) is float or (type(number) is int and assignment.target.name not in exponents):
                    assignment.value = ir.Const(np.float32(number), assignment.loc)
        return True


@register_pass(mutates_CFG=False, analysis_only=False)
class _SeveralDtypes(FunctionPass):
    _name = "fastoptim_several_dtypes"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        func_ir = state.func_ir
        exponents = _exponents(func_ir.blocks.values())
        for block in func_ir.blocks.values():
            _reject_raise(block)
            body: list[Any] = []
            for statement in block.body:
                if isinstance(statement, ir.Assign):
                    self._rewrite(func_ir, block, statement, exponents, body)
                body.append(statement)
            block.body = body
        return True

    def _rewrite(self, func_ir: Any, block: Any, assignment: Any, exponents: set[str], body: list[Any]) -> None:
        value = assignment.value

        def call(function: Any, *args: Any) -> Any:
            name = ir.Var(block.scope, mk_unique_var("$promotion"), assignment.loc)
            source = ir.Global(name.name, function, assignment.loc)
            func_ir._definitions[name.name].append(source)
            body.append(ir.Assign(source, name, assignment.loc))
            return ir.Expr.call(name, args, (), assignment.loc)

        def floating(argument: Any) -> Any:
            name = ir.Var(block.scope, mk_unique_var("$floating"), assignment.loc)
            expression = call(promotion.floating, argument)
            func_ir._definitions[name.name].append(expression)
            body.append(ir.Assign(expression, name, assignment.loc))
            return name

        number = _number(func_ir, value)
        if type(number) is float or (type(number) is int and assignment.target.name not in exponents):
            assignment.value = ir.Const(promotion.WeakNumber(number), assignment.loc)
        if not isinstance(value, ir.Expr):
            return
        exponent = _number(func_ir, guard(get_definition, func_ir, value.rhs)) if _is_power(value) else None
        if type(exponent) is int:
            if value.op == "inplace_binop":
                raise UnsupportedError("an augmented power in a rule for several dtypes", loc=assignment.loc)
            assignment.value = call(promotion.power(exponent), value.lhs)
        elif value.op == "binop":
            kind = promotion.comparison if value.fn in promotion.COMPARISONS else promotion.arithmetic
            assignment.value = call(kind(value.fn), value.lhs, value.rhs)
        elif value.op == "inplace_binop":
            assignment.value = call(promotion.assignment(value.immutable_fn), value.lhs, value.rhs)
        elif value.op == "unary" and value.fn in (operator.neg, operator.pos):
            assignment.value = call(promotion.negation(value.fn), value.value)
        elif value.op == "call":
            self._rewrite_call(func_ir, assignment, call, floating)

    def _rewrite_call(self, func_ir: Any, assignment: Any, call: Any, floating: Any) -> None:
        value = assignment.value
        source = guard(get_definition, func_ir, value.func)
        function = getattr(source, "value", None) if isinstance(source, ir.Global | ir.FreeVar) else None
        function = function or _attribute(func_ir, source)
        if isinstance(function, Dispatcher):
            return
        if value.kws:
            raise UnsupportedError("keyword arguments in a rule for several dtypes", loc=assignment.loc)
        if function is np.where:
            assignment.value = call(promotion.where, *value.args)
        elif function is np.clip:
            assignment.value = call(promotion.clip, *value.args)
        elif isinstance(function, np.ufunc) and function.nin == 2:
            assignment.value = call(promotion.binary_function(function), *value.args)
        elif isinstance(function, np.ufunc) or function is abs:
            function = promotion.sign if function is np.sign else function
            assignment.value = call(promotion.unary_function(function), *value.args)
        else:
            value.args = [floating(argument) for argument in value.args]


def _reject_raise(block: Any) -> None:
    if isinstance(block.terminator, ir.Raise | ir.StaticRaise):
        # A kernel has no way to report an exception, and has begun to write.
        raise UnsupportedError("a rule cannot raise or assert", loc=block.terminator.loc)


class RuleCompiler(CompilerBase):
    """Numba's compiler with one more pass, which gives a rule the meaning that its text has in NumPy."""

    _pass: type[FunctionPass] = _OneDtype

    def define_pipelines(self) -> list[Any]:
        """Insert the pass where functions within the rule have become a part of it, before types are inferred."""
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.add_pass_after(self._pass, InlineClosureLikes)
        pipeline.finalize()
        return [pipeline]


class MixedRuleCompiler(RuleCompiler):
    """The same for a rule that meets arrays of several dtypes."""

    _pass = _SeveralDtypes
