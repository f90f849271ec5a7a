"""Vectors of a cache line, 64 bytes, and words of 64 bits: what products that skip zeros are made of.

Each function is the LLVM instructions that it compiles to. LLVM splits vectors that are longer than the processor's.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["LINE", "MAX_LINES", "add_rows", "copy_line", "copy_square", "count_bits", "lines_on_stack", "nonzero"]

LINE = 64
"""Bytes of a cache line."""
MAX_LINES = 7
"""Lines of a row that are computed at a time: their sums stay in registers, even if those are 16 of 32 bytes."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_intrinsic = intrinsic(prefer_literal=True)


def _size(kind: Any) -> int:
    return int(kind.instance_type.bitwidth) // 8


def _vector(context: Any, kind: Any, lanes: int) -> Any:
    return ir.VectorType(context.get_value_type(kind.instance_type), lanes)


def _call(builder: Any, name: str, *args: Any) -> Any:
    kind = ir.FunctionType(args[0].type, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _load(builder: Any, kind: ir.Type, address: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _store(builder: Any, value: Any, address: Any, align: int) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


@_intrinsic
def nonzero(_typing: Any, T: Any, _address: Any) -> Any:
    """Return a word of which bit k tells whether element k of the 64 at an address is not zero, as NaN is not."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        vector = _vector(context, T, 64)
        elements = _load(builder, vector, args[1], _size(T))
        return builder.bitcast(builder.fcmp_unordered("!=", elements, ir.Constant(vector, None)), _I64)

    return types.uint64(T, types.intp), codegen


@_intrinsic
def count_bits(_typing: Any, _word: Any) -> Any:
    """Return how many bits of a word are set."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _call(builder, "llvm.ctpop.i64", args[0])

    return types.intp(types.uint64), codegen


@_intrinsic
def lines_on_stack(_typing: Any, count: Any) -> Any:
    """Return the address of cache lines on the stack of the function; the count is a constant."""

    def codegen(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        # Unlike `scratch`, this stores no zeros, which would take LLVM minutes for so many.
        with builder.goto_entry_block():
            lines = builder.alloca(ir.ArrayType(ir.IntType(8), LINE * count.literal_value))
        lines.align = LINE
        return builder.ptrtoint(lines, _I64)

    return types.intp(count), codegen


def _not_finite(builder: Any, vectors: list[Any]) -> Any:
    """Return an integer that is zero if all elements of some vectors are finite."""
    # The difference is zero for every finite number, and NaN for all others.
    found = [
        builder.fcmp_unordered("uno", difference, difference) for difference in (builder.fsub(v, v) for v in vectors)
    ]
    any_of_them = reduce(builder.or_, found)
    return builder.zext(builder.bitcast(any_of_them, ir.IntType(any_of_them.type.count)), _I64)


@_intrinsic
def copy_line(_typing: Any, T: Any, _target: Any, _source: Any) -> Any:
    """Copy elements to a cache line; return zero if all of them are finite."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        elements = _load(builder, _vector(context, T, LINE // _size(T)), args[2], _size(T))
        _store(builder, elements, args[1], LINE)
        return _not_finite(builder, [elements])

    return types.intp(T, types.intp, types.intp), codegen


@_intrinsic
def copy_square(_typing: Any, T: Any, _target: Any, _target_row: Any, _source: Any, _source_row: Any) -> Any:
    """Copy as many rows of elements as there are in a cache line to as many lines, transposed; see `copy_line`."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _, target, target_row, source, source_row = args
        lanes = LINE // _size(T)
        vector = _vector(context, T, lanes)
        rows = [
            _load(builder, vector, builder.add(source, builder.mul(source_row, _I64(k))), _size(T))
            for k in range(lanes)
        ]
        not_finite = _not_finite(builder, rows)
        # Exchange quarters of squares of 2 rows, of 4, and so on.
        distance = 1
        while distance < lanes:
            for k in (k for k in range(lanes) if not k & distance):
                pair = rows[k], rows[k + distance]
                upper = [j + (lanes - distance if j & distance else 0) for j in range(lanes)]
                lower = [j + (lanes if j & distance else distance) for j in range(lanes)]
                rows[k], rows[k + distance] = (
                    builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(_I32, lanes), places))
                    for places in (upper, lower)
                )
            distance *= 2
        for k, row in enumerate(rows):
            _store(builder, row, builder.add(target, builder.mul(target_row, _I64(k))), LINE)
        return not_finite

    return types.intp(T, *(types.intp,) * 4), codegen


@_intrinsic
def add_rows(
    _typing: Any, T: Any, _lines: Any, _last: Any, _out: Any, _first: Any, _word: Any, _x: Any, _step: Any, _block: Any
) -> Any:
    """Store in a row the sum of another one and, for each bit k of a word, ``x[k]`` times row k of a block.

    The arguments are the number of lines of a row; the offset of the last one, which may overlap the one before it;
    the addresses of both rows; the word; the address of ``x`` and its step in bytes; the address of the block.
    """

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _, lines, last, out, first, word, x, step, block = args
        size, lanes = _size(T), LINE // _size(T)
        scalar, vector = context.get_value_type(T.instance_type), _vector(context, T, lanes)
        # LLVM keeps all of these in registers.
        bits = cgutils.alloca_once_value(builder, word)
        sums = [cgutils.alloca_once(builder, vector) for _ in range(MAX_LINES)]
        end = builder.append_basic_block("end")
        switch = builder.switch(lines, end)
        for n in range(1, MAX_LINES + 1):
            begin, test, body, finish = (builder.append_basic_block() for _ in range(4))
            switch.add_case(n, begin)
            offsets = [_I64(LINE * line) for line in range(n - 1)] + [last]
            with builder.goto_block(begin):
                for total, offset in zip(sums, offsets, strict=False):
                    builder.store(_load(builder, vector, builder.add(first, offset), size), total)
                builder.branch(test)
            with builder.goto_block(test):
                builder.cbranch(builder.icmp_unsigned("==", builder.load(bits), _I64(0)), finish, body)
            with builder.goto_block(body):
                left = builder.load(bits)
                k = builder.cttz(left, ir.IntType(1)(1))
                builder.store(builder.and_(left, builder.sub(left, _I64(1))), bits)
                element = _load(builder, scalar, builder.add(x, builder.mul(k, step)), size)
                factor = builder.insert_element(ir.Constant(vector, ir.Undefined), element, _I32(0))
                factor = builder.shuffle_vector(factor, factor, ir.Constant(ir.VectorType(_I32, lanes), None))
                row = builder.add(block, builder.mul(k, _I64(LINE * n)))
                for line, total in enumerate(sums[:n]):
                    elements = _load(builder, vector, builder.add(row, _I64(LINE * line)), LINE)
                    fma = f"llvm.fma.v{lanes}f{8 * size}"
                    builder.store(_call(builder, fma, factor, elements, builder.load(total)), total)
                builder.branch(test)
            with builder.goto_block(finish):
                for total, offset in zip(sums, offsets, strict=False):
                    _store(builder, builder.load(total), builder.add(out, offset), size)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(T, *(types.intp,) * 4, types.uint64, *(types.intp,) * 3), codegen
