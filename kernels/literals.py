"""Numbers written in a rule are weak: they take the type of what they meet.

In NumPy 2, ``(1 - beta) * g`` is float32 for float32 operands (NEP 50). Numba would type the ``1`` as int64 and lift
the expression to float64 (numba issue 888): other bits, and half the speed.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numba.core import ir, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.untyped_passes import IRProcessing

__all__ = ["WeakLiterals"]

_POWERS = {operator.pow, operator.ipow}


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
class _RetypeNumbers(FunctionPass):
    _name = "fastoptim_retype_numbers"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        if state.args[0] is not types.float32:
            return False
        blocks = state.func_ir.blocks.values()
        exponents = _exponents(blocks)
        for block in blocks:
            for assignment in block.find_insts(ir.Assign):
                source = assignment.value
                if not isinstance(source, ir.Const | ir.Global | ir.FreeVar):
                    continue
                is_float = type(source.value) is float
                if is_float or (type(source.value) is int and assignment.target.name not in exponents):
                    assignment.value = ir.Const(np.float32(source.value), source.loc)
        return True


class WeakLiterals(CompilerBase):
    """Numba's compiler with one pass more: in a float32 rule, the numbers in its text are float32."""

    def define_pipelines(self) -> list[Any]:
        """Put the pass right after the bytecode has been read, before types are inferred."""
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.add_pass_after(_RetypeNumbers, IRProcessing)
        pipeline.finalize()
        return [pipeline]
