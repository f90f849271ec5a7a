"""Vectors of a cache line, 64 bytes: what products that skip zeros are made of.

Each function is the LLVM instructions that it compiles to. LLVM splits vectors that are longer than the processor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastoptim.kernels.jit import HAS_AVX512

__all__ = [
    "LINE",
    "MAX_LINES",
    "add_all_rows",
    "add_rows",
    "copy_rows",
    "copy_square",
    "lines_on_stack",
    "rows_at_once",
    "width_of",
]

LINE = 64
"""Bytes of a cache line."""
MAX_LINES = 7
"""Lines of a row that are computed at a time: their sums stay in registers, even if those are 16 of 32 bytes."""

_WIDTHS = range(1, MAX_LINES + 1)
_HALF = MAX_LINES + 1
"""The width of rows of `MAX_LINES` lines if the first half of the last one is in the line before it."""
_LEAST_ROWS = 2 if HAS_AVX512 else 1
"""Rows of so many lines that are computed at a time by `add_all_rows`."""

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
def lines_on_stack(_typing: Any, count: Any) -> Any:
    """Return the address of cache lines on the stack of the function; the count is a constant."""

    def codegen(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        # Unlike `scratch`, this stores no zeros, which would take LLVM minutes for so many.
        with builder.goto_entry_block():
            lines = builder.alloca(ir.ArrayType(ir.IntType(8), LINE * count.literal_value))
        lines.align = LINE
        return builder.ptrtoint(lines, _I64)

    return types.intp(count), codegen


def _any_nan(builder: Any, vectors: list[Any]) -> Any:
    """Return an integer that is zero if none of the elements of some vectors is NaN."""
    found = reduce(builder.or_, (builder.fcmp_unordered("uno", vector, vector) for vector in vectors))
    return builder.zext(builder.bitcast(found, ir.IntType(found.type.count)), _I64)


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
        not_finite = _any_nan(builder, [builder.fsub(row, row) for row in rows])
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


def _each_width(builder: Any, width: Any, generate: Callable[[int], None], widths: Iterable[int] = _WIDTHS) -> None:
    """Generate code for each width that a row may have, and for the choice between them."""
    end = builder.append_basic_block("end")
    switch = builder.switch(width, end)
    for n in widths:
        begin = builder.append_basic_block()
        switch.add_case(n, begin)
        with builder.goto_block(begin):
            generate(n)
            builder.branch(end)
    builder.position_at_end(end)


def _places(builder: Any, n: int, row: Any, last: Any) -> list[Any]:
    """Return the addresses of the lines of a row."""
    return [builder.add(row, offset) for offset in (*(_I64(LINE * line) for line in range(n - 1)), last)]


@_intrinsic
def copy_rows(
    _typing: Any, T: Any, _lines: Any, _block: Any, _source: Any, _last: Any, _source_row: Any, _count: Any
) -> Any:
    """Copy so many rows to a block; return zero if all elements are finite.

    The arguments are the number of lines of a row; the addresses of the block and of the first row; the offset of the
    last line, which may overlap the one before it; the bytes from one row to the next; and the number of rows.
    """

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _, lines, block, source, last, source_row, count = args
        size, lanes = _size(T), LINE // _size(T)
        vector = _vector(context, T, lanes)
        zero, fma = ir.Constant(vector, None), f"llvm.fma.v{lanes}f{8 * size}"
        # LLVM keeps these in registers.
        sums = [cgutils.alloca_once(builder, vector) for _ in range(MAX_LINES)]
        result = cgutils.alloca_once_value(builder, _I64(0))

        def generate(n: int) -> None:
            for total in sums[:n]:
                builder.store(zero, total)
            with cgutils.for_range(builder, count) as loop:
                row = builder.add(source, builder.mul(loop.index, source_row))
                copy = builder.add(block, builder.mul(loop.index, _I64(LINE * n)))
                for line, (total, place) in enumerate(zip(sums, _places(builder, n, row, last), strict=False)):
                    elements = _load(builder, vector, place, size)
                    _store(builder, elements, builder.add(copy, _I64(LINE * line)), LINE)
                    # Zero times an element is zero if that is finite, and NaN if not.
                    builder.store(_call(builder, fma, elements, zero, builder.load(total)), total)
            builder.store(_any_nan(builder, [builder.load(total) for total in sums[:n]]), result)

        _each_width(builder, lines, generate)
        return builder.load(result)

    return types.intp(T, *(types.intp,) * 6), codegen


class _Sums:
    """The sums of a row, which LLVM keeps in registers."""

    def __init__(self, context: Any, builder: Any, T: Any) -> None:
        self.builder, self.size = builder, _size(T)
        self.scalar, self.vector = context.get_value_type(T.instance_type), _vector(context, T, LINE // self.size)
        self.lines = [cgutils.alloca_once(builder, self.vector) for _ in _WIDTHS]
        self.half = cgutils.alloca_once(builder, ir.VectorType(self.scalar, self.vector.count // 2))

    def parts(self, width: int) -> list[tuple[int, Any]]:
        """Return the offset and the sums of each vector of a row of whole lines."""
        parts = [(LINE * line, total) for line, total in enumerate(self.lines[:width])]
        return [*parts[:-1], (LINE * MAX_LINES - LINE // 2, self.half)] if width == _HALF else parts

    def load(self, row: Any, part: tuple[int, Any]) -> Any:
        kind = part[1].type.pointee
        return _load(self.builder, kind, self.builder.add(row, _I64(part[0])), self.size * kind.count)

    def begin(self, width: int, first: Any) -> None:
        for part in self.parts(width):
            self.builder.store(self.load(first, part), part[1])

    def add(self, total: Any, x: Any, elements: Any) -> None:
        builder, kind = self.builder, elements.type
        factor = builder.insert_element(ir.Constant(kind, ir.Undefined), x, _I32(0))
        factor = builder.shuffle_vector(factor, factor, ir.Constant(ir.VectorType(_I32, kind.count), None))
        fma = f"llvm.fma.v{kind.count}f{8 * self.size}"
        builder.store(_call(builder, fma, factor, elements, builder.load(total)), total)

    def x(self, address: Any) -> Any:
        return _load(self.builder, self.scalar, address, self.size)

    def finish(self, width: int, out: Any, last: Any) -> None:
        parts = self.parts(width)
        for offset, total in parts:
            place = self.builder.add(out, last if total is parts[-1][1] else _I64(offset))
            if total is self.half:
                place = self.builder.add(place, _I64(LINE // 2))
            _store(self.builder, self.builder.load(total), place, self.size)


@_intrinsic
def add_rows(
    _typing: Any, T: Any, _width: Any, _out: Any, _out_row: Any, _last: Any, _first: Any, _first_row: Any,
    _word: Any, _next_word: Any, _x: Any, _x_row: Any, _step: Any, _block: Any,
) -> Any:  # fmt: skip
    """Store in two rows the sums of two others and, for each bit k of their words, ``x[k]`` times row k of a block.

    The arguments are the `width_of` a row; the address of the results, the bytes from one row to the next, and the
    offset of the last line, which may overlap the one before it; the address of the rows to begin with, which are whole
    cache lines, and the bytes from one to the next; the words; the address of ``x``, the bytes to that of the second
    row, and its step in bytes; the address of the block. If the second word is zero, the second row may be the first.
    """

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _, width, out, out_row, last, first, first_row, *words, x, x_row, step, block = args
        bits = [cgutils.alloca_once_value(builder, word) for word in words]
        sums = [_Sums(context, builder, T) for _ in words]
        outs, firsts, factors = (
            [address, builder.add(address, row)] for address, row in ((out, out_row), (first, first_row), (x, x_row))
        )

        def add_bits(n: int, rows: tuple[int, ...]) -> None:
            """While the words of all these rows have bits, use one of each."""
            test, body, finish = (builder.append_basic_block() for _ in range(3))
            builder.branch(test)
            with builder.goto_block(test):
                left = [builder.icmp_unsigned("!=", builder.load(bits[row]), _I64(0)) for row in rows]
                builder.cbranch(reduce(builder.and_, left), body, finish)
            with builder.goto_block(body):
                for row in rows:
                    word = builder.load(bits[row])
                    k = builder.cttz(word, ir.IntType(1)(1))
                    builder.store(builder.and_(word, builder.sub(word, _I64(1))), bits[row])
                    factor = sums[row].x(builder.add(factors[row], builder.mul(k, step)))
                    start = builder.add(block, builder.mul(k, _I64(LINE * min(n, MAX_LINES))))
                    for part in sums[row].parts(n):
                        sums[row].add(part[1], factor, sums[row].load(start, part))
                builder.branch(test)
            builder.position_at_end(finish)

        def generate(n: int) -> None:
            # Two rows at a time hide how long an addition takes, if there are registers for the sums of both.
            together = rows_at_once(n) > 1
            if together:
                for row in (0, 1):
                    sums[row].begin(n, firsts[row])
                add_bits(n, (0, 1))
            for row in (1, 0):
                if not together:
                    sums[row].begin(n, firsts[row])
                add_bits(n, (row,))
                sums[row].finish(n, outs[row], last)

        _each_width(builder, width, generate, [*_WIDTHS, _HALF])
        return context.get_dummy_value()

    return types.void(T, *(types.intp,) * 6, *(types.uint64,) * 2, *(types.intp,) * 4), codegen


def rows_at_once(width: int) -> int:
    """Return how many rows `add_all_rows` computes, so that their sums fill the registers and hide the latency."""
    return max(_LEAST_ROWS, 4 * _LEAST_ROWS // width)


def width_of(lines: int, last: int) -> int:
    """Return the number of lines of a row, or `_HALF` if half of the last one suffices; ``last`` is its offset."""
    return _HALF if lines == MAX_LINES and last <= LINE * (MAX_LINES - 1) - LINE // 2 else lines


@_intrinsic
def add_all_rows(
    _typing: Any, T: Any, _width: Any, _out: Any, _out_row: Any, _last: Any, _first: Any, _first_row: Any,
    _count: Any, _x: Any, _x_row: Any, _step: Any, _block: Any,
) -> Any:  # fmt: skip
    """Do as `add_rows` with the first bits of each word set, up to a count, for `rows_at_once` rows."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _, width, out, out_row, last, first, first_row, count, x, x_row, step, block = args
        sums = [_Sums(context, builder, T) for _ in range(max(map(rows_at_once, [*_WIDTHS, _HALF])))]

        def moved(address: Any, row: Any, k: int) -> Any:
            return builder.add(address, builder.mul(row, _I64(k)))

        def generate(n: int) -> None:
            rows = sums[: rows_at_once(n)]
            for k, row in enumerate(rows):
                row.begin(n, moved(first, first_row, k))
            with cgutils.for_range(builder, count) as loop:
                place = builder.add(x, builder.mul(loop.index, step))
                factors = [row.x(moved(place, x_row, k)) for k, row in enumerate(rows)]
                start = builder.add(block, builder.mul(loop.index, _I64(LINE * min(n, MAX_LINES))))
                for parts in zip(*(row.parts(n) for row in rows), strict=True):
                    elements = sums[0].load(start, parts[0])
                    for row, part, factor in zip(rows, parts, factors, strict=True):
                        row.add(part[1], factor, elements)
            for k, row in enumerate(rows):
                row.finish(n, moved(out, out_row, k), last)

        _each_width(builder, width, generate, [*_WIDTHS, _HALF])
        return context.get_dummy_value()

    return types.void(T, *(types.intp,) * 11), codegen
