"""The passes of networks as native functions of an address, at which the words of a batch are; see `layers`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fastoptim.kernels import dense
from fastoptim.kernels.jit import DISABLED, bind_globals, cfunc, inline_jit
from fastoptim.kernels.layers import (
    DRAWN,
    DROPS,
    IS_TRAINING,
    KIND,
    LOSSES,
    N_IN_TURN,
    N_UNITS_OF_STATISTICS,
    N_WORDS,
    OUT,
    RATIO,
    ROWS,
    SHARES,
    SLICE,
    STATISTICS,
    TARGETS,
    TOTAL,
    array_of,
    part_of,
)
from fastoptim.kernels.losses import cross_entropy, cross_entropy_backward, softmax, weighted_loss
from fastoptim.kernels.masks import WIDTH
from fastoptim.kernels.normalization import Extension
from fastoptim.kernels.views import elements_of, integer_at, matrix_at, number_at

__all__ = ["GRADIENT", "LOSS", "SCORES", "labelled", "propagate", "weight_gradients", "weighted"]

SCORES, LOSS, GRADIENT = range(3)
"""What is wanted of samples with labels."""


@inline_jit
def labelled(scores, T, batch, start, stop):
    """Do what is wanted with the scores of samples that have labels, and tell whether it is a gradient."""
    kind = integer_at(batch, KIND)
    if kind == SCORES:
        source = elements_of(T, scores)
        out = elements_of(T, part_of(T, array_of(batch, OUT), scores.shape[1], batch, start, stop))
        for j in range(source.size):
            out[j] = source[j]
        return False
    labels = part_of(np.intp, array_of(batch, TARGETS), 1, batch, start, stop)
    softmax(scores)
    if kind == LOSS:
        cross_entropy(scores, labels, part_of(np.float64, array_of(batch, LOSSES), 1, batch, start, stop))
        return False
    cross_entropy_backward(scores, labels, integer_at(batch, TOTAL))
    return True


@inline_jit
def weighted(scores, T, batch, start, stop):
    """Compute the losses of samples that have weights, and the gradient with respect to their scores."""
    targets = part_of(T, array_of(batch, TARGETS), scores.shape[1], batch, start, stop)
    shares = part_of(T, array_of(batch, SHARES), 1, batch, start, stop)
    losses = part_of(np.float64, array_of(batch, LOSSES), 1, batch, start, stop)
    weighted_loss(integer_at(batch, KIND), scores, targets, shares, losses)
    return True


# Names that `bind_globals` gives values.
T: Any
extension_of: Any
compare: Any


@inline_jit
def _no_extension(_batch):
    return None


def _extension(batch):
    return Extension(
        integer_at(batch, IS_TRAINING) != 0,
        integer_at(batch, DROPS) != 0,
        number_at(batch, RATIO),
        array_of(batch, DRAWN),
        matrix_at(T, array_of(batch, STATISTICS), 0, 2, integer_at(batch, N_UNITS_OF_STATISTICS)),
    )


def _propagate(batch, start, stop):
    height, n_in_turn = integer_at(batch, SLICE), integer_at(batch, N_IN_TURN)
    for turn in range(n_in_turn):
        words = batch + 8 * N_WORDS * turn
        low, high = start // WIDTH * height, min(stop // WIDTH * height, integer_at(words, ROWS))
        if low < high:
            extension = extension_of(words)
            if compare(dense.forward(T, words, extension, low, high), T, words, low, high):
                dense.backward(T, words, extension, low, high)


def _weight_gradients(batch, start, stop):
    dense.weight_gradients(T, batch, start, stop)


def _native(template: Callable[..., Any], names: dict[str, Any], suffix: str) -> Any:
    function = bind_globals(template, names, suffix)
    return function if DISABLED else cfunc(function, 3, lambda: True)


@cache
def propagate(dtype: np.dtype[Any], compare: Callable[..., Any], is_extended: bool) -> Any:
    """Compile `forward` and `backward`, with one way to compare scores with targets: `labelled` or `weighted`.

    The range has 64 numbers for each slice of the workspace, because threads cut it at multiples of 64.
    """
    suffix = f"{compare.__name__}-{dtype.name}{'-extended' * is_extended}"
    names = {"T": dtype.type, "compare": compare}
    names["extension_of"] = inline_jit(bind_globals(_extension, names, suffix)) if is_extended else _no_extension
    return _native(_propagate, names, suffix)


@cache
def weight_gradients(dtype: np.dtype[Any]) -> Any:
    """Compile `dense.weight_gradients`."""
    return _native(_weight_gradients, {"T": dtype.type}, dtype.name)
