"""What `Sharded` takes: arrays that can be divided among ranks, and that are alike on all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from fastoptim.conversions import with_arrays
from fastoptim.dtypes import is_bfloat16
from fastoptim.mpi.shards import Shards, memory_order
from fastoptim.rows import Rows
from fastoptim.state_dicts import plain_hyperparameters
from fastoptim.update.validate import Parameter, validate

__all__ = ["check_forms", "check_inputs", "describe", "divide_arrays"]

_SENT = np.float16, np.float32, np.float64
"""The dtypes of arrays beside bfloat16."""


def check_inputs(optimizer: Any, params: Any, grads: Any) -> list[Parameter]:
    """Return the parameters that are not frozen.

    Raises
    ------
    KeyError, TypeError, ValueError
        For the first that cannot be updated, or cannot be divided among ranks.
    """
    frozen = optimizer._groups.frozen_keys(params)
    params, grads = with_arrays(params, grads, is_update=True)
    parameters = validate(params, grads, frozen)
    for each in parameters:
        given = {"parameter": type(each.value), "the gradient of": type(each.gradient) if each.rows is None else Rows}
        for what, kind in given.items():
            if not issubclass(kind, np.ndarray):
                raise TypeError(
                    f"{what} {each.key!r} is of type {kind.__name__}; ranks share dense arrays, so pass one, such as "
                    "np.array(x) in place of a number x"
                )
        for name, array in (("parameter", each.p), ("the gradient of", each.g)):
            if not (is_bfloat16(array.dtype) or array.dtype in _SENT):
                raise TypeError(
                    f"{name} {each.key!r} is of dtype {array.dtype}, expected float16, bfloat16, float32 or float64"
                )
        if not each.p.transpose(memory_order(each.p)).flags.c_contiguous:
            raise ValueError(
                f"parameter {each.key!r} has gaps in memory or negative strides, so it cannot be cut; pass a copy"
            )
    return parameters


def divide_arrays(optimizer: Any, parameters: Sequence[Parameter], team: Any) -> Shards:
    """Return how arrays are divided among ranks, for the first update."""
    whole = [
        optimizer.array_slots(each.p.shape) is not None or (optimizer.centralize and each.p.ndim > 1)
        for each in parameters
    ]
    return Shards(parameters, whole, team)


def check_forms(optimizer: Any, shards: Shards, parameters: Sequence[Parameter]) -> None:
    """Raise an error for the first array that has not the form that it had when the arrays were divided."""
    for each in parameters:
        if each.key not in shards.sizes:
            known = ", ".join(map(repr, shards.keys))
            raise KeyError(f"parameter {each.key!r} was not there at the first update; expected keys among {known}")
        form = each.p.shape, memory_order(each.p)
        if form != (shards.shapes[each.key], shards.memory_orders[each.key]):
            raise ValueError(
                f"parameter {each.key!r} has shape {form[0]} and axes in the order {form[1]} in memory, expected "
                f"{shards.shapes[each.key]} and {shards.memory_orders[each.key]}, as at the first update"
            )
        if optimizer.centralize and each.p.ndim > 1 and each.key not in shards.whole:
            raise ValueError(f"{each.key!r} is cut, but centralize needs it as a whole; set it before the first update")


def describe(optimizer: Any, shards: Shards, parameters: Sequence[Parameter]) -> tuple[int, Callable[[], str]]:
    """Return what must be the same on all ranks, as a number and a function that returns its meaning."""
    kinds = tuple([each.p.dtype for each in parameters]), tuple([each.g.dtype for each in parameters])
    if kinds not in shards.signatures:
        shards.signatures[kinds] = crc32(_meaning_of_arrays(shards, parameters).encode())
    groups = [{name: value for name, value in own.items() if not callable(value)} for _, own in optimizer._groups.rules]
    numbers = f"iter={optimizer.iter}, {plain_hyperparameters(optimizer)}, groups {groups}"
    number = crc32(numbers.encode(), shards.signatures[kinds])
    return number, lambda: f"{numbers}, {_meaning_of_arrays(shards, parameters)}"


def _meaning_of_arrays(shards: Shards, parameters: Sequence[Parameter]) -> str:
    arrays = (
        f"{each.key!r} of shape {each.p.shape}, axes {shards.memory_orders[each.key]}, {each.p.dtype}, {each.g.dtype}"
        for each in parameters
    )
    return f"parameters and gradients {'; '.join(arrays)}"
