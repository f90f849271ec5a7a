"""The state of an optimizer: for each slot a flat dict of arrays like the parameters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fastoptim.dtypes import is_floating, rounded
from fastoptim.mapped import release
from fastoptim.parameters import FlatDict, Layout
from fastoptim.state_files import State, Zeros
from fastoptim.update.fallback import RuleArray
from fastoptim.update.precision import Precision
from fastoptim.update.validate import Array, Parameter

__all__ = ["Slot", "State", "attach_state", "slot_of", "with_slot"]


class Slot:
    """A descriptor: the attribute ``opt.m`` of a slot ``"m"``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.__doc__ = f"State {name!r}: None before the first update, then ``{{key: array}}`` like the parameters."

    @overload
    def __get__(self, optimizer: None, owner: type) -> Slot: ...
    @overload
    def __get__(self, optimizer: object, owner: type) -> dict[Any, NDArray[Any]] | None: ...
    def __get__(self, optimizer: Any, owner: type) -> Any:
        if optimizer is None:
            return self
        if optimizer._state is None:
            return None
        if self.name not in optimizer._state:
            raise AttributeError(f"{type(optimizer).__name__} has no state {self.name!r}")
        return optimizer._state[self.name]

    def __set__(self, optimizer: Any, value: Mapping[Any, NDArray[Any]] | None) -> None:
        optimizer._set_state(self.name, value)


def attach_state(
    rule: Callable[..., Any],
    names: tuple[str, ...],
    n_scalars: int,
    parameters: list[Parameter],
    state: State | None,
    initial: Mapping[str, float | str],
    precision: Precision,
    zeros: Zeros,
) -> State:
    """Give each parameter its arrays of the state.

    A slot has the dtype that the text of the rule gives it when it runs on arrays: a rule that assigns ``v = momentum *
    v - lr * g`` makes ``v`` float64 beside a float64 gradient, one that writes ``h += g * g`` leaves ``h`` as it was,
    of the parameter's dtype.

    Parameters
    ----------
    rule : function
        The rule, with its transforms.
    names : tuple of str
        Its slots. Those that the state lacks are added, and any others are dropped.
    n_scalars : int
        Number of the rule's scalars.
    parameters : list of Parameter
        Each is given its arrays.
    state : dict or None
        The state so far.
    initial : mapping
        The number with which a slot begins, or ``"p"`` if it begins as a copy of the parameters; others are zero.
    precision : Precision
        The dtypes of slots where bfloat16 is involved; the rule then computes in float32.
    zeros : function
        Makes new slots.

    Returns
    -------
    State
        The state that was given, or another one if there was none, or if a slot or dtype changes.

    Raises
    ------
    KeyError, ValueError
        If a parameter has no state, or none of its shape, or if the state is read-only or was altered in place.
    """
    if state is None or (names and not any(state.values())):
        state = {}
    if tuple(state) != names:
        # All slots of a parameter have one memory order, in which kernels walk it.
        like: Mapping[Hashable, Array] = next(iter(state.values()), {})
        layouts = {name: _layout(name, parameters, like, precision) for name in names if name not in state}
        added = {name: zeros(name, layout) for name, layout in layouts.items()}
        state = {name: added[name] if name in added else state[name] for name in names}
        for name in initial.keys() & added.keys():
            for parameter in parameters:
                value = initial[name]
                added[name][parameter.key][...] = parameter.p if value == "p" else value
                release(added[name][parameter.key])
    for parameter in parameters:
        parameter.slots = [slot_of(parameter, name, arrays) for name, arrays in state.items()]
    changes: dict[str, dict[Hashable, np.dtype[Any]]] = {}
    rounds: set[Hashable] = set()
    for parameter in parameters:
        # What is updated as a whole keeps its dtypes.
        if parameter.slot_shapes is not None:
            continue
        p, g, *slots = parameter.dtypes
        if precision.concerns(parameter):
            expected = [precision.dtype(name, p) for name in names]
            rounds.add(parameter.key)
        elif len(set(parameter.dtypes)) > 1 or not p.isnative:
            expected = _slot_dtypes(rule, (p, None if parameter.is_weak else g, *slots), n_scalars)
        else:
            continue
        for name, dtype, new in zip(names, slots, expected, strict=True):
            if new != dtype:
                changes.setdefault(name, {})[parameter.key] = new
    if changes:
        state = state | {name: _converted(name, state[name], dtypes, zeros) for name, dtypes in changes.items()}
        for parameter in parameters:
            # No rule computes with bfloat16, so state is converted before its first step.
            if parameter.key not in rounds and any(parameter.key in keys for keys in changes.values()):
                parameter.before = parameter.slots
            parameter.slots = [slot_of(parameter, name, arrays) for name, arrays in state.items()]
    return state


