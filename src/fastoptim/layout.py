"""Where arrays lie in memory: which of them overlap, and how the array table describes them to kernels."""

from __future__ import annotations

import operator
from bisect import bisect_left
from itertools import pairwise
from typing import Any

from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

__all__ = ["Ranges", "address", "form", "is_packed", "merged", "overlapping_groups", "touches", "walk"]

Ranges = list[tuple[int, int]]
"""Start and stop of memory ranges, in bytes."""


def address(array: NDArray[Any]) -> int:
    """Return the address of the first element."""
    return int(array.__array_interface__["data"][0])


def form(array: NDArray[Any], flags: int) -> list[int]:
    """Return the form of an array, as the array table needs it: see `fastoptim.kernels.table`.

    Parameters
    ----------
    array : ndarray
        The array.
    flags : int
        What its flags must have.
    """
    start = address(array)
    low, high = byte_bounds(array) if array.size else (start, start)
    about = [id(type(array)), id(array.dtype), flags, low - start, high - start, array.ndim]
    return [*about, *array.shape, *array.strides]


def is_packed(array: NDArray[Any], strides: tuple[int, ...]) -> bool:
    """Tell whether an array is aligned and has these strides, so that a kernel can process it as one piece."""
    # The stride of an axis of one element has no meaning.
    same = all(n == 1 or a == b for n, a, b in zip(array.shape, array.strides, strides, strict=True))
    return array.size == 0 or (same and array.flags.aligned)


def walk(p: NDArray[Any], g: NDArray[Any], order: tuple[int, ...]) -> list[int]:
    """Return the walk of a parameter and its gradient: see `fastoptim.kernels.table`.

    Parameters
    ----------
    p, g : ndarray
        Of one shape.
    order : tuple of int
        Strides of the state, which tell in which order the axes are walked.
    """
    axes: list[tuple[int, int, int]] = []
    for k in sorted(range(p.ndim), key=lambda k: (-order[k], k)):
        length, steps = p.shape[k], (p.strides[k], g.strides[k])
        if length == 1:
            continue
        if axes and (axes[-1][1], axes[-1][2]) == (length * steps[0], length * steps[1]):
            # Two axes that follow each other without a gap are walked as one.
            length *= axes.pop()[0]
        axes.append((length, *steps))
    axes = axes or [(1, p.itemsize, g.itemsize)]
    return [len(axes), *(number for column in zip(*axes, strict=True) for number in column)]


def merged(ranges: Ranges) -> tuple[Ranges, bool]:
    """Return sorted, disjoint ranges that cover the same memory, and whether any of those given overlap."""
    ranges = sorted((start, stop) for start, stop in ranges if start < stop)
    if all(a[1] <= b[0] for a, b in pairwise(ranges)):
        return ranges, False
    result: Ranges = []
    for start, stop in ranges:
        if result and start < result[-1][1]:
            result[-1] = result[-1][0], max(stop, result[-1][1])
        else:
            result.append((start, stop))
    return result, True


def touches(ranges: Ranges, array: NDArray[Any]) -> bool:
    """Tell whether an array may share memory with sorted, disjoint ranges."""
    if not array.size:
        return False
    start, stop = byte_bounds(array)
    k = bisect_left(ranges, stop, key=operator.itemgetter(0))
    return k > 0 and ranges[k - 1][1] > start


def overlapping_groups(written: list[list[NDArray[Any]]], read: list[NDArray[Any]]) -> list[list[int]]:
    """Group parameters that share memory.

    Parameters
    ----------
    written : list of list of ndarray
        What the update of each parameter writes to.
    read : list of ndarray
        The gradient of each parameter.

    Returns
    -------
    list of list of int
        Groups of parameters, each in order, such that nothing that is written for a parameter overlaps what is written
        or read for one of another group. Most are groups of one.
    """
    group = list(range(len(read)))

    def first(k: int) -> int:
        while group[k] != k:
            k = group[k]
        return k

    def join(cluster: list[tuple[int, bool]]) -> None:
        # What is only read may overlap.
        if any(writes for _, writes in cluster):
            members = sorted({first(k) for k, _ in cluster})
            for k in members:
                group[k] = members[0]

    ranges = [(*byte_bounds(array), k, True) for k, arrays in enumerate(written) for array in arrays if array.size]
    ranges += [(*byte_bounds(array), k, False) for k, array in enumerate(read) if array.size]
    cluster: list[tuple[int, bool]] = []
    end = 0
    for start, stop, k, writes in sorted(ranges):
        if start >= end:
            join(cluster)
            cluster = []
        cluster.append((k, writes))
        end = max(end, stop)
    join(cluster)
    groups: dict[int, list[int]] = {}
    for k in range(len(read)):
        groups.setdefault(first(k), []).append(k)
    return list(groups.values())
