"""How the text of a rule is compiled where Numba would take it for something else than NumPy does.

Numbers written in a rule are weak: they take the type of what they meet. In NumPy 2, ``(1 - beta) * g`` is float32 for
float32 operands (NEP 50). Numba would type the ``1`` as int64 and lift the expression to float64 (numba issue 888):
other bits, and half the speed.

``np.where`` chooses between numbers, without an array. And a rule cannot raise: nobody would hear of it.
"""

from __future__ import annotations

import operator
from types import ModuleType
from typing import Any

import numpy as np
from numba.core import ir, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.errors import UnsupportedError
from numba.core.ir_utils import get_definition, guard
from numba.core.untyped_passes import InlineClosureLikes

from fastoptim.kernels.jit import inner

__all__ = ["RuleCompiler"]

_POWERS = {operator.pow, operator.ipow}


@inner
def _where(condition, a, b):
    # Numba's own makes arrays of no dimensions of its arguments, one after the other on the heap.
    return a if condition else b


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


def _exponents(blocks: Any) -> set[str]:
    # An integer exponent stays one: x**2 is x*x, while a float exponent calls the power function.
    expressions = (
        statement.value
        for block in blocks
        for statement in block.body
        if isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Expr)
    )
    return {
        e.rhs.name
        for e in expressions
        if (e.op == "binop" and e.fn in _POWERS) or (e.op == "inplace_binop" and e.immutable_fn in _POWERS)
    }


@register_pass(mutates_CFG=False, analysis_only=False)
class _MeanWhatNumpyMeans(FunctionPass):
    _name = "fastoptim_mean_what_numpy_means"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        blocks = state.func_ir.blocks.values()
        for block in blocks:
            if isinstance(block.terminator, ir.Raise | ir.StaticRaise):
                # A kernel has no way to tell, and has begun to write.
                raise UnsupportedError("a rule cannot raise or assert", loc=block.terminator.loc)
            for assignment in block.find_insts(ir.Assign):
                if _attribute(state.func_ir, assignment.value) is np.where:
                    assignment.value = ir.Global("where", _where, assignment.loc)
        if state.args[0] is not types.float32:
            return True
        exponents = _exponents(blocks)
        for block in blocks:
            for assignment in block.find_insts(ir.Assign):
                number = _number(state.func_ir, assignment.value)
                if type(number) is float or (type(number) is int and assignment.target.name not in exponents):
                    assignment.value = ir.Const(np.float32(number), assignment.loc)
        return True


class RuleCompiler(CompilerBase):
    """Numba's compiler with one pass more, in which a rule takes the meaning that its text has in NumPy."""

    def define_pipelines(self) -> list[Any]:
        """Put the pass where functions within the rule have become a part of it, before types are inferred."""
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.add_pass_after(_MeanWhatNumpyMeans, InlineClosureLikes)
        pipeline.finalize()
        return [pipeline]
