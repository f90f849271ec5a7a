"""Where the numbers of a network lie: the words that describe a batch, and the table of the layers.

Passes are functions of an address, at which the words of a batch are: numbers, and addresses of what it works on.
Parameters and gradients are flat buffers that hold ``W1, b1, W2, b2, …`` in this order. The table has a row of integers
for each layer, so that one compilation serves all depths and widths:

======== ======= ==========================================================================
column   name    meaning
======== ======= ==========================================================================
0        INPUTS  number of inputs
1        OUTPUTS number of outputs
2        WEIGHTS start of its weights in a flat buffer; its bias follows them
3        OUTPUT  start of its output in the workspace, divided by the number of rows
4        DELTA   start of the gradient of its output in the workspace, likewise
5        MASKS   start of the masks of its inputs in the buffer of all masks, likewise
6        GAMMA   start of the factors of its batch normalization in a flat buffer, which its
                 summands follow; -1 without one
7        NORMAL  start of its normalized output in the workspace, likewise
======== ======= ==========================================================================

The workspace holds some of the samples at a time, its rows.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fastoptim.kernels.jit import inline_jit
from fastoptim.kernels.masked import PARTS
from fastoptim.kernels.masks import WIDTH
from fastoptim.kernels.table import DATA, ITEMS
from fastoptim.kernels.views import integer_at, matrix_at, vector_at

INPUTS, OUTPUTS, WEIGHTS, OUTPUT, DELTA, MASKS, GAMMA, NORMAL = range(8)
_COLUMNS = 8

# The words of a batch begin with those of `masked_dot`.
FIRST, ROWS, CAPACITY, TOTAL, SLICE = range(PARTS + 1, 8)
"""The number of the first sample in the workspace; how many samples are in it, and how many it can hold; the number of
all samples; and the number of samples of a slice. A thread processes whole slices."""
KIND, ACTIVATION, IS_TRAINING, DROPS, N_UNITS_OF_STATISTICS, N_LAYERS, N_IN_TURN = range(8, 15)
"""What is wanted, the activation, numbers of an `Extension`, the number of layers, and the number of rows of words,
this one and those after it, that one call goes through: the samples of each use the workspace after those before."""
DECAY, RATIO = 15, 16
"""The weight decay of a gradient, and the ratio of dropout: float64 numbers."""
LAYERS, WORKSPACE, BITS, COUNTS, ARRAYS = range(17, 22)
"""Addresses of the table, of the memory, and of the tuple of the arrays."""
N_WORDS = 22

X, PARAMS, OUT, TARGETS, LOSSES, SHARES, DRAWN, STATISTICS = range(8)
"""Places in the tuple of the arrays, see `Runner.run`; the last two are those of an `Extension`."""


def table(sizes: Sequence[int], is_normalized: bool = False) -> tuple[NDArray[np.intp], int]:
    """Return the table of the layers of a network, and its workspace in elements per sample.

    If it has batch normalization, ``gamma1, beta1, gamma2, …`` follow all weights and biases.
    """
    outputs = np.cumsum([0, *sizes[1:]])
    size = int(outputs[-1] + outputs[-2])
    # The scores are replaced by the gradient with respect to them.
    deltas = [*(outputs[-1] + outputs[:-2]), outputs[-2]]
    weights = np.cumsum([0, *((n + 1) * m for n, m in pairwise(sizes))])
    masks = np.cumsum([0, *(-(-n // WIDTH) for n in sizes[:-1])])
    is_hidden = is_normalized & (np.arange(1, len(sizes)) < len(sizes) - 1)
    gammas = np.where(is_hidden, weights[-1] + 2 * outputs[:-1], -1)
    columns = sizes[:-1], sizes[1:], weights[:-1], outputs[:-1], deltas, masks[:-1], gammas, size + outputs[:-1]
    return np.array(columns, np.intp).T.copy(), size + is_normalized * int(outputs[-2])


@inline_jit
def array_of(batch, place):
    """Return the address of the data of an array. To ask each array in Python would take as long as a small layer."""
    return integer_at(integer_at(integer_at(batch, ARRAYS), ITEMS + place), DATA)


@inline_jit
def layer_at(batch, k):
    """Return the address of a row of the table."""
    return integer_at(batch, LAYERS) + 8 * _COLUMNS * k


@inline_jit
def weights_of(T, buffer, layer):
    """Return the weights of a layer, or their gradients."""
    return matrix_at(T, buffer, integer_at(layer, WEIGHTS), integer_at(layer, INPUTS), integer_at(layer, OUTPUTS))


@inline_jit
def bias_of(T, buffer, layer):
    """Return the biases of a layer, or their gradients."""
    n, m = integer_at(layer, INPUTS), integer_at(layer, OUTPUTS)
    return vector_at(T, buffer, integer_at(layer, WEIGHTS) + n * m, m)


@inline_jit
def gamma_of(T, buffer, layer):
    """Return the factors of the batch normalization of a layer, or their gradients."""
    return vector_at(T, buffer, integer_at(layer, GAMMA), integer_at(layer, OUTPUTS))


@inline_jit
def beta_of(T, buffer, layer):
    """Return the summands of the batch normalization of a layer, or their gradients."""
    m = integer_at(layer, OUTPUTS)
    return vector_at(T, buffer, integer_at(layer, GAMMA) + m, m)


@inline_jit
def part_of(T, array, width, batch, start, stop):
    """Return the elements of an array of all samples that belong to rows of the workspace."""
    first = integer_at(batch, FIRST) + start
    return matrix_at(T, array, first * width, stop - start, width)


@inline_jit
def rows_of(T, batch, layer, column, start, stop):
    """Return rows of a matrix of the workspace, which is as wide as the output of its layer."""
    width = integer_at(layer, OUTPUTS)
    begin = integer_at(layer, column) * integer_at(batch, CAPACITY) + start * width
    return matrix_at(T, integer_at(batch, WORKSPACE), begin, stop - start, width)


@inline_jit
def inputs_of(T, batch, k, start, stop):
    """Return rows of the inputs of a layer: of the samples, or of the outputs of the layer below."""
    if k == 0:
        return part_of(T, array_of(batch, X), integer_at(layer_at(batch, 0), INPUTS), batch, start, stop)
    return rows_of(T, batch, layer_at(batch, k - 1), OUTPUT, start, stop)


@inline_jit
def words_of(layer):
    """Return the number of words of the mask of a row of inputs."""
    return (integer_at(layer, INPUTS) + WIDTH - 1) // WIDTH


@inline_jit
def masks_of(batch, layer, start, stop):
    """Return the masks of rows of the inputs of a layer."""
    n = words_of(layer)
    begin = integer_at(layer, MASKS) * integer_at(batch, CAPACITY) + start * n
    return matrix_at(np.uint64, integer_at(batch, BITS), begin, stop - start, n)


@inline_jit
def counts_of(batch):
    """Return a row for each slice of the workspace, which has for each layer the number of inputs that are not zero.

    Where a thread processed several slices together, the row of the first has their sum, and the others have zeros.
    """
    slices = integer_at(batch, CAPACITY) // integer_at(batch, SLICE)
    return matrix_at(np.intp, integer_at(batch, COUNTS), 0, slices, integer_at(batch, N_LAYERS))
