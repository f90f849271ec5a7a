"""Forward and backward passes of a fully connected network of any depth; products skip zeros, or BLAS computes them.

Parameters and gradients are flat buffers that hold ``W1, b1, W2, b2, …`` in this order. ``layers`` is a table of
integers with a row for each layer, so that one compilation serves all depths and widths:

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

Batch normalization, and dropout, take an `Extension`. Where that is None, Numba compiles no code for them.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

# This loads the BLAS. Numba would load it at the first product, and limits on its threads set earlier would be lost.
import scipy.linalg.cython_blas  # noqa: F401
from numpy.typing import NDArray

from fastoptim.kernels.exponential import exponential
from fastoptim.kernels.jit import inline_jit, jit
from fastoptim.kernels.losses import softmax_cross_entropy, softmax_cross_entropy_backward, weighted_loss
from fastoptim.kernels.masked import ALL, AS_IT_IS, FEWEST_ROWS, TRANSPOSED, masked_dot
from fastoptim.kernels.masks import WIDTH, fill_masks
from fastoptim.kernels.normalization import drop, normalize, normalize_backward, scale

__all__ = ["RELU", "SIGMOID", "gradient", "loss", "loss_and_gradient", "numerical_gradient", "predict", "table"]

RELU, SIGMOID = range(2)

INPUTS, OUTPUTS, WEIGHTS, OUTPUT, DELTA, MASKS, GAMMA, NORMAL = range(8)


def table(sizes: Sequence[int], is_normalized: bool = False) -> tuple[NDArray[np.intp], int]:
    """Return the table of the layers of a network, and its workspace in elements per sample.

    If it has batch normalization, ``gamma1, beta1, gamma2, …`` follow all weights and biases.
    """
    outputs = np.cumsum([0, *sizes[1:]])
    # Gradients by outputs alternate between two places, each as wide as the widest layer.
    deltas = [outputs[-1] + k % 2 * max(sizes[1:]) for k in range(len(sizes) - 1)]
    weights = np.cumsum([0, *((n + 1) * m for n, m in pairwise(sizes))])
    masks = np.cumsum([0, *(-(-n // WIDTH) for n in sizes[:-1])])
    size = int(outputs[-1] + 2 * max(sizes[1:]))
    is_hidden = is_normalized & (np.arange(1, len(sizes)) < len(sizes) - 1)
    gammas = np.where(is_hidden, weights[-1] + 2 * outputs[:-1], -1)
    columns = sizes[:-1], sizes[1:], weights[:-1], outputs[:-1], deltas, masks[:-1], gammas, size + outputs[:-1]
    return np.array(columns, np.intp).T.copy(), size + is_normalized * int(outputs[-2])


@inline_jit
def _weights(buffer, layer):
    start, inputs, outputs = layer[WEIGHTS], layer[INPUTS], layer[OUTPUTS]
    return buffer[start : start + inputs * outputs].reshape((inputs, outputs))


@inline_jit
def _bias(buffer, layer):
    start = layer[WEIGHTS] + layer[INPUTS] * layer[OUTPUTS]
    return buffer[start : start + layer[OUTPUTS]]


@inline_jit
def _gamma(buffer, layer):
    return buffer[layer[GAMMA] : layer[GAMMA] + layer[OUTPUTS]]


@inline_jit
def _beta(buffer, layer):
    return buffer[layer[GAMMA] + layer[OUTPUTS] : layer[GAMMA] + 2 * layer[OUTPUTS]]


@inline_jit
def _statistics(extension, layer):
    units = extension.statistics[:, layer[OUTPUT] : layer[OUTPUT] + layer[OUTPUTS]]
    return units[0], units[1]


@inline_jit
def _rows(work, start, rows, width):
    return work[start * rows : (start + width) * rows].reshape((rows, width))


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
def _activate_backward(delta, output, activation, sums):
    """Turn the gradient with respect to an output into that before the activation, and sum its rows."""
    zero, one = delta.dtype.type(0), delta.dtype.type(1)
    sums[:] = zero
    for i in range(delta.shape[0]):
        d, a = delta[i], output[i]
        if activation == RELU:
            for j in range(d.size):
                value = zero if a[j] <= zero else d[j]
                d[j] = value
                sums[j] += value
        else:
            for j in range(d.size):
                value = d[j] * ((one - a[j]) * a[j])
                d[j] = value
                sums[j] += value


@inline_jit
def _words(layer):
    return (layer[INPUTS] + WIDTH - 1) // WIDTH


@inline_jit
def _masks(masks, rows, layer):
    return _rows(masks, layer[MASKS], rows, _words(layer))


@inline_jit
def _hidden(z, params, layer, activation, work, extension):
    """Turn a product of a hidden layer into its output."""
    rows, width = z.shape
    bias = _bias(params, layer)
    if extension is not None and layer[GAMMA] >= 0:
        normal = _rows(work, layer[NORMAL], rows, width)
        mean, var = _statistics(extension, layer)
        normalize(z, bias, _gamma(params, layer), mean, var, extension.is_training, normal)
        bias = _beta(params, layer)
    _activate(z, bias, activation)
    if extension is not None:
        if extension.drops and extension.is_training:
            drop(z, _rows(extension.drawn, layer[OUTPUT], rows, width), extension.ratio)
        elif extension.drops:
            scale(z, z.dtype.type(1 - extension.ratio))


@inline_jit
def _forward(x, params, layers, activation, extension, work, team):
    """Return the scores; and the masks of the inputs of each layer, and how many are not zero, or `ALL`."""
    rows = x.shape[0]
    masks = np.empty(rows * (layers[-1, MASKS] + _words(layers[-1])), np.uint64)
    nonzero = np.empty(len(layers), np.intp)
    has_zeros = activation == RELU
    if extension is not None:
        has_zeros = has_zeros or (extension.drops and extension.is_training)
    a = x
    for k in range(len(layers)):
        layer = layers[k]
        z = _rows(work, layer[OUTPUT], rows, layer[OUTPUTS])
        nonzero[k] = ALL
        if rows >= FEWEST_ROWS and (k == 0 or has_zeros):
            nonzero[k] = fill_masks(a, _masks(masks, rows, layer))
        weights = _weights(params, layer)
        if rows < FEWEST_ROWS:
            np.dot(a, weights, z)
        else:
            masked_dot(team, a, AS_IT_IS, _masks(masks, rows, layer), nonzero[k], weights, AS_IT_IS, z)
        if k < len(layers) - 1:
            _hidden(z, params, layer, activation, work, extension)
        else:
            _add_bias(z, _bias(params, layer))
        a = z
    return a, masks, nonzero


@inline_jit
def _penalty(params, layers, decay):
    total = 0.0
    if decay != 0:
        for k in range(len(layers)):
            start = layers[k, WEIGHTS]
            for i in range(start, start + layers[k, INPUTS] * layers[k, OUTPUTS]):
                total += params[i] * params[i]
    return 0.5 * decay * total


@inline_jit
def _penalty_backward(out, params, layers, decay):
    factor = params.dtype.type(decay)
    for k in range(len(layers)):
        start, size = layers[k, WEIGHTS], layers[k, INPUTS] * layers[k, OUTPUTS]
        # Loops that begin at zero are vectorized; others would have to look for negative indices.
        values, gradient = params[start : start + size], out[start : start + size]
        for i in range(size):
            gradient[i] += factor * values[i]


@inline_jit
def _sum_rows(delta, out):
    out[:] = 0
    for i in range(delta.shape[0]):
        row = delta[i]
        for j in range(row.size):
            out[j] += row[j]


@jit
def predict(x, params, layers, activation, extension, work, team):
    """Return the scores before softmax, a view of the workspace."""
    return _forward(x, params, layers, activation, extension, work, team)[0]


@jit
def loss(x, labels, params, layers, activation, decay, extension, work, team):
    """Return the mean cross-entropy plus ``decay / 2`` times the sum of the squared weights."""
    scores, _, _ = _forward(x, params, layers, activation, extension, work, team)
    return softmax_cross_entropy(scores, labels) + _penalty(params, layers, decay)


@inline_jit
def _backward(x, delta, masks, nonzero, params, layers, activation, decay, extension, out, work, team):
    """Write the gradient with respect to the parameters to ``out``; ``delta`` is that with respect to the scores."""
    rows, last = x.shape[0], len(layers) - 1
    _sum_rows(delta, _bias(out, layers[last]))
    for k in range(last, -1, -1):
        layer = layers[k]
        below = layers[max(k - 1, 0)]
        a = x if k == 0 else _rows(work, below[OUTPUT], rows, below[OUTPUTS])
        weights, d_weights = _weights(params, layer), _weights(out, layer)
        if rows < FEWEST_ROWS:
            np.dot(a.T, delta, d_weights)
        else:
            masked_dot(team, a, TRANSPOSED, _masks(masks, rows, layer), nonzero[k], delta, AS_IT_IS, d_weights)
        if k > 0:
            d_a = _rows(work, below[DELTA], rows, below[OUTPUTS])
            if rows < FEWEST_ROWS:
                np.dot(delta, weights.T, d_a)
            else:
                # Where ReLU or dropout gave zero to the layer above, this gradient is zero, unless it was normalized.
                above = min(k + 1, last)
                count = nonzero[above] if k < last and layer[GAMMA] < 0 else ALL
                masked_dot(team, delta, AS_IT_IS, _masks(masks, rows, layers[above]), count, weights, TRANSPOSED, d_a)
            # Where dropout gave zero, the derivative of either activation is zero.
            _activate_backward(d_a, a, activation, _bias(out, below))
            if extension is not None and below[GAMMA] >= 0:
                normal = _rows(work, below[NORMAL], rows, below[OUTPUTS])
                var = _statistics(extension, below)[1]
                d_gamma, d_beta = _gamma(out, below), _beta(out, below)
                normalize_backward(d_a, normal, _gamma(params, below), var, d_gamma, d_beta)
                # It subtracts the bias with the mean.
                _bias(out, below)[:] = 0
            delta = d_a
    if decay != 0:
        _penalty_backward(out, params, layers, decay)


@jit
def gradient(x, labels, params, layers, activation, decay, extension, out, work, team):
    """Compute the gradient of `loss` with respect to the parameters by back-propagation; write it to ``out``."""
    scores, masks, nonzero = _forward(x, params, layers, activation, extension, work, team)
    softmax_cross_entropy_backward(scores, labels)
    _backward(x, scores, masks, nonzero, params, layers, activation, decay, extension, out, work, team)


@jit
def loss_and_gradient(x, targets, weights, kind, params, layers, activation, alpha, out, work, team):
    """Write the gradient of a weighted loss to ``out``, and return the loss: both with ``alpha`` as weight decay.

    As in scikit-learn, the weight decay is divided by the sum of the weights of the rows.
    """
    scores, masks, nonzero = _forward(x, params, layers, activation, None, work, team)
    decay, squares = alpha / weights.sum(), 0.0
    if decay != 0:
        for k in range(len(layers)):
            # One chain of additions, as in `_penalty`, would take half as long as the rest of the gradient.
            start, size = layers[k, WEIGHTS], layers[k, INPUTS] * layers[k, OUTPUTS]
            squares += np.dot(params[start : start + size], params[start : start + size])
    loss = weighted_loss(kind, scores, targets, weights) + 0.5 * decay * squares
    _backward(x, scores, masks, nonzero, params, layers, activation, decay, None, out, work, team)
    return loss


@jit
def numerical_gradient(x, labels, params, layers, activation, decay, extension, step, out, work, team):
    """Write central differences of `loss` for each parameter to ``out``; ``params`` are restored."""
    for i in range(params.size):
        value = params[i]
        params[i] = value + step
        above = loss(x, labels, params, layers, activation, decay, extension, work, team)
        params[i] = value - step
        below = loss(x, labels, params, layers, activation, decay, extension, work, team)
        params[i] = value
        out[i] = (above - below) / (2 * step)
