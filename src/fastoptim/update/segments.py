"""Segments: the parameters that one kernel updates at a time, the choice of the kernel, and its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastoptim.dtypes import is_bfloat16
from fastoptim.kernels.bfloat16 import BFLOAT16, Stored
from fastoptim.kernels.fuse import fuse
from fastoptim.kernels.jit import DISABLED, HAS_FLOAT16
from fastoptim.mapped import DONT_NEED, is_mapped, madvise, pages
from fastoptim.parameters import FlatDict, packed_strides
from fastoptim.threads import Call
from fastoptim.update.layout import Ranges, is_aliased, is_packed, merged, overlapping_groups, touches
from fastoptim.update.validate import Array, Parameter

__all__ = ["as_one", "calls", "order_of_state", "sort", "walked"]

BLOCK_BYTES = 1 << 25
"""Bytes of state in files that a kernel goes through before they are taken out of memory."""

_ALIGNMENT = 64
"""Blocks begin at multiples of this many elements, as the parts of threads do."""

_FLOATS: dict[Any, Any] = {np.dtype(T): T for T in (np.float32, np.float64, *([np.float16] if HAS_FLOAT16 else []))}
_INTEGERS: dict[Any, Any] = {
    np.dtype(T): T for T in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
}


def sort(
    parameters: list[Parameter], rule: Callable[..., Any], stored: Sequence[Stored | None]
) -> tuple[list[list[Parameter]], list[list[Parameter]], bool]:
    """Sort parameters into segments.

    Parameters
    ----------
    parameters : list of Parameter
        With their state.
    rule : function
        The rule, with its transforms.
    stored : sequence
        How each slot is stored; None if as its dtype says.

    Returns
    -------
    segments : list of list of Parameter
        What one kernel, or the fallback where there is none, updates at a time.
    in_place : list of list of Parameter
        Those of them in which the fallback must see what it wrote.
    may_move : bool
        Whether no two parameters overlap.
    """
    alike: dict[Any, list[Parameter]] = {}
    in_turn: list[list[Parameter]] = []
    in_place: list[list[Parameter]] = []
    groups, overlap = overlapping_groups(parameters)
    for group in groups:
        if overlap:
            written, _ = merged([byte_bounds(array) for parameter in group for array in parameter.written])
            for parameter in group:
                parameter.is_fixed = touches(written, parameter.g)
        aliased = overlap and any(map(is_aliased, group))
        if not aliased:
            for parameter in group:
                _choose_kernel(parameter, rule, stored)
        if len(group) == 1 and not aliased:
            only = group[0]
            # A table whose rows are updated is a segment of its own.
            alike.setdefault((only.kinds, only.strided, only.rows is not None and id(only)), []).append(only)
        elif all(parameter.kernel for parameter in group):
            # Each parameter must see what the one before it wrote.
            in_turn += [[parameter] for parameter in group]
        else:
            for parameter in group:
                parameter.kernel = None
            in_place.append(group)
    return [*alike.values(), *in_turn, *in_place], in_place, not overlap


def _kind(array: Array) -> Any:
    return BFLOAT16 if is_bfloat16(array.dtype) else _FLOATS.get(array.dtype)


def _choose_kernel(parameter: Parameter, rule: Callable[..., Any], stored: Sequence[Stored | None]) -> None:
    """Give a parameter the kernel that does what NumPy does with it, if there is one.

    Raises
    ------
    TypeError
        If the rule cannot be compiled. If only NumPy's promotion cannot be, there is no kernel.
    """
    p, g, slots = parameter.p, parameter.g, parameter.slots
    of_slots = [how or _kind(slot) for how, slot in zip(stored, slots, strict=True)]
    kinds: tuple[Any, ...] = _kind(p), _kind(g) or _INTEGERS.get(g.dtype), *of_slots
    low, high = byte_bounds(p) if p.size else (0, 0)
    # Elements that share memory must be written in NumPy's order.
    overlaps_itself = high - low < p.nbytes
    # Where all else is float64, a Python number is a float64 as well.
    is_weak = parameter.is_weak and set(kinds) != {np.float64}
    # The elements of a touched row must follow each other in the state.
    is_scattered = parameter.rows is not None and not all(slot.flags.c_contiguous for slot in slots)
    is_whole = parameter.slot_shapes is not None
    if DISABLED or overlaps_itself or None in kinds or is_weak or parameter.before or is_scattered or is_whole:
        return
    order = order_of_state(parameter)
    p_strided, g_strided = (not is_packed(a, tuple(step * a.itemsize for step in order)) for a in walked(parameter))
    # The first row may be aligned where others are not.
    p_strided |= not p.flags.aligned
    try:
        kernel = fuse(rule, kinds, (p_strided, g_strided), touched=parameter.rows is not None)
    except TypeError:
        is_stored = any(isinstance(kind, Stored) for kind in kinds)
        if is_stored or (len(set(kinds)) == 1 and np.float16 not in kinds):
            raise
        return
    parameter.kernel, parameter.kinds, parameter.strided = kernel, kinds, (p_strided, g_strided)


def walked(parameter: Parameter) -> tuple[Array, Array]:
    """Return what a kernel walks at a time: parameter and gradient, or the first row of each if that is row-sparse."""
    return (parameter.p, parameter.g) if parameter.rows is None else (parameter.p[:1], parameter.g[:1])


def order_of_state(parameter: Parameter) -> tuple[int, ...]:
    """Return the strides in elements of the parameter's state, or of what it would be."""
    like = parameter.g if parameter.rows is not None else [*parameter.slots, parameter.p][0]
    strides = packed_strides(like) if like is parameter.p else like.strides
    return tuple(step // like.itemsize for step in strides)


def as_one(params: Any, grads: Any, state: Mapping[str, FlatDict]) -> Parameter | None:
    """Return the buffers of flat dicts as one parameter, if all are packed alike and do not overlap."""
    dicts = (params, grads, *state.values())
    if not all(isinstance(each, FlatDict) and each.layout.packs_like(params.layout) for each in dicts):
        return None
    if len(params.buffers) != 1 or not params.flat.flags.writeable:
        return None
    if not all(each.is_as_laid_out() for each in (params, grads)):
        return None
    p, g, *slots = (each.flat.view() for each in dicts)
    if any(array.shape != p.shape for array in (g, *slots)) or p.size != sum(params.layout.sizes.values()):
        raise ValueError("the buffer of a flat dict was exchanged for one of another length; make a new flat dict")
    if merged([byte_bounds(array) for array in (p, g, *slots) if array.size])[1]:
        return None
    return Parameter(None, p, g, p, g, slots=slots)


def calls(kernel: int, row: int, segment: Sequence[Parameter]) -> list[Call]:
    """Return the calls of a program that run a kernel over a segment.

    If the state lies in files and is larger than a block, there is a call for each block, followed by one of
    ``madvise`` for each range of its pages. That function takes three integers, as kernels do.

    Parameters
    ----------
    kernel : int
        Address of the kernel.
    row : int
        Address of the first row of the segment in the table.
    segment : sequence of Parameter
        The rows.
    """
    mapped = [[slot for slot in each.slots if is_mapped(slot)] for each in segment]
    total, size = sum(each.p.size for each in segment), sum(slot.itemsize for slot in mapped[0])
    if total * size <= BLOCK_BYTES:
        return [(kernel, row, 0, total)]
    # A table whose rows are updated is run at once, because a step updates any of its rows.
    step = total if segment[0].rows is not None else max(BLOCK_BYTES // size // _ALIGNMENT, 1) * _ALIGNMENT
    ranges: list[Ranges] = [[] for _ in range(0, total, step)]
    start = 0
    for each, slots in zip(segment, mapped, strict=True):
        stop = start + each.p.size
        for k in range(start // step, -(-stop // step)):
            first, last = max(start, k * step) - start, min(stop, (k + 1) * step) - start
            ranges[k] += [pages(slot, first, last) for slot in slots]
        start = stop
    result: list[Call] = []
    for k, own in enumerate(ranges):
        result.append((kernel, row, k * step, min((k + 1) * step, total)))
        if address := madvise():
            result += [(address, low, high - low, DONT_NEED) for low, high in merged(own)[0]]
    return result
