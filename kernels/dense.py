"""Forward and backward passes of a fully connected network of any depth; products skip zeros, or BLAS computes them.

A batch goes through the network some rows at a time: `forward`, for a gradient `backward`, and then `weight_gradients`,
which adds what the rows contribute to the gradients with respect to the parameters. Several threads may each do so with
a part of the range: no bit depends on how it is cut.

Batch normalization, and dropout, take an `Extension`. Where that is None, Numba compiles no code for them.
"""

import numpy as np

# This loads the BLAS. Numba would load it at the first product, and limits on its threads set earlier would be lost.
import scipy.linalg.cython_blas  # noqa: F401

from fastoptim.kernels.exponential import exponential
from fastoptim.kernels.jit import inline_jit
from fastoptim.kernels.layers import (
    ACTIVATION,
    DECAY,
    DELTA,
    FIRST,
    GAMMA,
    INPUTS,
    N_LAYERS,
    NORMAL,
    OUT,
    OUTPUT,
    OUTPUTS,
    PARAMS,
    ROWS,
    SLICE,
    TOTAL,
    WEIGHTS,
    array_of,
    beta_of,
    bias_of,
    counts_of,
    gamma_of,
    inputs_of,
    layer_at,
    masks_of,
    part_of,
    rows_of,
    weights_of,
    words_of,
)
from fastoptim.kernels.masked import ALL, AS_IT_IS, FEWEST_ROWS, TRANSPOSED, add_masked_rows, masked_dot, work
from fastoptim.kernels.masks import WIDTH, fill_masks
from fastoptim.kernels.normalization import drop, normalize, normalize_backward, scale
from fastoptim.kernels.views import elements_of, integer_at, number_at, vector_at

__all__ = ["ALL_WORK", "RELU", "SIGMOID", "backward", "forward", "weight_gradients"]

RELU, SIGMOID = range(2)
ALL_WORK = 64 * WIDTH
"""The end of the range of `weight_gradients`. Threads cut it at multiples of 64, so into at most 64 parts."""


@inline_jit
def _add_bias(z, bias):
    for i in range(z.shape[0]):
        row = z[i]
        for j in range(row.size):
            row[j] += bias[j]


@inline_jit
def _activate(z, bias, activation):
    T = z.dtype.type
    zero, one = T(0), T(1)
    for i in range(z.shape[0]):
        row = z[i]
        if activation == RELU:
            for j in range(row.size):
                value = row[j] + bias[j]
                # Unlike max(value, 0) this keeps NaN.
                row[j] = zero if value <= zero else value
        else:
            for j in range(row.size):
                row[j] = one / (one + exponential(T, -(row[j] + bias[j])))


@inline_jit
def _activate_backward(T, delta, output, activation):
    """Turn the gradient with respect to an output into that before the activation."""
    d, a, zero, one = elements_of(T, delta), elements_of(T, output), T(0), T(1)
    if activation == RELU:
        for j in range(d.size):
            d[j] = zero if a[j] <= zero else d[j]
    else:
        for j in range(d.size):
            d[j] *= (one - a[j]) * a[j]


@inline_jit
def _statistics(extension, layer):
    begin, end = integer_at(layer, OUTPUT), integer_at(layer, OUTPUT) + integer_at(layer, OUTPUTS)
    return extension.statistics[0, begin:end], extension.statistics[1, begin:end]


@inline_jit
def _hidden(z, T, batch, extension, layer, start, stop):
    """Turn a product of a hidden layer into its output."""
    params = array_of(batch, PARAMS)
    bias = bias_of(T, params, layer)
    if extension is not None and integer_at(layer, GAMMA) >= 0:
        normal = rows_of(T, batch, layer, NORMAL, start, stop)
        mean, var = _statistics(extension, layer)
        normalize(z, bias, gamma_of(T, params, layer), mean, var, extension.is_training, normal)
        bias = beta_of(T, params, layer)
    _activate(z, bias, integer_at(batch, ACTIVATION))
    if extension is not None:
        if extension.drops and extension.is_training:
            numbers = extension.drawn + 8 * integer_at(layer, OUTPUT) * integer_at(batch, TOTAL)
            drop(z, part_of(np.float64, numbers, z.shape[1], batch, start, stop), extension.ratio)
        elif extension.drops:
            scale(z, T(1 - extension.ratio))


