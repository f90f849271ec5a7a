"""Files of an optimizer whose state is divided among ranks: the same as one process writes, for any number of ranks."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from contextlib import ExitStack
from math import prod
from typing import Any

import numpy as np

from fastoptim.mpi.shards import Part, Shards, flat, make_buckets
from fastoptim.mpi.team import Team
from fastoptim.serialize import StateDict, StrPath, check_arrays, check_items, reading, write
from fastoptim.state_dicts import saved_parameters, state_dict_of
from fastoptim.update.validate import Array

__all__ = ["gather_slot", "load", "save"]


def _slot_shape(optimizer: Any, shards: Shards, name: str, key: Hashable) -> tuple[int, ...]:
    shape = shards.shapes[key]
    return (optimizer.array_slots(shape) or {}).get(name, shape) if key in shards.whole else shape


def _order(shards: Shards, key: Hashable, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the memory order of a slot: that of the parameter if it has its shape."""
    return shards.memory_orders[key] if shape == shards.shapes[key] else tuple(range(len(shape)))


def _blank(shards: Shards, key: Hashable, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return zeros for a slot of an array, with the axes of the slot and along one axis."""
    order = _order(shards, key, shape)
    elements = np.zeros(prod(shape), dtype)
    return elements.reshape([shape[axis] for axis in order]).transpose(np.argsort(order)), elements


def gather_slot(
    team: Team, shards: Shards, optimizer: Any, name: str, root: int | None = None
) -> dict[Hashable, Array]:
    """Return a slot of the state as one process has it, on all ranks, or on one while others get nothing."""
    arrays: Mapping[Hashable, Array] = optimizer._state[name]
    shapes = {key: _slot_shape(optimizer, shards, name, key) for key in arrays}
    parts = [
        [
            Part(part.array, 0, prod(shapes[key])) if key in shards.whole and key in shapes else part
            for part in each
            for key in [shards.keys[part.array]]
        ]
        for each in shards.parts
    ]
    buckets = [make_buckets(each, shards.dtypes(arrays), team.limit) for each in parts]
    own = {
        key: flat(array, _order(shards, key, array.shape)) if key in shards.whole else array
        for key, array in arrays.items()
    }
    whole: dict[Hashable, tuple[Array, Array]] = {}
    if root in (None, team.rank):
        whole = {key: _blank(shards, key, shapes[key], array.dtype) for key, array in arrays.items()}
        for k, start, stop in parts[team.rank]:
            if (key := shards.keys[k]) in own:
                whole[key][1][start:stop] = own[key]
    flats: list[Any] = [whole[key][1] if key in whole else None for key in shards.keys] if whole else []
    team.gather([own.get(key) for key in shards.keys], buckets, flats, root)
    return {key: array for key, (array, _) in whole.items()}


def save(team: Team, shards: Shards, optimizer: Any, path: StrPath, params: Any) -> None:
    """Write optimizer and parameters to a file on rank 0; see `Sharded.save`."""
    team.agree()
    state = optimizer._state
    if state is not None:
        state = {name: gather_slot(team, shards, optimizer, name, root=0) for name in state}
    team.may_fail = True
    if team.rank == 0:
        write(path, state_dict_of(optimizer, params, state))
    # The file is there when any rank goes on.
    team.agree()


def _check_file(saved: StateDict, optimizer: Any, shards: Shards, params: Any) -> None:
    """Raise `ValueError` if a file does not fit the parameters."""
    check_items(saved, optimizer, "iter", "hyperparameters", "state", "params")
    if saved["params"] is None:
        raise ValueError("the checkpoint was saved without parameters, which ranks need; save it with params")
    check_arrays("params", saved["params"], {each.key: each.p for each in saved_parameters(params)})
    for name, arrays in (saved["state"] or {}).items():
        shapes = {key: _slot_shape(optimizer, shards, name, key) for key in shards.keys}
        expected = {key: np.broadcast_to(0.0, shape) for key, shape in shapes.items()}
        check_arrays(f"state {name!r}", arrays, expected, any_dtype=True)


def load(team: Team, shards: Shards, optimizer: Any, path: StrPath, params: Any) -> None:
    """Restore optimizer and parameters from a file that rank 0 reads; see `Sharded.load`."""
    with ExitStack() as stack:
        saved: StateDict = {}
        if team.rank == 0:
            saved = stack.enter_context(reading(path))
            _check_file(saved, optimizer, shards, params)
        team.agree()
        kinds = {
            name: {key: array.dtype for key, array in arrays.items()}
            for name, arrays in (saved.get("state") or {}).items()
        }
        further = {name: value for name, value in saved.items() if name not in ("state", "params")}
        further, kinds, has_state = team.comm.bcast((further, kinds, saved.get("state") is not None))
        state: dict[str, dict[Hashable, Array]] = {
            name: {
                key: _receive_piece(team, shards, optimizer, name, key, dtype, saved) for key, dtype in dtypes.items()
            }
            for name, dtypes in kinds.items()
        }
        team.may_fail = True
        restored = further | {"state": state if has_state else None, "params": None}
        # A rank that cannot restore it must not be the only one.
        copy.copy(optimizer).load_state_dict(restored)
        team.agree()
        optimizer.load_state_dict(restored)
        for parameter in saved_parameters(params):
            whole, elements = _blank_like(parameter.p)
            if team.rank == 0:
                np.copyto(whole, saved["params"][parameter.key])
            team.broadcast(elements)
            np.copyto(parameter.p, whole)


def _receive_piece(
    team: Team, shards: Shards, optimizer: Any, name: str, key: Hashable, dtype: np.dtype[Any], saved: StateDict
) -> Array:
    """Return what this rank has of an array of the state, which rank 0 sends to all."""
    shape = _slot_shape(optimizer, shards, name, key)
    whole, elements = _blank(shards, key, shape, dtype)
    if team.rank == 0:
        np.copyto(whole, saved["state"][name][key])
    team.broadcast(elements)
    start, stop = shards.ranges(key, team.rank)
    if key not in shards.whole:
        return elements[start:stop].copy()
    if start < stop:
        return whole
    empty = (0, *shards.shapes[key][1:])
    return np.zeros((optimizer.array_slots(empty) or {}).get(name, empty), dtype)


def _blank_like(array: Array) -> tuple[Array, Array]:
    whole = np.empty_like(array, order="C", subok=False)
    return whole, whole.reshape(-1)
