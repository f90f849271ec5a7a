"""A batch for a network: check its samples and labels, and provide the memory that a call needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastoptim.concurrency import blas_calls
from fastoptim.kernels.masked import product_address
from fastoptim.threads import Team

__all__ = ["Memory", "Workspace", "batch", "on_one_thread", "samples"]

_LARGEST_KEPT = 16 << 20
"""The largest workspace that is kept for the next call, in bytes."""
_SHARED_FROM = 1 << 14
"""Elements of a workspace below which no product of a batch is worth a second thread."""
_MOST_TEAMS = 16
"""Functions and batch sizes for which it is remembered on how many threads they are fast."""


@cache
def on_one_thread(dtype: np.dtype[Any]) -> NDArray[np.intp]:
    """Return the words of `Team` with which the calling thread computes all products itself."""
    return np.array([product_address(dtype), 0, 1], np.intp)


@dataclass
class Memory:
    """What is kept from one call to the next."""

    work: NDArray[Any]
    teams: dict[tuple[Any, int], Team]


def samples(x: ArrayLike, n_features: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return the samples as rows in C order, or raise `TypeError` or `ValueError`."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"x is of dtype {array.dtype}, expected real numbers")
    if array.ndim not in (1, 2) or array.shape[-1] != n_features:
        hint = "; x.reshape(len(x), -1) makes rows of images" if array.ndim > 2 else ""
        raise ValueError(f"x has shape {array.shape}, expected (N, {n_features}){hint}")
    # These properties are part of the type that Numba compiles for: an array without one would compile again.
    # A view, because another thread may give the array another shape while kernels read it.
    if array.dtype != dtype or not array.flags.carray:
        array = np.require(array, dtype, ("C", "A", "W", "E"))
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


class Workspace:
    """The memory of one call, kept for the next one unless it is large, and the threads that it runs on.

    Concurrent calls each get their own.

    Parameters
    ----------
    spare : list of Memory
        The memory of earlier calls.
    work_per_row : int
        Elements that a sample needs.
    dtype : dtype
        That of the elements.
    x : array
        The samples.
    """

    def __init__(self, spare: list[Memory], work_per_row: int, dtype: DTypeLike, x: NDArray[Any]) -> None:
        self.spare, self.dtype, self.rows = spare, np.dtype(dtype), len(x)
        self.size = work_per_row * len(x)

    def __enter__(self) -> Workspace:
        try:
            self.memory = self.spare.pop()
        except IndexError:
            self.memory = Memory(np.empty(self.size, self.dtype), {})
        if self.memory.work.size < self.size:
            self.memory.work = np.empty(self.size, self.dtype)
        blas_calls.__enter__()
        return self

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what a kernel returns of some arguments, this memory, and the threads that share its products."""
        words = on_one_thread(self.dtype)
        if self.size < _SHARED_FROM or not words[0]:
            return function(*args, self.memory.work, words)
        teams, key = self.memory.teams, (function, self.rows)
        if key not in teams:
            if len(teams) == _MOST_TEAMS:
                teams.clear()
            teams[key] = Team(int(words[0]))
        return teams[key].call(function, *args, self.memory.work)

    def __exit__(self, *_: object) -> None:
        blas_calls.__exit__()
        if not self.spare and self.memory.work.nbytes <= _LARGEST_KEPT:
            self.spare.append(self.memory)
