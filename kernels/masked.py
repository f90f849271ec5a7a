"""Products of matrices that skip the zeros of the left one.

Most pixels of an image are zero, and ReLU makes half of a hidden layer zero. A mask has a bit for each element that is
not: rows of words, 64 elements each. A product goes through the bits of a word, and adds to a row of the result the
row of the right matrix that each belongs to. Where most bits are set, it goes through all elements, of several rows at
once. Either way, each element of the result is one chain of fused multiply-adds in the order of the rows, and its bits
depend neither on the other rows nor on threads.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from fastoptim.kernels.jit import DISABLED, HAS_FMA, bind_globals, cfunc, inline_jit
from fastoptim.kernels.masks import WIDTH, fill_strip
from fastoptim.kernels.memory import call, load, set_word, store, word
from fastoptim.kernels.table import CALLS, COUNT
from fastoptim.kernels.vectors import (
    LINE,
    MAX_LINES,
    add_all_rows,
    add_rows,
    copy_rows,
    copy_square,
    lines_on_stack,
    rows_at_once,
    width_of,
)

__all__ = [
    "ALL",
    "AS_IT_IS",
    "FEWEST_ROWS",
    "PARTS",
    "PRODUCT",
    "RUN_PARALLEL",
    "TRANSPOSED",
    "add_masked_rows",
    "masked_dot",
    "multiply",
    "product",
    "product_address",
    "work",
]

FEWEST_ROWS = 8 if HAS_FMA and not DISABLED else sys.maxsize
"""Samples of a batch below which BLAS is faster, because copying the right matrix dominates."""
_HIGHEST_DENSITY = 0.1
"""Share of the elements, for each line of the result, above which none is skipped."""
_EACH_ELEMENT = 0.1
"""The time for each element, zero or not, in units of what one that is not zero adds to it."""
_LARGE = 1 << 20
"""Multiplications of a product from which on several threads share it."""

AS_IT_IS, TRANSPOSED = np.bool_(False), np.bool_(True)
"""How a matrix is used. For each of Python's ``False`` and ``True``, Numba would compile another function."""
PRODUCT, RUN_PARALLEL, PARTS = range(3)
"""The words that say who computes a product: what `product_address` returns, the address of `run_parallel`, and the
number of parts into which it cuts a large product; with one part, its address is not used."""
ALL = -1
"""The number of elements that are not zero, where there are no masks to count it."""

_rows_at_once, _width_of = inline_jit(rows_at_once), inline_jit(width_of)

_WORDS = (np.uint64,)
_BLOCK_LINES = WIDTH * MAX_LINES
_STRIP_LINES = WIDTH * 8 // LINE
_CHUNK = 256
"""Rows of the result that are computed with one block of the right matrix after the other."""
_SUMS_LINES = _CHUNK * MAX_LINES

_INNER, _COLUMNS, _X, _X_ROW, _X_STEP, _MASKS, _N_WORDS, _IS_TRANSPOSED, _B, _B_ROW, _B_STEP, _OUT, _ADDS = range(13)
"""The words that describe a product to its code."""
_ROW_LINES = 2


@inline_jit
def _copy_columns(T, size, block, lines, last, b, b_column, count):
    """Copy parts of columns to the rows of a block; return zero if all elements are finite."""
    lanes, row = LINE // size, lines * LINE
    found = 0
    for line in range(lines):
        offset = last if line == lines - 1 else line * LINE
        column, target = b + offset // size * b_column, block + line * LINE
        whole = count // lanes * lanes
        for k in range(0, whole, lanes):
            found |= copy_square(T, target + k * row, row, column + k * size, b_column)
        for k in range(whole, count):
            for lane in range(lanes):
                (element,) = load((T,), (column + lane * b_column,), k)
                store((T,), (target + k * row,), lane, element)
                found |= element - element != 0
    return found


@inline_jit
def _copy_narrow(T, block, b, b_row, b_step, columns, count):
    """Copy rows that do not fill a line to the beginnings of lines; return zero if all elements are finite."""
    found = 0
    for k in range(count):
        for j in range(columns):
            (element,) = load((T,), (b + k * b_row + j * b_step,), 0)
            store((T,), (block + k * LINE,), j, element)
            found |= element - element != 0
    return found


