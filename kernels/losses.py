"""The losses of networks and their gradients: the notes' cross-entropy, and weighted losses of targets in any form."""

import numpy as np

from fastoptim.kernels.exponential import exponential
from fastoptim.kernels.jit import inline_jit

__all__ = ["LOGISTIC", "SOFTMAX", "SQUARES", "cross_entropy", "cross_entropy_backward", "softmax", "weighted_loss"]

SOFTMAX, LOGISTIC, SQUARES = range(3)

_TINY = 1e-7
"""Keeps the logarithm finite; the value is that of the notes."""


@inline_jit
def softmax(scores):
    """Replace each row by its softmax."""
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
def cross_entropy(probabilities, labels, losses):
    """Write ``-log(probability + 1e-7)`` of the label of each row to ``losses``. Labels and losses have one column."""
    tiny = probabilities.dtype.type(_TINY)
    for i in range(probabilities.shape[0]):
        losses[i, 0] = -np.log(probabilities[i, labels[i, 0]] + tiny)


@inline_jit
def cross_entropy_backward(probabilities, labels, n_samples):
    """Replace the softmax of scores by the gradient with respect to them of the mean loss of ``n_samples`` rows.

    It is ``(probabilities - one_hot(labels)) / n_samples``: as in the notes, that of the loss without the 1e-7.
    """
    one, divisor = probabilities.dtype.type(1), probabilities.dtype.type(n_samples)
    for i in range(probabilities.shape[0]):
        row = probabilities[i]
        row[labels[i, 0]] -= one
        for j in range(row.size):
            row[j] /= divisor


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
def weighted_loss(kind, scores, targets, shares, losses):
    r"""Replace scores by the gradient of a weighted loss with respect to them, and write the losses of the rows.

    With shares :math:`w_i` of the rows, whose sum over all samples is 1, the gradient is :math:`w_i (f(s_i) - t_i)`,
    where :math:`f` is softmax, sigmoid, or nothing for squares. The loss of a row is :math:`w_i` times its
    cross-entropy, or half the mean of its squared errors; as in scikit-learn, the gradient is that of half of their
    sum.
    """
    one, tiny = scores.dtype.type(1), np.finfo(scores.dtype).eps
    if kind == SOFTMAX:
        softmax(scores)
    elif kind == LOGISTIC:
        _sigmoid(scores)
    for i in range(scores.shape[0]):
        row, target, error = scores[i], targets[i], 0.0
        for j in range(row.size):
            if kind == SQUARES:
                error += (row[j] - target[j]) ** 2 / (2 * row.size)
            else:
                error += _surprise(row[j], target[j], tiny)
                if kind == LOGISTIC:
                    error += _surprise(one - row[j], one - target[j], tiny)
            row[j] = (row[j] - target[j]) * shares[i, 0]
        losses[i, 0] = shares[i, 0] * error
