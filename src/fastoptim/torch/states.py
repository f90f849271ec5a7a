"""The state of optimizers in the form of torch's state dicts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastoptim.conversions import as_gradient
from fastoptim.dtypes import is_bfloat16
from fastoptim.optimizer import Optimizer
from fastoptim.optimizers.adam import Adam
from fastoptim.param_groups import Counters, ParamGroups, is_counter, read_counters
from fastoptim.torch.masters import Masters

__all__ = ["exported", "imported"]

_NAMES = {"m": "exp_avg", "v": "exp_avg_sq"}
"""The names that torch gives to the slots of Adam and AdamW, whose means are the same as here."""

_MASTER = "master"
"""The name of the float32 copy of a bfloat16 parameter."""

_UNSUPPORTED = "amsgrad", "maximize"
"""What a group of torch may switch on, and a group here may not."""


def _names(optimizer: Optimizer) -> dict[str, str]:
    return _NAMES if isinstance(optimizer, Adam) else {}


def exported(
    groups: ParamGroups, masters: Mapping[Hashable, NDArray[Any]]
) -> tuple[dict[Hashable, dict[str, Any]], dict[str, Any]]:
    """Return the state of each parameter that was updated, and all else as plain values."""
    optimizer, names = groups.optimizer, _names(groups.optimizer)
    states: dict[Hashable, dict[str, Any]] = {}
    for key in groups.keys:
        counted = dict(groups.counted(key))
        steps = counted.pop("iter", 0)
        own = {slot: arrays[key] for slot, arrays in (optimizer._state or {}).items() if key in arrays}
        if steps or own:
            tensors = {names.get(slot, slot): _tensor(array) for slot, array in own.items()}
            if key in masters:
                tensors[_MASTER] = torch.from_numpy(masters[key])
            states[key] = {"step": torch.tensor(float(steps)), **tensors, **counted}
    return states, _rest(optimizer)


def _tensor(array: NDArray[Any]) -> Any:
    if is_bfloat16(array.dtype):
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _rest(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state dict of an optimizer without arrays."""
    bare = copy.copy(optimizer)
    bare._keep(None, [])
    return {name: value for name, value in bare.state_dict().items() if name not in ("state", "params")}


def imported(
    groups: ParamGroups,
    arrays: Mapping[Hashable, NDArray[Any]],
    masters: Masters,
    states: Mapping[Hashable, Mapping[str, Any]],
    state_dict: Mapping[str, Any],
) -> Callable[[], None]:
    """Check a state dict, and return a function that restores it.

    Parameters
    ----------
    groups : ParamGroups
        What is to be restored.
    arrays : dict
        The parameters.
    masters : Masters
        Their float32 copies, which are to be restored as well.
    states : dict
        The state of each parameter that has one, by its key.
    state_dict : dict
        The rest.

    Raises
    ------
    ValueError
        If it does not fit.
    """
    optimizer = groups.optimizer
    names = {theirs: ours for ours, theirs in _names(optimizer).items()}
    for group in state_dict["param_groups"]:
        if used := [name for name in _UNSUPPORTED if group.get(name)]:
            raise ValueError(f"the state dict is of an optimizer with {used[0]}=True, which {optimizer!r} is not")
    slots: dict[str, dict[Hashable, Any]] = {}
    counted: dict[Hashable, dict[str, Any]] = {}
    copies: dict[Hashable, Any] = {}
    for key, state in states.items():
        counted[key] = {"iter": int(state.get("step", 0))}
        for name, value in state.items():
            if is_counter(optimizer, name):
                counted[key][name] = value
            elif name != "step":
                array = as_gradient(value.cpu()) if isinstance(value, torch.Tensor) else value
                (copies if name == _MASTER else slots.setdefault(names.get(name, name), {}))[key] = array
    for slot, values in slots.items():
        if missing := states.keys() - values.keys():
            raise ValueError(f"the state dict has no state {slot!r} of parameter {next(iter(missing))!r}")
        for key, array in values.items():
            shape = (optimizer.array_slots(arrays[key].shape) or {}).get(slot, arrays[key].shape)
            if getattr(array, "shape", None) != shape:
                found = getattr(array, "shape", array)
                raise ValueError(f"the state dict has state {slot!r} of {key!r} of shape {found}, expected {shape}")
    for key, copy_ in copies.items():
        if copy_.shape != arrays[key].shape:
            raise ValueError(f"the state dict has a copy of {key!r} of shape {copy_.shape}, not {arrays[key].shape}")
    counters = {key: tuple(each.items()) for key, each in _completed(counted).items()}
    most: Counters = max(counters.values(), key=lambda each: dict(each)["iter"], default=())
    # Without state dict of this package, hyperparameters other than those of the groups stay as they are.
    rest = state_dict.get("fastoptim") or _rest(optimizer)
    own = {**rest, "iter": dict(most).get("iter", 0), "state": slots if states else None, "params": None}
    tried = copy.copy(optimizer)
    tried._keep(None, [])
    tried.load_state_dict(own)

    def restore() -> None:
        optimizer._keep(None, [])
        optimizer.load_state_dict(own)
        now = read_counters(optimizer)
        masters.restore(copies)
        groups.restore({key: now if each == most else each for key, each in counters.items()})

    return restore


def _completed(counted: Mapping[Hashable, dict[str, Any]]) -> dict[Hashable, dict[str, Any]]:
    """Give parameters that were updated together what was counted for all of them, in each of their groups."""
    alike: dict[int, list[dict[str, Any]]] = {}
    result = {}
    for key, own in counted.items():
        candidates = alike.setdefault(own["iter"], [])
        fitting = (each for each in candidates if all(each.get(name, value) == value for name, value in own.items()))
        shared = next(fitting, None)
        if shared is None:
            candidates.append(shared := {})
        shared.update(own)
        result[key] = shared
    return result
