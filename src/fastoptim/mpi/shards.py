"""How arrays are divided among ranks: each updates parts of all arrays, and whole arrays where a rule needs these."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastoptim.kernels.strided import BLOCK
from fastoptim.update.validate import Array, Parameter

__all__ = ["Bucket", "Dtypes", "Part", "Shards", "divide", "flat", "make_buckets", "memory_order"]


Dtypes = tuple[np.dtype[Any] | None, ...]
"""The dtype of each array; None for those that are left out."""


class Part(NamedTuple):
    """A range of elements of an array, in the order of its memory."""

    array: int
    """The number of the array."""
    start: int
    stop: int


class Bucket(NamedTuple):
    """Parts of one dtype that are sent in one message."""

    dtype: np.dtype[Any]
    parts: list[Part]
    size: int


def memory_order(array: Array) -> tuple[int, ...]:
    """Return the axes of an array by decreasing stride; those of one element come where they are in C order."""
    if array.flags.c_contiguous:
        return tuple(range(array.ndim))
    return tuple(sorted(range(array.ndim), key=lambda axis: (-abs(array.strides[axis]), axis)))


def flat(array: Array, order: tuple[int, ...]) -> Array:
    """Return the elements of an array along one axis, in a memory order; a view if they lie so without gaps."""
    return array.transpose(order).reshape(-1)


def divide(sizes: Sequence[int], whole: Sequence[bool], n_ranks: int) -> list[list[Part]]:
    """Divide arrays among ranks, with as equal numbers of elements as possible.

    Parameters
    ----------
    sizes : sequence of int
        The number of elements of each array.
    whole : sequence of bool
        Whether an array must not be cut. These go, the largest first, to the rank that has the least.
    n_ranks : int
        Number of ranks.

    Returns
    -------
    list of list of Part
        The parts of each rank in the order of the arrays, without empty ones. Those that were cut follow each other
        from rank to rank. They begin where a block of the sums of `fastoptim.kernels.reduce` does, so that a block is
        summed by one rank.
    """
    loads = [0] * n_ranks
    owned: list[list[Part]] = [[] for _ in loads]
    for k in sorted((k for k, is_whole in enumerate(whole) if is_whole), key=lambda k: -sizes[k]):
        rank = loads.index(min(loads))
        loads[rank] += sizes[k]
        owned[rank].append(Part(k, 0, sizes[k]))
    cut = [0 if is_whole else size for size, is_whole in zip(sizes, whole, strict=True)]
    stops = [0, *accumulate(cut)]
    ends = [*accumulate(max(0.0, _level(loads, stops[-1]) - load) for load in loads)]
    ends[-1] = stops[-1]
    first = 0
    for rank, end in enumerate(ends):
        # The end is moved to the nearest block of the array that it is in.
        k = max(0, int(np.searchsorted(stops, end, "left")) - 1)
        within = min(round((end - stops[k]) / BLOCK) * BLOCK, cut[k]) if cut else 0
        last = max(first, stops[-1] if rank == n_ranks - 1 else stops[k] + within) if cut else 0
        for j in range(len(cut)):
            start, stop = max(first, stops[j]), min(last, stops[j + 1])
            if start < stop:
                owned[rank].append(Part(j, start - stops[j], stop - stops[j]))
        first = last
    return [sorted(parts) for parts in owned]


def _level(loads: Sequence[int], amount: int) -> float:
    """Return the load of the least loaded ranks once an amount is divided among them."""
    rising, total, level = sorted(loads), 0, 0.0
    for k, load in enumerate(rising, 1):
        total += load
        level = (amount + total) / k
        if k == len(rising) or level <= rising[k]:
            break
    return level


def make_buckets(parts: Iterable[Part], dtypes: Dtypes, limit: int) -> list[Bucket]:
    """Divide parts into messages of at most ``limit`` bytes, except that one block of elements may be longer.

    Parts of at least a quarter of that are messages of their own, which need not be copied to one place. Arrays without
    a dtype are left out.
    """
    buckets: list[Bucket] = []
    for array, start, stop in parts:
        if (dtype := dtypes[array]) is None:
            continue
        step = max(1, limit // dtype.itemsize // BLOCK) * BLOCK
        for first in range(start, stop, step):
            part = Part(array, first, min(first + step, stop))
            size = part.stop - part.start
            last = buckets[-1] if buckets else None
            if last is not None and last.dtype == dtype and 4 * max(size, last.size) < step:
                last.parts.append(part)
                buckets[-1] = last._replace(size=last.size + size)
            else:
                buckets.append(Bucket(dtype, [part], size))
    return buckets


class Shards:
    """The parts of arrays that each rank updates, and what a plan asks the other ranks about.

    Parameters
    ----------
    parameters : list of Parameter
        All arrays, the same on each rank.
    whole : sequence of bool
        Which arrays one rank updates as a whole.
    team : Team
        The ranks.

    Attributes
    ----------
    keys : list
        Keys of the arrays.
    shapes, memory_orders : dict
        Shape and memory order of each array.
    sizes : dict
        Number of elements of each array.
    parts : list of list of Part
        The parts of each rank.
    whole : set
        Keys of the arrays that one rank updates as a whole.
    signatures : dict
        Numbers that stand for the keys, shapes and dtypes of parameters and gradients, by their dtypes.
    first : int
        Number of elements of all arrays that come before those of this rank, if no array is updated as a whole.
    """

    def __init__(self, parameters: Sequence[Parameter], whole: Sequence[bool], team: Any) -> None:
        self._team = team
        self.keys = [each.key for each in parameters]
        self.shapes = {each.key: each.p.shape for each in parameters}
        self.memory_orders = {each.key: memory_order(each.p) for each in parameters}
        self.sizes: dict[Hashable, int] = {each.key: each.p.size for each in parameters}
        self.whole = {key for key, is_whole in zip(self.keys, whole, strict=True) if is_whole}
        self.parts = divide([*self.sizes.values()], whole, team.size)
        self._ranges = [{part.array: (part.start, part.stop) for part in parts} for parts in self.parts]
        self.first = sum(part.stop - part.start for parts in self.parts[: team.rank] for part in parts)
        self.signatures: dict[Any, int] = {}
        self._orders: dict[Any, tuple[Array, Array, list[int]]] = {}
        self._numbers = {key: k for k, key in enumerate(self.keys)}

    def ranges(self, key: Hashable, rank: int) -> tuple[int, int]:
        """Return the range of elements of an array that a rank has."""
        return self._ranges[rank].get(self._numbers[key], (0, 0))

    def flats(self, arrays: Mapping[Hashable, Array]) -> list[Any]:
        """Return the elements of whole arrays along one axis, in the order of the keys; None for those that lack."""
        return [flat(arrays[key], order) if key in arrays else None for key, order in self.memory_orders.items()]

    def own(self, arrays: Mapping[Hashable, Array]) -> dict[Hashable, Array]:
        """Return the elements of whole arrays that this rank has, along one axis; views if they lie without gaps."""
        return {key: flat(array, self.memory_orders[key])[self._slice(key)] for key, array in arrays.items()}

    def pieces(self, own: Mapping[Hashable, Array]) -> dict[Hashable, Array]:
        """Return what the optimizer of this rank gets: parts along one axis, and whole arrays with their axes.

        In place of a whole array that another rank has, there is an empty one with as many axes.
        """
        return {
            key: elements if key not in self.whole else self._with_axes(key, elements) for key, elements in own.items()
        }

    def _with_axes(self, key: Hashable, elements: Array) -> Array:
        shape, order = self.shapes[key], self.memory_orders[key]
        if elements.size < prod(shape):
            return np.empty((0, *shape[1:]), elements.dtype)
        return elements.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))

    def _slice(self, key: Hashable) -> slice:
        return slice(*self.ranges(key, self._team.rank))

    def dtypes(self, arrays: Mapping[Hashable, Array]) -> Dtypes:
        """Return the dtype of each array, in the order of the keys; None for those that lack."""
        return tuple(arrays[key].dtype if key in arrays else None for key in self.keys)

    def places(
        self, buckets: Sequence[Bucket], arrays: Mapping[Hashable, Array]
    ) -> tuple[list[Array], dict[Hashable, Array]]:
        """Return memory for the elements of this rank: views for its messages, and for each array."""
        sizes: dict[np.dtype[Any], int] = {}
        starts = []
        for bucket in buckets:
            starts.append(sizes.get(bucket.dtype, 0))
            sizes[bucket.dtype] = starts[-1] + bucket.size
        memory = {dtype: np.empty(size, dtype) for dtype, size in sizes.items()}
        views = [memory[each.dtype][at : at + each.size] for each, at in zip(buckets, starts, strict=True)]
        own, used = {}, dict.fromkeys(sizes, 0)
        for key in self.keys:
            if key in arrays:
                dtype, (start, stop) = arrays[key].dtype, self.ranges(key, self._team.rank)
                at = used.setdefault(dtype, 0)
                own[key] = memory.get(dtype, np.empty(0, dtype))[at : at + stop - start]
                used[dtype] = at + stop - start
        return views, own

    # What a plan asks for.

    def commit(self) -> None:
        """Return when all ranks are about to write, or raise the error of a rank that is not."""
        self._team.agree()

    def union(self, found: set[Hashable]) -> set[Hashable]:
        """Return what any rank has found."""
        self._team.agree()
        everyone: list[set[Hashable]] = self._team.comm.allgather(found)
        self._team.may_fail = True
        return set().union(*everyone)

    def total(self, keys: Sequence[Hashable], blocks: Sequence[Array | None], sums: Array) -> Array:
        """Return the sums over whole arrays, as one process adds them, so that no bit depends on the number of ranks.

        Parameters
        ----------
        keys : sequence
            The key of each row, in the order of all ranks.
        blocks : sequence of ndarray of shape (blocks, sums)
            The sums of the blocks of this rank's part; None where no kernel has summed.
        sums : ndarray of shape (rows, sums)
            The sums over this rank's parts.

        Returns
        -------
        ndarray of shape (rows, sums)
            The sums of blocks are added in the order of their elements; what no kernel sums, in the order of the ranks.
        """
        team, n_sums = self._team, sums.shape[1]
        local = [sums[k : k + 1] if each is None else each for k, each in enumerate(blocks)]
        key = tuple(keys), tuple(each is None for each in blocks)
        if key not in self._orders:
            self._orders[key] = self._order_of_sums(*key)
        counts, order, starts = self._orders[key]
        gathered = np.empty((len(order), n_sums))
        team.agree()
        team.comm.Allgatherv(np.concatenate([np.empty((0, n_sums)), *local]), (gathered, counts * n_sums))
        team.may_fail = True
        ordered = gathered[order]
        totals = np.zeros_like(sums)
        for k, (start, stop) in enumerate(pairwise(starts)):
            if start < stop:
                totals[k] += np.add.accumulate(ordered[start:stop], axis=0)[-1]
        return totals

    def _order_of_sums(self, keys: tuple[Hashable, ...], is_one: tuple[bool, ...]) -> tuple[Array, Array, list[int]]:
        """Return how many sums each rank sends, where those of each row are among all, and where rows begin there."""
        ranges = [[self.ranges(key, rank) for key in keys] for rank in range(len(self.parts))]
        numbers = np.array([[-(-(stop - start) // BLOCK) for start, stop in each] for each in ranges], np.intp)
        numbers[:, np.array(is_one, bool)] = 1
        ends = np.cumsum(numbers).reshape(numbers.shape)
        places = [
            np.arange(end - n, end) for k in range(len(keys)) for end, n in zip(ends[:, k], numbers[:, k], strict=True)
        ]
        starts = [0, *np.cumsum(numbers.sum(axis=0)).tolist()]
        return numbers.sum(axis=1), np.concatenate([np.empty(0, np.intp), *places]), starts
