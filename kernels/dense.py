"""A fully connected network of any depth: forward beside backward, the products by BLAS.

Parameters and gradients are flat buffers that hold ``W1, b1, W2, b2, …`` one after the other; ``sizes`` are the widths
of the layers, the input's first. One compilation serves every depth and width.
"""

import numpy as np

from fastoptim.kernels.jit import inner, jit
from fastoptim.kernels.losses import softmax_cross_entropy, softmax_cross_entropy_backward

__all__ = ["RELU", "SIGMOID", "gradient", "loss", "numerical_gradient", "predict", "workspace_size"]

RELU, SIGMOID = range(2)


@inner
def _layer(buffer, sizes, k):
    """Return views of the weights and the bias of layer ``k``."""
    start = 0
    for i in range(k):
        start += (sizes[i] + 1) * sizes[i + 1]
    middle = start + sizes[k] * sizes[k + 1]
    weights = buffer[start:middle].reshape((sizes[k], sizes[k + 1]))
    return weights, buffer[middle : middle + sizes[k + 1]]


@inner
def _output(work, sizes, k, rows):
    """Return the view of the workspace that holds what layer ``k`` puts out."""
    start = 0
    for i in range(k):
        start += rows * sizes[i + 1]
    return work[start : start + rows * sizes[k + 1]].reshape((rows, sizes[k + 1]))


@inner
def _scratch(work, sizes, k, rows):
    """Return one of two views, taken in turn, for the gradient by what layer ``k`` puts out."""
    start = rows * sizes[1:].sum() + (k % 2) * rows * sizes[1:].max()
    return work[start : start + rows * sizes[k + 1]].reshape((rows, sizes[k + 1]))


@jit
def workspace_size(sizes, rows):
    """Return how many elements `gradient` works in: all outputs, and twice the widest for what flows back."""
    return rows * (sizes[1:].sum() + 2 * sizes[1:].max())


@inner
def _add_bias(z, bias):
    for i in range(z.shape[0]):
        row = z[i]
        for j in range(row.size):
            row[j] += bias[j]


@inner
def _activate(z, bias, activation):
    zero, one = z.dtype.type(0), z.dtype.type(1)
    for i in range(z.shape[0]):
        row = z[i]
        if activation == RELU:
            for j in range(row.size):
                value = row[j] + bias[j]
                # Not max(value, 0): a NaN must stay one.
                row[j] = zero if value <= zero else value
        else:
            for j in range(row.size):
                row[j] = one / (one + np.exp(-(row[j] + bias[j])))


@inner
def _activate_backward(delta, output, activation):
    zero, one = delta.dtype.type(0), delta.dtype.type(1)
    for i in range(delta.shape[0]):
        d, a = delta[i], output[i]
        if activation == RELU:
            for j in range(d.size):
                d[j] = zero if a[j] <= zero else d[j]
        else:
            for j in range(d.size):
                d[j] *= (one - a[j]) * a[j]


@inner
def _forward(x, params, sizes, activation, work):
    last = sizes.size - 2
    a = x
    for k in range(last + 1):
        weights, bias = _layer(params, sizes, k)
        z = _output(work, sizes, k, x.shape[0])
        np.dot(a, weights, z)
        if k < last:
            _activate(z, bias, activation)
        else:
            _add_bias(z, bias)
        a = z
    return a


@inner
def _penalty(params, sizes, decay):
    total = 0.0
    if decay != 0:
        for k in range(sizes.size - 1):
            for w in _layer(params, sizes, k)[0].flat:
                total += w * w
    return 0.5 * decay * total


@jit
def predict(x, params, sizes, activation, work):
    """Return the scores before softmax, a view of the workspace."""
    return _forward(x, params, sizes, activation, work)


@jit
def loss(x, labels, params, sizes, activation, decay, work):
    """Return the mean cross-entropy plus half of ``decay`` times the sum of the squared weights."""
    scores = _forward(x, params, sizes, activation, work)
    return softmax_cross_entropy(scores, labels) + _penalty(params, sizes, decay)


@jit
def gradient(x, labels, params, sizes, activation, decay, work, out):
    """Write the gradient of `loss` by the parameters to ``out``, by back-propagation."""
    rows = x.shape[0]
    delta = _forward(x, params, sizes, activation, work)
    softmax_cross_entropy_backward(delta, labels)
    for k in range(sizes.size - 2, -1, -1):
        weights, _ = _layer(params, sizes, k)
        d_weights, d_bias = _layer(out, sizes, k)
        a = x if k == 0 else _output(work, sizes, k - 1, rows)
        np.dot(a.T, delta, d_weights)
        if decay != 0:
            factor = params.dtype.type(decay)
            for i in range(weights.shape[0]):
                for j in range(weights.shape[1]):
                    d_weights[i, j] += factor * weights[i, j]
        d_bias[:] = 0
        for i in range(rows):
            row = delta[i]
            for j in range(row.size):
                d_bias[j] += row[j]
        if k > 0:
            below = _scratch(work, sizes, k - 1, rows)
            np.dot(delta, weights.T, below)
            _activate_backward(below, a, activation)
            delta = below


@jit
def numerical_gradient(x, labels, params, sizes, activation, decay, work, step, out):
    """Write the central differences of `loss` by each parameter in turn to ``out``; ``params`` end as they were."""
    for i in range(params.size):
        value = params[i]
        params[i] = value + step
        above = loss(x, labels, params, sizes, activation, decay, work)
        params[i] = value - step
        below = loss(x, labels, params, sizes, activation, decay, work)
        params[i] = value
        out[i] = (above - below) / (2 * step)
