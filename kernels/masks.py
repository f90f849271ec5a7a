"""Masks of matrices: a bit for each element that is not zero, in rows of words, 64 elements each."""

from __future__ import annotations

import numpy as np

from fastoptim.kernels.jit import inline_jit
from fastoptim.kernels.memory import load, set_word, store, word
from fastoptim.kernels.vectors import count_bits, nonzero

__all__ = ["WIDTH", "fill_masks", "fill_strip"]

WIDTH = 64
"""Number of elements of which a word of a mask says whether they are zero."""

_WORDS = (np.uint64,)


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
def fill_strip(strip, masks, n_words, transposed, i, n_rows, k, count):
    """Copy the masks of 64 × 64 elements of the left matrix, a word for each of its rows."""
    if transposed:
        for j in range(WIDTH):
            set_word(strip, j, word(masks, (k + j) * n_words + i // WIDTH) if j < count else 0)
        _transpose(strip)
    else:
        for j in range(n_rows):
            set_word(strip, j, word(masks, (i + j) * n_words + k // WIDTH))
