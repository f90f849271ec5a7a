"""Masks of matrices: a bit for each element that is not zero, in rows of words, 64 elements each."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastoptim.kernels.jit import inline_jit
from fastoptim.kernels.memory import set_word, word

__all__ = ["WIDTH", "fill_masks", "fill_strip"]

WIDTH = 64
"""Number of elements of which a word of a mask says whether they are zero."""

_WORD = ir.IntType(WIDTH)
_intrinsic = intrinsic(prefer_literal=True)


@_intrinsic
def _nonzero(_typing: Any, T: Any, _address: Any) -> Any:
    """Return a word of which bit k tells whether element k of the 64 at an address is not zero, as NaN is not."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        vector = ir.VectorType(context.get_value_type(T.instance_type), WIDTH)
        place = builder.inttoptr(args[1], vector.as_pointer())
        elements = builder.load(place, align=T.instance_type.bitwidth // 8)
        return builder.bitcast(builder.fcmp_unordered("!=", elements, ir.Constant(vector, None)), _WORD)

    return types.uint64(T, types.intp), codegen


@_intrinsic
def _count_bits(_typing: Any, _word: Any) -> Any:
    """Return how many bits of a word are set."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.intp(types.uint64), codegen


@_intrinsic
def _transpose(_typing: Any, _address: Any) -> Any:
    """Transpose the matrix of the bits of 64 words."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        vector = ir.VectorType(_WORD, WIDTH)
        place = builder.inttoptr(args[0], vector.as_pointer())
        words = builder.load(place, align=WIDTH // 8)
        kind = ir.FunctionType(vector, [vector] * 3)
        rotate = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fshl.v{WIDTH}i{WIDTH}")
        # Exchange quarters of squares of 64 bits, of 32, and so on: half of the bits of each word stay, and the others
        # come from another word.
        for width in (32, 16, 8, 4, 2, 1):
            is_lower = [not k & width for k in range(WIDTH)]
            lower = sum(1 << k for k in range(WIDTH) if is_lower[k])
            others = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [k ^ width for k in range(WIDTH)])
            by = ir.Constant(vector, [width if low else WIDTH - width for low in is_lower])
            stay = ir.Constant(vector, [lower if low else lower << width for low in is_lower])
            other = builder.shuffle_vector(words, words, others)
            other = builder.call(rotate, [other, other, by])
            words = builder.xor(other, builder.and_(builder.xor(other, words), stay))
        builder.store(words, place, align=WIDTH // 8)
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@inline_jit
def fill_masks(x, masks):
    """Fill the masks of the rows of a matrix, and return how many of its elements are not zero."""
    T, size, width = x.dtype.type, x.itemsize, x.shape[1]
    whole, rest = divmod(width, WIDTH)
    total = 0
    for i in range(x.shape[0]):
        row = x.ctypes.data + i * width * size
        for w in range(whole):
            bits = _nonzero(T, row + w * WIDTH * size)
            masks[i, w] = bits
            total += _count_bits(bits)
        if rest:
            bits = np.uint64(0)
            if whole:
                # The last 64 elements, without those that are in the word before.
                bits = _nonzero(T, row + (width - WIDTH) * size) >> np.uint64(WIDTH - rest)
            else:
                for j in range(width):
                    bits |= np.uint64(x[i, j] != 0) << np.uint64(j)
            masks[i, whole] = bits
            total += _count_bits(bits)
    return total


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