def with_slot(
    state: State | None, names: tuple[str, ...], name: str, arrays: Mapping[Hashable, Any], zeros: Zeros
) -> State:
    """Assign arrays to a slot, and return the state; it is new, with zeros in the other slots, if there was none.

    Raises
    ------
    TypeError
        If ``arrays`` is not a dict, or one of its arrays is not of a floating dtype.
    KeyError
        If its keys are not those of the state.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"state {name!r} is None or a dict of arrays, not {type(arrays).__name__}")
    arrays = {key: np.asarray(array) for key, array in arrays.items()}
    if state is None:
        for key, array in arrays.items():
            if not is_floating(array.dtype):
                raise TypeError(f"state {name!r} {key!r} is of dtype {array.dtype}, expected a floating one")
        layout = Layout.of(arrays.items())
        state = {slot: zeros(slot, layout) for slot in names}
    if name not in state:
        state = {**state, name: zeros(name, state[names[0]].layout)}
    if arrays.keys() != state[name].keys():
        known = list(state[name])
        raise KeyError(f"state {name!r} has the keys {known}, not {list(arrays)}; set it to None first")
    state[name].update(arrays)
    return state


def _layout(name: str, parameters: list[Parameter], like: Mapping[Hashable, Array], precision: Precision) -> Layout:
    """Return the layout of a new slot: for each parameter the memory order of another slot, or else its own."""

    def blank(parameter: Parameter) -> Array:
        other, dtype = like.get(parameter.key, parameter.p), precision.dtype(name, parameter.p.dtype)
        if other.shape != parameter.slot_shape(name):
            return np.empty(parameter.slot_shape(name), dtype)
        return np.empty_like(other, dtype, subok=False)

    return Layout.of((parameter.key, blank(parameter)) for parameter in parameters)


def slot_of(parameter: Parameter, name: str, arrays: FlatDict) -> Array:
    """Return a view of an array of the state, which is still what was checked if the array is altered afterwards.

    Raises
    ------
    KeyError, ValueError
        If there is none, or none of its shape, or if it was altered or is read-only.
    """
    given: Array | None = arrays.get(parameter.key)
    if given is None:
        known = ", ".join(map(repr, arrays))
        raise KeyError(
            f"parameter {parameter.key!r} was not there at the first update, so it has no state {name!r}; "
            f"expected keys among {known}. Use another optimizer object for other parameters"
        )
    slot = given.view()
    if slot.shape != parameter.slot_shape(name):
        expected_shape = f"expected {slot.shape} as in its state {name!r}"
        if parameter.slot_shape(name) != parameter.p.shape:
            expected_shape = f"so its state {name!r} must have {parameter.slot_shape(name)}, not {slot.shape}"
        raise ValueError(f"parameter {parameter.key!r} has shape {parameter.p.shape}, {expected_shape}")
    expected = arrays.layout.fields[parameter.key]
    if (slot.dtype, slot.strides) != (expected.dtype, expected.strides):
        raise ValueError(
            f"the array of state {name!r} of {parameter.key!r} was given another dtype or other strides in place, but "
            "kernels process its memory as it was; assign new values with [...] instead"
        )
    if not slot.flags.writeable:
        raise ValueError(f"state {name!r} of {parameter.key!r} is read-only, so it cannot be updated in place")
    return slot


@lru_cache
def _slot_dtypes(
    rule: Callable[..., Any], dtypes: tuple[np.dtype[Any] | None, ...], n_scalars: int
) -> list[np.dtype[Any]]:
    """Return the dtypes of the slots after a step; None as a dtype is that of a Python number."""
    arrays = [1.0 if dtype is None else np.ones(1, dtype).view(RuleArray) for dtype in dtypes]
    slots = [dtype for dtype in dtypes[2:] if dtype is not None]
    try:
        with np.errstate(all="ignore"):
            results = rule(*arrays, *[0.5] * n_scalars)
    except Exception:
        # A rule that fails on arrays fails, or is run element by element, when it is needed.
        return slots
    given = [np.asarray(result).dtype for result in results[1:]] if isinstance(results, tuple) else []
    if len(given) != len(slots):
        return slots
    return [new if new.kind == "f" else old for new, old in zip(given, slots, strict=True)]


def _converted(name: str, arrays: FlatDict, dtypes: dict[Hashable, np.dtype[Any]], zeros: Zeros) -> FlatDict:
    """Return a copy of a slot in which some arrays have another dtype."""
    blanks = ((key, np.empty_like(array, dtypes.get(key, array.dtype))) for key, array in arrays.items())
    result = zeros(name, Layout.of(blanks))
    for key, array in arrays.items():
        result[key][...] = rounded(array, result[key].dtype)
        release(result[key])
        release(array)
    return result
