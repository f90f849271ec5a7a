"""The loss of a network, softmax with cross-entropy, and its gradient."""

import numpy as np

from fastoptim.kernels.exponential import exponential
from fastoptim.kernels.jit import inline_jit

__all__ = ["softmax_cross_entropy", "softmax_cross_entropy_backward"]

_TINY = 1e-7
"""Keeps the logarithm finite; the value is that of the notes."""


@inline_jit
def _softmax(scores):
    T = scores.dtype.type
    for i in range(scores.shape[0]):
        row = scores[i]
        # The maximum is subtracted first, so that no exponential overflows.
        top = row[0]
        for j in range(1, row.size):
            top = max(top, row[j])
        for j in range(row.size):
            row[j] -= top
    # One long loop, because rows may be shorter than a vector.
    flat = scores.reshape(scores.size)
    for j in range(flat.size):
        flat[j] = exponential(T, flat[j])
    for i in range(scores.shape[0]):
        row, total = scores[i], T(0)
        for j in range(row.size):
            total += row[j]
        for j in range(row.size):
            row[j] /= total


@inline_jit
def softmax_cross_entropy(scores, labels):
    """Return the mean of ``-log(softmax(scores)[label] + 1e-7)`` over the rows; ``scores`` become probabilities."""
    total = 0.0
    tiny = scores.dtype.type(_TINY)
    _softmax(scores)
    for i in range(scores.shape[0]):
        row = scores[i]
        total -= np.log(row[labels[i]] + tiny)
    return total / scores.shape[0]


@inline_jit
def softmax_cross_entropy_backward(scores, labels):
    """Replace scores by the gradient of the loss with respect to them: ``(softmax(scores) - one_hot(labels)) / rows``.

    As in the notes, this is the gradient of the cross-entropy without the 1e-7.
    """
    one = scores.dtype.type(1)
    rows = scores.dtype.type(scores.shape[0])
    _softmax(scores)
    for i in range(scores.shape[0]):
        row = scores[i]
        row[labels[i]] -= one
        for j in range(row.size):
            row[j] /= rows
