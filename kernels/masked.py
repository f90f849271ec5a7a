"""Products of matrices that skip the zeros of the left one.

Most pixels of an image are zero, and ReLU makes half of a hidden layer zero. A mask has a bit for each element that is
not: rows of words, 64 elements each. A product goes through the bits of a word, and adds to a row of the result the
row of the right matrix that each belongs to. So each element of the result is one chain of fused multiply-adds in the
order of the rows, and its bits depend neither on the other rows nor on threads.
"""

from __future__ import annotations

import sys

import numpy as np

from fastoptim.kernels.jit import DISABLED, HAS_FMA, inline_jit
from fastoptim.kernels.memory import load, set_word, store, word
from fastoptim.kernels.vectors import (
    LINE,
    MAX_LINES,
    add_rows,
    copy_line,
    copy_square,
    count_bits,
    lines_on_stack,
    nonzero,
)

__all__ = ["AS_IT_IS", "FEWEST_ROWS", "TRANSPOSED", "WIDTH", "fill_masks", "masked_dot", "multiply"]

WIDTH = 64
"""Number of elements of which a word of a mask says whether they are zero."""

FEWEST_ROWS = 16 if HAS_FMA and not DISABLED else sys.maxsize
_FEWEST_COLUMNS = 16
_HIGHEST_DENSITY, _HIGHEST_DENSITY_OF_LARGE, _LARGE = 0.7, 0.25, 1 << 24
"""Where BLAS is not faster: see docs/design.md. Where it multiplies more than that, it gains by several threads."""

AS_IT_IS, TRANSPOSED = np.bool_(False), np.bool_(True)
"""How a matrix is used. For each of Python's ``False`` and ``True``, Numba would compile another function."""

_WORDS = (np.uint64,)
_BLOCK_LINES = WIDTH * MAX_LINES
_STRIP_LINES = WIDTH * 8 // LINE


@inline_jit
def fill_masks(x, masks):
    """Fill the masks of the rows of a matrix, and return how many of its elements are not zero."""
    T, size, width = x.dtype.type, x.itemsize, x.shape[1]
    whole, rest = divmod(width, WIDTH)
    total = 0
    for i in range(x.shape[0]):
        row = x.ctypes.data + i * width * size
        for w in range(whole):
            bits = nonzero(T, row + w * WIDTH * size)
            masks[i, w] = bits
            total += count_bits(bits)
        if rest:
            bits = np.uint64(0)
            if whole:
                # The last 64 elements, without those that are in the word before.
                bits = nonzero(T, row + (width - WIDTH) * size) >> np.uint64(WIDTH - rest)
            else:
                for j in range(width):
                    bits |= np.uint64(x[i, j] != 0) << np.uint64(j)
            masks[i, whole] = bits
            total += count_bits(bits)
    return total


@inline_jit
def _pays(count, size, columns):
    """Return whether skipping zeros is faster than BLAS, for so many elements of the left matrix that are not zero."""
    highest = _HIGHEST_DENSITY if size * columns <= _LARGE else _HIGHEST_DENSITY_OF_LARGE
    return columns >= _FEWEST_COLUMNS and count < highest * size


@inline_jit
def _transpose(words):
    """Transpose the matrix of the bits of 64 words."""
    width, keep = 32, np.uint64(0x00000000FFFFFFFF)
    while width:
        shift = np.uint64(width)
        for start in range(0, WIDTH, 2 * width):
            for k in range(start, start + width):
                (a,), (b,) = load(_WORDS, (words,), k), load(_WORDS, (words,), k + width)
                swap = ((a >> shift) ^ b) & keep
                store(_WORDS, (words,), k, a ^ (swap << shift))
                store(_WORDS, (words,), k + width, b ^ swap)
        width //= 2
        keep ^= keep << np.uint64(width)