@inline_jit
def forward(T, batch, extension, start, stop):
    """Compute the outputs of all layers, and the masks of their inputs; return the scores."""
    params, n_layers = array_of(batch, PARAMS), integer_at(batch, N_LAYERS)
    counts, height = counts_of(batch), integer_at(batch, SLICE)
    has_zeros = integer_at(batch, ACTIVATION) == RELU
    if extension is not None:
        has_zeros = has_zeros or (extension.drops and extension.is_training)
    for k in range(n_layers):
        layer = layer_at(batch, k)
        a = inputs_of(T, batch, k, start, stop)
        z = rows_of(T, batch, layer, OUTPUT, start, stop)
        weights = weights_of(T, params, layer)
        count = ALL
        if integer_at(batch, TOTAL) < FEWEST_ROWS:
            np.dot(a, weights, z)
        else:
            masks = masks_of(batch, layer, start, stop)
            if k == 0 or has_zeros:
                count = fill_masks(a, masks)
            masked_dot(batch, a, AS_IT_IS, masks, count, weights, AS_IT_IS, z)
        for i in range(start // height, (stop + height - 1) // height):
            counts[i, k] = 0
        counts[start // height, k] = count
        if k < n_layers - 1:
            _hidden(z, T, batch, extension, layer, start, stop)
        else:
            _add_bias(z, bias_of(T, params, layer))
    return rows_of(T, batch, layer_at(batch, n_layers - 1), OUTPUT, start, stop)


@inline_jit
def backward(T, batch, extension, start, stop):
    """Compute the gradients with respect to the outputs of all layers; the scores have been replaced by theirs."""
    params, last = array_of(batch, PARAMS), integer_at(batch, N_LAYERS) - 1
    counts, height, activation = counts_of(batch), integer_at(batch, SLICE), integer_at(batch, ACTIVATION)
    for k in range(last, 0, -1):
        layer, below = layer_at(batch, k), layer_at(batch, k - 1)
        delta = rows_of(T, batch, layer, DELTA, start, stop)
        d_a = rows_of(T, batch, below, DELTA, start, stop)
        weights = weights_of(T, params, layer)
        if integer_at(batch, TOTAL) < FEWEST_ROWS:
            np.dot(delta, weights.T, d_a)
        else:
            # Where ReLU gave zero to the layer above, this gradient is zero, unless it was normalized. Where dropout
            # gave zero after a sigmoid, it is NaN if it overflowed.
            above, count = min(k + 1, last), ALL
            if k < last and activation == RELU and integer_at(layer, GAMMA) < 0:
                count = counts[start // height, above]
            masks = masks_of(batch, layer_at(batch, above), start, stop)
            masked_dot(batch, delta, AS_IT_IS, masks, count, weights, TRANSPOSED, d_a)
        # Where dropout gave zero, the derivative of either activation is zero.
        _activate_backward(T, d_a, inputs_of(T, batch, k, start, stop), activation)
        if extension is not None and integer_at(below, GAMMA) >= 0:
            normal, var = rows_of(T, batch, below, NORMAL, start, stop), _statistics(extension, below)[1]
            out = array_of(batch, OUT)
            d_gamma, d_beta = gamma_of(T, out, below), beta_of(T, out, below)
            normalize_backward(d_a, normal, gamma_of(T, params, below), var, d_gamma, d_beta)


@inline_jit
def _bias_gradient(T, batch, layer):
    """Add the gradients with respect to the biases of a layer, one row after the other."""
    out = bias_of(T, array_of(batch, OUT), layer)
    if integer_at(batch, FIRST) == 0:
        for j in range(out.size):
            out[j] = 0
    # Normalization subtracts the bias with the mean.
    n_rows = integer_at(batch, ROWS) if integer_at(layer, GAMMA) < 0 else 0
    delta = rows_of(T, batch, layer, DELTA, 0, n_rows)
    whole = n_rows // 4 * 4
    for i in range(0, whole, 4):
        p, q, r, s = delta[i], delta[i + 1], delta[i + 2], delta[i + 3]
        for j in range(out.size):
            out[j] = out[j] + p[j] + q[j] + r[j] + s[j]
    for i in range(whole, n_rows):
        row = delta[i]
        for j in range(out.size):
            out[j] += row[j]


@inline_jit
def _add_decay(T, batch, begin, size):
    factor = T(number_at(batch, DECAY))
    values, gradient = (
        vector_at(T, array_of(batch, PARAMS), begin, size),
        vector_at(T, array_of(batch, OUT), begin, size),
    )
    for i in range(size):
        gradient[i] += factor * values[i]


@inline_jit
def _gradient_work(T, batch, k):
    """Return how many inputs of a layer are not zero, or `ALL`, and the `work` of the gradient of its weights."""
    counts, height, rows = counts_of(batch), integer_at(batch, SLICE), integer_at(batch, ROWS)
    count = counts[0, k]
    if count != ALL:
        for i in range(1, (rows + height - 1) // height):
            count += counts[i, k]
    d_weights = weights_of(T, array_of(batch, OUT), layer_at(batch, k))
    return count, work(inputs_of(T, batch, k, 0, rows), count, d_weights)


@inline_jit
def weight_gradients(T, batch, start, stop):
    """Add what the rows of the workspace contribute to the gradients with respect to some of the parameters.

    The range goes from 0 to `ALL_WORK`. It covers the weights of all layers such that equal parts take about the same
    time; the first part also has all biases. BLAS computes whole layers only, so it needs the whole range.
    """
    n_layers, rows, first = integer_at(batch, N_LAYERS), integer_at(batch, ROWS), integer_at(batch, FIRST)
    total = 0.0
    for k in range(n_layers):
        total += _gradient_work(T, batch, k)[1]
    begin, end = total * start / ALL_WORK, total * stop / ALL_WORK
    for k in range(n_layers):
        layer = layer_at(batch, k)
        if start == 0:
            _bias_gradient(T, batch, layer)
        # The part has those units of 64 inputs whose middle is in it.
        count, size = _gradient_work(T, batch, k)
        units = words_of(layer)
        low = int(min(max(units * begin / size + 0.5, 0), units)) * WIDTH
        high = min(int(min(max(units * end / size + 0.5, 0), units)) * WIDTH, integer_at(layer, INPUTS))
        begin, end = begin - size, end - size
        if low >= high:
            continue
        a, delta = inputs_of(T, batch, k, 0, rows), rows_of(T, batch, layer, DELTA, 0, rows)
        d_weights = weights_of(T, array_of(batch, OUT), layer)
        if integer_at(batch, TOTAL) < FEWEST_ROWS:
            np.dot(a.T, delta, d_weights)
        else:
            add_masked_rows(batch, a, masks_of(batch, layer, 0, rows), count, delta, d_weights, low, high, first > 0)
        if number_at(batch, DECAY) != 0 and first + rows == integer_at(batch, TOTAL):
            width = integer_at(layer, OUTPUTS)
            _add_decay(T, batch, integer_at(layer, WEIGHTS) + low * width, (high - low) * width)
