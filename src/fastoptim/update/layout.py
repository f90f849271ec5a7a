"""Where arrays lie in memory: which of them overlap, and how the array table describes them to kernels."""

from __future__ import annotations

import operator
from bisect import bisect_left
from itertools import pairwise
from typing import Any

from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from fastoptim.kernels import table
from fastoptim.update.validate import Parameter

__all__ = ["Ranges", "address", "form", "is_aliased", "is_packed", "merged", "overlapping_groups", "touches", "walk"]

Ranges = list[tuple[int, int]]
"""Start and stop of memory ranges, in bytes."""


def address(array: NDArray[Any]) -> int:
    """Return the address of the first element."""
    return int(array.__array_interface__["data"][0])


def form(kind: type, array: NDArray[Any], flags: int) -> list[int]:
    """Return the form of an array, as the array table needs it: see `fastoptim.kernels.table`.

    Parameters
    ----------
    kind : type
        The type of the array; or `float`, of a number that is copied to the array at each step.
    array : ndarray
        The array, or a view of it of another type.
    flags : int
        The flags that it must have.
    """
    if kind is float:
        return [id(kind), table.NUMBER, 0, 0, 0, 0]
    start = address(array)
    low, high = byte_bounds(array) if array.size else (start, start)
    about = [id(kind), id(array.dtype), flags, low - start, high - start, array.ndim]
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


def overlapping_groups(parameters: list[Parameter]) -> tuple[list[list[Parameter]], bool]:
    """Group parameters that share memory.

    Returns
    -------
    groups : list of list of Parameter
        Each in order, such that nothing that is written for a parameter overlaps what is written or read for one of
        another group. Most are groups of one.
    overlap : bool
        Whether anything that is written overlaps anything else.
    """
    written, overlap = merged([byte_bounds(array) for parameter in parameters for array in parameter.written])
    if not overlap and not any(touches(written, parameter.g) for parameter in parameters):
        return [[parameter] for parameter in parameters], False
    group = list(range(len(parameters)))

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

    ranges = []
    for k, parameter in enumerate(parameters):
        ranges += [(*byte_bounds(array), k, True) for array in parameter.written if array.size]
        ranges += [(*byte_bounds(array), k, False) for array in (parameter.g,) if array.size]
    cluster: list[tuple[int, bool]] = []
    end = 0
    for start, stop, k, writes in sorted(ranges):
        if start >= end:
            join(cluster)
            cluster = []
        cluster.append((k, writes))
        end = max(end, stop)
    join(cluster)
    groups: dict[int, list[Parameter]] = {}
    for k, parameter in enumerate(parameters):
        groups.setdefault(first(k), []).append(parameter)
    return list(groups.values()), True


def is_aliased(parameter: Parameter) -> bool:
    """Tell whether the gradient shares memory with what is written, or the parameter with its state."""
    slots, _ = merged([byte_bounds(slot) for slot in parameter.slots])
    return touches(slots, parameter.p) or touches(merged([byte_bounds(parameter.p), *slots])[0], parameter.g)