@inline_jit
def _copy_rows(T, block, lines, last, b, b_row, count):
    """Copy parts of rows to a block, line by line; return zero if all elements are finite."""
    found = 0
    for _ in range(count):
        for line in range(lines - 1):
            found |= copy_line(T, block + line * LINE, b + line * LINE)
        found |= copy_line(T, block + (lines - 1) * LINE, b + last)
        block += lines * LINE
        b += b_row
    return found


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
def _add_strip(T, lines, last, out, out_row, first, first_row, strip, count, x, x_row, x_step, block):
    for i in range(count):
        (bits,) = load(_WORDS, (strip,), i)
        add_rows(T, lines, last, out + i * out_row, first + i * first_row, bits, x + i * x_row, x_step, block)


@inline_jit
def multiply(T, size, shape, left, words, right, out):
    """Compute a product; see `masked_dot`. A matrix is its address and its two steps in bytes.

    Either the rows or the columns of the right matrix must be contiguous. A row of ``out``, which has no gaps, must
    fill at least a line.
    """
    rows, inner, columns = shape
    (x, x_row, x_step), (masks, n_words, transposed), (b, b_row, b_step) = left, words, right
    lanes = LINE // size
    tiles = (columns + MAX_LINES * lanes - 1) // (MAX_LINES * lanes)
    width = (columns + tiles - 1) // tiles
    lines = (width + lanes - 1) // lanes
    last = (width - lanes) * size
    out_row = columns * size
    block, zeros, strip = lines_on_stack(_BLOCK_LINES), lines_on_stack(MAX_LINES), lines_on_stack(_STRIP_LINES)
    for k in range(MAX_LINES * LINE // 8):
        set_word(zeros, k, 0)
    found = 0
    for tile in range(tiles):
        # The last tile may overlap the one before it.
        start = min(tile * width, columns - width)
        for k in range(0, inner, WIDTH):
            # The block of the right matrix stays in the fastest cache while all rows use it.
            count = min(WIDTH, inner - k)
            corner = b + k * b_row + start * b_step
            if b_step == size:
                found |= _copy_rows(T, block, lines, last, corner, b_row, count)
            else:
                found |= _copy_columns(T, size, block, lines, last, corner, b_step, count)
            for i in range(0, rows, WIDTH):
                n_rows = min(WIDTH, rows - i)
                if transposed:
                    for j in range(WIDTH):
                        set_word(strip, j, word(masks, (k + j) * n_words + i // WIDTH) if j < count else 0)
                    _transpose(strip)
                else:
                    for j in range(n_rows):
                        set_word(strip, j, word(masks, (i + j) * n_words + k // WIDTH))
                place = out + i * out_row + start * size
                first, first_row = (place, out_row) if k else (zeros, 0)
                corner = x + i * x_row + k * x_step
                _add_strip(
                    T, lines, last, place, out_row, first, first_row, strip, n_rows, corner, x_row, x_step, block
                )
    return found == 0


@inline_jit
def masked_dot(x, x_is_transposed, masks, count, b, b_is_transposed, out):
    """Compute a product of two matrices in C order, either of which may be used transposed, unless BLAS should.

    Parameters
    ----------
    x, b : array
        The left and the right matrix.
    x_is_transposed, b_is_transposed : bool
        `AS_IT_IS` or `TRANSPOSED`.
    masks, count
        The masks of ``x`` as it lies in memory, and the number of their bits, as from `fill_masks`. An element whose
        bit is not set counts as zero and is not read.
    out : array
        The result.

    Returns
    -------
    bool
        Whether ``out`` is the product. It is not if BLAS is faster, or if ``b`` has an element that is not finite: the
        product of that and zero is NaN.
    """
    T, size, rows, columns = x.dtype.type, x.itemsize, out.shape[0], out.shape[1]
    if not _pays(count, x.size, columns):
        return False
    x_row, x_step, inner = x.shape[1] * size, size, x.shape[1]
    if x_is_transposed:
        x_row, x_step, inner = x_step, x_row, x.shape[0]
    b_row, b_step = b.shape[1] * size, size
    if b_is_transposed:
        b_row, b_step = b_step, b_row
    left, right = (x.ctypes.data, x_row, x_step), (b.ctypes.data, b_row, b_step)
    words = masks.ctypes.data, masks.shape[1], x_is_transposed
    return multiply(T, size, (rows, inner, columns), left, words, right, out.ctypes.data)
