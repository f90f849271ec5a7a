"""The loss of a network, softmax with cross-entropy, and its gradient."""

import numpy as np

from fastoptim.kernels.jit import inline_jit

__all__ = ["softmax_cross_entropy", "softmax_cross_entropy_backward"]

_TINY = 1e-7
"""Keeps the logarithm finite; the value is that of the notes."""


@inline_jit
def _softmax_row(scores, out):
    # The maximum is subtracted first, so that no exponential overflows.
    top = scores[0]
    for j in range(1, scores.size):
        top = max(top, scores[j])
    total = scores.dtype.type(0)
    for j in range(scores.size):
        out[j] = np.exp(scores[j] - top)
        total += out[j]
    for j in range(scores.size):
        out[j] /= total


@inline_jit
def softmax_cross_entropy(scores, labels):
    """Return the mean of ``-log(softmax(scores)[label] + 1e-7)`` over the rows; ``scores`` become probabilities."""
    total = 0.0
    tiny = scores.dtype.type(_TINY)
    for i in range(scores.shape[0]):
        row = scores[i]
        _softmax_row(row, row)
        total -= np.log(row[labels[i]] + tiny)
    return total / scores.shape[0]


@inline_jit
def softmax_cross_entropy_backward(scores, labels):
    """Replace scores by the gradient of the loss with respect to them: ``(softmax(scores) - one_hot(labels)) / rows``.

    As in the notes, this is the gradient of the cross-entropy without the 1e-7.
    """
    one = scores.dtype.type(1)
    rows = scores.dtype.type(scores.shape[0])
    for i in range(scores.shape[0]):
        row = scores[i]
        _softmax_row(row, row)
        row[labels[i]] -= one
        for j in range(row.size):
            row[j] /= rows