@inline_jit
def _clear(place, lines):
    for k in range(lines * LINE // 8):
        set_word(place, k, 0)


# A template: `product` binds these names for each type of elements.
T: Any
SIZE: int


def multiply(row, start, stop):
    """Compute rows of the product that is described at an address, or add them to what is there.

    The first row is a multiple of 64. The result has no gaps. If its rows fill a line, rows or columns of the right
    matrix must be contiguous. Without masks, their address is zero.
    """
    inner, columns = word(row, _INNER), word(row, _COLUMNS)
    x, x_row, x_step = word(row, _X), word(row, _X_ROW), word(row, _X_STEP)
    masks, n_words, transposed = word(row, _MASKS), word(row, _N_WORDS), word(row, _IS_TRANSPOSED)
    b, b_row, b_step = word(row, _B), word(row, _B_ROW), word(row, _B_STEP)
    out, adds = word(row, _OUT), word(row, _ADDS)
    lanes = LINE // SIZE
    is_narrow = columns < lanes
    total_lines = (columns + lanes - 1) // lanes
    tiles = (total_lines + MAX_LINES - 1) // MAX_LINES
    block, zeros, strip = lines_on_stack(_BLOCK_LINES), lines_on_stack(MAX_LINES), lines_on_stack(_STRIP_LINES)
    sums = lines_on_stack(_SUMS_LINES)
    _clear(zeros, MAX_LINES)
    if is_narrow:
        _clear(block, WIDTH)
    for top in range(start, stop, _CHUNK):
        bottom = min(top + _CHUNK, stop)
        for tile in range(tiles):
            first_line = total_lines * tile // tiles
            lines = total_lines * (tile + 1) // tiles - first_line
            column = first_line * lanes
            sums_row, sums_last = lines * LINE, (lines - 1) * LINE
            out_row, last = columns * SIZE, (min(lines * lanes, columns - column) - lanes) * SIZE
            width = _width_of(lines, last)
            corner = out + top * out_row + column * SIZE
            if adds and is_narrow:
                _copy_narrow(T, sums, corner, out_row, SIZE, columns, bottom - top)
            elif adds:
                copy_rows(T, lines, sums, corner, last, out_row, bottom - top)
            for k in range(0, inner, WIDTH):
                # The block of the right matrix stays in the fastest cache while all rows use it.
                count = min(WIDTH, inner - k)
                corner = b + k * b_row + column * b_step
                if is_narrow:
                    not_finite = _copy_narrow(T, block, corner, b_row, b_step, columns, count)
                elif b_step == SIZE:
                    not_finite = copy_rows(T, lines, block, corner, last, b_row, count)
                else:
                    not_finite = _copy_columns(T, SIZE, block, lines, last, corner, b_step, count)
                for i in range(top, bottom, WIDTH):
                    n_rows = min(WIDTH, bottom - i)
                    # A block begins with what the one before it left, and the last one writes the result.
                    first, first_row = sums + (i - top) * sums_row, sums_row
                    target, target_row, target_last = first, sums_row, sums_last
                    if k == 0 and not adds:
                        first, first_row = zeros, 0
                    if k + WIDTH >= inner and not is_narrow:
                        target, target_row, target_last = out + i * out_row + column * SIZE, out_row, last
                    corner = x + i * x_row + k * x_step
                    done = 0
                    # The product of zero and what is not finite is NaN, so it must not be left out.
                    if masks and not not_finite:
                        fill_strip(strip, masks, n_words, transposed, i, n_rows, k, count)
                    else:
                        at_once = _rows_at_once(width)
                        done = n_rows // at_once * at_once
                        for j in range(0, done, at_once):
                            add_all_rows(
                                T, width, target + j * target_row, target_row, target_last, first + j * first_row,
                                first_row, count, corner + j * x_row, x_row, x_step, block,
                            )  # fmt: skip
                        for j in range(done, n_rows):
                            set_word(strip, j, np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(WIDTH - count))
                    for j in range(done, n_rows, 2):
                        (bits,), (more,) = load(_WORDS, (strip,), j), load(_WORDS, (strip,), j + 1)
                        second = 1
                        if j + 1 == n_rows:
                            second, more = 0, np.uint64(0)
                        if bits | more or first != target:
                            add_rows(
                                T, width, target + j * target_row, second * target_row, target_last,
                                first + j * first_row, second * first_row, bits, more, corner + j * x_row,
                                second * x_row, x_step, block,
                            )  # fmt: skip
            if is_narrow:
                for i in range(top, bottom):
                    for j in range(columns):
                        (element,) = load((T,), (sums + (i - top) * LINE,), j)
                        store((T,), (out + i * out_row,), j, element)


@cache
def product(dtype: Any) -> Any:
    """Compile `multiply` for float32 or float64: the only code of products, which all networks call by its address."""
    kind = np.dtype(dtype)
    return cfunc(bind_globals(multiply, {"T": kind.type, "SIZE": kind.itemsize}, kind.name), 3, lambda: True)


def product_address(dtype: Any) -> int:
    """Return the address of the code that computes products, or 0 where BLAS computes all of them."""
    if DISABLED or not HAS_FMA:
        return 0
    return int(product(dtype).address)


@inline_jit
def _lines_of(out):
    return (out.shape[1] * out.itemsize + LINE - 1) // LINE


@inline_jit
def _most_skipped(x, out):
    """Return the number of elements that are not zero up to which skipping zeros is faster than computing with all."""
    return _HIGHEST_DENSITY * min(_lines_of(out), MAX_LINES) * x.size


@inline_jit
def work(x, count, out):
    """Return about how long a product takes, in units of what an element that is not zero adds for one line.

    For a result of one line, it is 4 to 10 times too little; a layer that is so narrow is mostly a small part.
    """
    most = _most_skipped(x, out)
    return _lines_of(out) * ((most if count == ALL else min(count, most)) + _EACH_ELEMENT * x.size)


@inline_jit
def _describe(row, x, x_is_transposed, masks, count, b, b_is_transposed, out, adds):
    size, columns = x.itemsize, out.shape[1]
    x_row, x_step, inner = x.shape[1] * size, size, x.shape[1]
    if x_is_transposed:
        x_row, x_step, inner = x_step, x_row, x.shape[0]
    b_row, b_step = b.shape[1] * size, size
    if b_is_transposed:
        b_row, b_step = b_step, b_row
    skips = count != ALL and count < _most_skipped(x, out)
    set_word(row, _INNER, inner)
    set_word(row, _COLUMNS, columns)
    set_word(row, _X, x.ctypes.data)
    set_word(row, _X_ROW, x_row)
    set_word(row, _X_STEP, x_step)
    set_word(row, _MASKS, masks.ctypes.data if skips else 0)
    set_word(row, _N_WORDS, masks.shape[1])
    set_word(row, _IS_TRANSPOSED, x_is_transposed)
    set_word(row, _B, b.ctypes.data)
    set_word(row, _B_ROW, b_row)
    set_word(row, _B_STEP, b_step)
    set_word(row, _OUT, out.ctypes.data)
    set_word(row, _ADDS, adds)


@inline_jit
def masked_dot(team, x, x_is_transposed, masks, count, b, b_is_transposed, out):
    """Compute a product of two matrices in C order, either of which may be used transposed.

    Parameters
    ----------
    team : int
        The address of the words `PRODUCT`, `RUN_PARALLEL` and `PARTS`.
    x, b : array
        The left and the right matrix.
    x_is_transposed, b_is_transposed : bool
        `AS_IT_IS` or `TRANSPOSED`.
    masks, count
        The masks of ``x`` as it lies in memory, and the number of their bits, as from `fill_masks`. An element whose
        bit is not set counts as zero and need not be zero in ``x``. If the count is `ALL`, there are no masks.
    out : array
        The result.
    """
    row = lines_on_stack(_ROW_LINES)
    _describe(row, x, x_is_transposed, masks, count, b, b_is_transposed, out, 0)
    rows = out.shape[0]
    if word(team, PARTS) > 1 and x.size * out.shape[1] >= _LARGE:
        program = lines_on_stack(1)
        set_word(program, COUNT, 1)
        set_word(program, CALLS, word(team, PRODUCT))
        set_word(program, CALLS + 1, row)
        set_word(program, CALLS + 2, 0)
        set_word(program, CALLS + 3, rows)
        call(word(team, RUN_PARALLEL), program, word(team, PARTS), 1)
    else:
        call(word(team, PRODUCT), row, 0, rows)


@inline_jit
def add_masked_rows(team, x, masks, count, b, out, start, stop, adds):
    """Compute some rows of ``x.T @ b``, of which the first is a multiple of 64, and add them to ``out`` if told to."""
    row = lines_on_stack(_ROW_LINES)
    _describe(row, x, TRANSPOSED, masks, count, b, AS_IT_IS, out, adds)
    call(word(team, PRODUCT), row, start, stop)
