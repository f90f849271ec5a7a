"""The losses of networks and their gradients: the notes' cross-entropy, and weighted losses of targets in any form."""

import numpy as np

from fastoptim.kernels.exponential import exponential
from fastoptim.kernels.jit import inline_jit

__all__ = ["LOGISTIC", "SOFTMAX", "SQUARES", "softmax_cross_entropy", "softmax_cross_entropy_backward", "weighted_loss"]

SOFTMAX, LOGISTIC, SQUARES = range(3)

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


@inline_jit
def _sigmoid(scores):
    T = scores.dtype.type
    flat = scores.reshape(scores.size)
    for j in range(flat.size):
        flat[j] = T(1) / (T(1) + exponential(T, -flat[j]))


@inline_jit
def _surprise(probability, target, tiny):
    """Return ``-target * log(probability)``, which is zero where the target is."""
    # Unlike max(probability, tiny) this keeps NaN.
    return -target * np.log(tiny if probability < tiny else probability) if target > 0 else 0.0


@inline_jit
def weighted_loss(kind, scores, targets, weights):
    r"""Replace scores by the gradient of a weighted loss with respect to them, and return the loss.

    With weights :math:`w_i` of the rows, the gradient is :math:`w_i (f(s_i) - t_i) / \sum_k w_k`, where :math:`f` is
    softmax, sigmoid, or nothing for squares. The loss is the weighted mean of the cross-entropy of a row, or of half
    the mean of its squared errors; as in scikit-learn, the gradient is that of half of their sum.
    """
    one, tiny, total, loss = scores.dtype.type(1), np.finfo(scores.dtype).eps, weights.sum(), 0.0
    if kind == SOFTMAX:
        _softmax(scores)
    elif kind == LOGISTIC:
        _sigmoid(scores)
    for i in range(scores.shape[0]):
        row, target, share, error = scores[i], targets[i], weights[i] / total, 0.0
        for j in range(row.size):
            if kind == SQUARES:
                error += (row[j] - target[j]) ** 2 / (2 * row.size)
            else:
                error += _surprise(row[j], target[j], tiny)
                if kind == LOGISTIC:
                    error += _surprise(one - row[j], one - target[j], tiny)
            row[j] = (row[j] - target[j]) * share
        loss += share * error
    return loss
