"""A batch for a network: check its samples and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["batch", "samples"]


def samples(x: ArrayLike, n_features: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return the samples as rows in C order, or raise `TypeError` or `ValueError`."""
    # Another thread may give an array another shape and dtype after they were checked, but not a view of it.
    array = np.asarray(x).view()
    if array.dtype.kind not in "fiub":
        raise TypeError(f"x is of dtype {array.dtype}, expected real numbers")
    if array.ndim not in (1, 2) or array.shape[-1] != n_features:
        hint = "; x.reshape(len(x), -1) makes rows of images" if array.ndim > 2 else ""
        raise ValueError(f"x has shape {array.shape}, expected (N, {n_features}){hint}")
    # `np.require` takes as long as a small network.
    if array.dtype != dtype or not (array.flags.c_contiguous and array.flags.aligned):
        array = np.require(array, dtype, ("C", "A"))
    return array.reshape(-1, n_features)


def batch(
    x: ArrayLike, t: ArrayLike, n_features: int, n_classes: int, dtype: DTypeLike
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the samples as rows and their class numbers, or raise `TypeError` or `ValueError`."""
    rows = samples(x, n_features, dtype)
    labels = np.asarray(t)
    n = len(rows)
    if n == 0:
        raise ValueError("x has no samples, so there is no mean loss of them")
    if labels.shape == (n, n_classes) or (np.ndim(x) == 1 and labels.shape == (n_classes,)):
        one_hot = labels.reshape(n, -1)
        classes = one_hot.argmax(axis=1)
        if np.count_nonzero(one_hot) != n or not (one_hot[np.arange(n), classes] == 1).all():
            raise ValueError("t has rows that are not one-hot: expected a single 1 in each, and zeros")
        return rows, classes
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"t is of dtype {labels.dtype} and shape {labels.shape}, expected {n} integers or one-hot rows, "
            f"({n}, {n_classes})"
        )
    # A copy, because kernels use them as indices, and another thread may fill the array after it was checked.
    labels = np.array(labels, np.intp, order="C", ndmin=1)
    if labels.shape != (n,):
        raise ValueError(f"t has shape {labels.shape}, expected ({n},) or ({n}, {n_classes}), to match x")
    # A negative number is a large one without a sign.
    if np.maximum.reduce(labels.view(np.uintp)) >= n_classes:
        raise ValueError(f"t has class numbers from {labels.min()} to {labels.max()}, expected 0 to {n_classes - 1}")
    return rows, labels
