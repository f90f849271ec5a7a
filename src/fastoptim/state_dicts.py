"""Make, save and restore the state dict of an optimizer; all of it is checked before anything is changed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from numbers import Number
from typing import Any, ClassVar

import numpy as np

from fastoptim.concurrency import exclusive
from fastoptim.mapped import release
from fastoptim.parameters import Layout
from fastoptim.schedules.specs import from_spec, to_spec
from fastoptim.serialize import StateDict, StrPath, check_arrays, check_items, copied, format_and_class, reading, write
from fastoptim.state_files import State, StateFiles, Zeros, in_memory
from fastoptim.transforms import COUNTERS, EXTRA_SLOTS, KEYWORDS
from fastoptim.update.validate import Parameter, validate

__all__ = ["Checkpointed", "plain_hyperparameters", "saved_parameters", "state_dict_of"]

_PLAIN = (Number, np.bool_, str, type(None))
"""The types of hyperparameters. Attributes of other types are not saved."""

_NOT_COPIED = {"_plan", "_plans", "_guard", "_composition", "_views", "_evaluated", "_shards", "_files"}
"""Attributes that copies do not share: a plan holds addresses of arrays, and guard and files belong to one object."""


class Checkpointed:
    """Base class of `Optimizer`: the methods that save and restore one."""

    slots: ClassVar[tuple[str, ...]]
    optional_slots: ClassVar[tuple[str, ...]] = ()
    iter: int
    _state: State | None
    _files: StateFiles | None
    _schedules: dict[str, Any]
    _declared: ClassVar[Mapping[str, Any]]
    _takes_arrays: Callable[[], bool]
    array_slots: Callable[[tuple[int, ...]], Mapping[str, tuple[int, ...]] | None]

    @property
    def _zeros(self) -> Zeros:
        return in_memory if self._files is None else self._files.zeros

    @exclusive
    def state_dict(self, params: Any = None) -> StateDict:
        """Return everything that later updates depend on, except the gradients.

        Parameters
        ----------
        params : dict or list, optional
            The parameters, to be saved with the rest.

        Returns
        -------
        dict
            ``"format"``, the version of the format; ``"class"``, the name of the class; ``"iter"``;
            ``"hyperparameters"``, all public attributes that are numbers, tuples of numbers, strings or None, and
            the schedules of `fastoptim.schedules` as ``{"schedule": [name, *arguments]}``; ``"state"``, None or
            ``{slot: {key: array}}``; ``"params"``, None or ``{key: array}``. The arrays are copies. Attributes of
            other types, groups and other functions are not included; the constructor sets them. ``"not_saved"``, text,
            names ``groups``, ``frozen`` and the hyperparameters that are such functions, if there are any.

        Raises
        ------
        RuntimeError
            If this is called during an update, for example by a signal handler. A handler should set a flag that
            is checked between updates.
        """
        return copied(state_dict_of(self, params, self._state))

    @exclusive
    def load_state_dict(self, state_dict: StateDict, params: Any = None) -> None:
        """Restore what `state_dict` returned.

        Parameters
        ----------
        state_dict : dict
            As returned by `state_dict`; its arrays are copied.
        params : dict or list, optional
            The parameters, if they were saved too. As in `update`, arrays are written in place and plain numbers are
            replaced.

        Raises
        ------
        ValueError
            If the class or the hyperparameters differ from this object's, if keys, shapes or dtypes of the parameters
            differ from those of ``params``, or if this object has state and keys or shapes differ from those of its
            arrays. Nothing is changed then.
        TypeError
            If `update` does not accept ``params``.
        """
        _restore(self, state_dict, params)

    @exclusive
    def save(self, path: StrPath, params: Any = None) -> None:
        """Write the `state_dict` to a file; a process that loads it continues with the same bits.

        Parameters
        ----------
        path : path
            An existing file is replaced in one step: after a crash there is either the old file or the new one.
        params : dict or list, optional
            The parameters. In the same file as the optimizer, they always belong to the same step.

        Raises
        ------
        OSError
            If the file cannot be written, for example because the disk is full.
        TypeError
            If the dtype of an array is not float16, bfloat16, float32 or float64, or if a key is not a string, number,
            None or tuple of these.
        ValueError
            If the shape of a parameter is not that of its state, or if `load` would refuse so many small arrays: about
            ten thousand or more.
        RuntimeError
            If this is called during an update; see `state_dict`.

        Notes
        -----
        A safetensors file with a checksum. A process killed while it writes leaves ``.NAME.xxxxxxxx`` beside it.

        See Also
        --------
        fastoptim.load : Create the optimizer that a file holds; with an example.
        """
        write(path, state_dict_of(self, params, self._state))

    @exclusive
    def load(self, path: StrPath, params: Any = None) -> None:
        """Restore what `save` wrote; like `load_state_dict`, but from a file.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If the file is damaged or does not fit. Nothing is changed then.
        """
        with reading(path, is_mapped=self._files is not None) as state_dict:
            _restore(self, state_dict, params)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _NOT_COPIED}


def state_dict_of(optimizer: Checkpointed, params: Any, state: State | None) -> StateDict:
    """Return the state dict of an optimizer, with the parameters if they are given; the arrays are not copied."""
    parameters = saved_parameters(params)
    _check_shapes("the optimizer", optimizer, state or {}, parameters)
    specs = {name: to_spec(schedule) for name, schedule in optimizer._schedules.items()}
    schedules = {name: {"schedule": spec} for name, spec in specs.items() if spec is not None}
    not_saved = [*(n for n in ("groups", "frozen") if getattr(optimizer, n)), *(n for n in specs if n not in schedules)]
    state_dict = format_and_class(optimizer) | {
        "iter": int(optimizer.iter),
        "hyperparameters": plain_hyperparameters(optimizer) | schedules,
        "state": state,
        "params": None if params is None else {parameter.key: parameter.p for parameter in parameters},
    }
    return state_dict | ({"not_saved": ", ".join(not_saved)} if not_saved else {})


def _restore(optimizer: Checkpointed, state_dict: StateDict, params: Any) -> None:
    """Restore an optimizer and the parameters given, or raise an error and change nothing."""
    check_items(state_dict, optimizer, "iter", "hyperparameters", "state", "params")
    steps, saved = state_dict["iter"], state_dict["params"]
    if type(steps) is not int or steps < 0:
        raise ValueError(f"`iter` of a checkpoint must be the number of updates, not {steps!r}")
    hyperparameters = _checked_hyperparameters(state_dict["hyperparameters"], optimizer)
    state = _checked_state(state_dict["state"], optimizer)
    if saved is None and params is not None:
        raise ValueError("the checkpoint was saved without parameters: load it without params")
    if saved is not None and params is None:
        raise ValueError("the checkpoint was saved with parameters: pass the params to write them to")
    parameters = saved_parameters(params)
    if params is not None:
        check_arrays("params", saved, {parameter.key: parameter.p for parameter in parameters})
        _check_shapes("the checkpoint", optimizer, state or {}, parameters)
    # A setter may refuse its hyperparameter, so all are set on a copy first.
    restored = copy.copy(optimizer)
    for name, value in hyperparameters.items():
        if name in optimizer._schedules and not callable(value):
            # A custom function, which no file holds, computes its number from `iter`.
            continue
        try:
            setattr(restored, name, value)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"the checkpoint has the hyperparameter {name}={value!r}: {error}") from error
    restored._state = state
    try:
        restored.iter = steps
    except ArithmeticError as error:
        raise ValueError(f"a schedule of the checkpoint fails at iter={steps}: {error}") from error
    # Plain numbers come first, because assigning them fails if params is immutable; a checked array cannot fail.
    with nullcontext() if optimizer._files is None else optimizer._files.loading():
        for parameter in sorted(parameters, key=lambda parameter: isinstance(parameter.value, np.ndarray)):
            if isinstance(parameter.value, np.ndarray):
                np.copyto(parameter.p, saved[parameter.key])
            else:
                params[parameter.key] = type(parameter.value)(saved[parameter.key])
    fields = Checkpointed.__getstate__(restored)
    for name in (*KEYWORDS, *COUNTERS.values()):
        if name not in fields:
            vars(optimizer).pop(name, None)
    fields["_extended"] |= optimizer._files is not None
    vars(optimizer).update(fields | {"_plan": None, "_plans": [], "_composition": None, "_views": None})


def _check_shapes(owner: str, optimizer: Checkpointed, state: State, parameters: list[Parameter]) -> None:
    """Raise `ValueError` if the shapes of state do not fit the parameters saved with it."""
    for key, p in ((parameter.key, parameter.p) for parameter in parameters):
        shapes = optimizer.array_slots(p.shape) or {}
        for slot, arrays in state.items():
            array, expected = arrays.get(key), shapes.get(slot, p.shape)
            if array is not None and array.shape != expected:
                raise ValueError(f"{owner} has state {slot!r} of {key!r} of shape {array.shape}, expected {expected}")


def saved_parameters(params: Any) -> list[Parameter]:
    """Return the checked parameters, or an empty list for None."""
    if params is None:
        return []
    if not isinstance(params, Mapping | list | tuple):
        hint = ": pass its params" if hasattr(params, "params") else ""
        raise TypeError(f"params must be a dict or a list of arrays, not a {type(params).__name__}{hint}")
    return validate(params, params)


def plain_hyperparameters(optimizer: Checkpointed) -> dict[str, Any]:
    """Return the attributes of an optimizer that are saved as they are."""
    public = {name: value for name, value in vars(optimizer).items() if not name.startswith("_") and name != "iter"}
    # An array of no axes is saved as its number.
    numbers = {name: value[()] for name, value in public.items() if isinstance(value, np.ndarray)}
    return {name: value for name, value in (public | numbers).items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(isinstance(each, Number) for each in value))


def _checked_hyperparameters(saved: Any, optimizer: Checkpointed) -> dict[str, Any]:
    """Return the hyperparameters to be set, or raise `ValueError` for the first that does not fit."""
    if not isinstance(saved, Mapping):
        raise ValueError(f"the hyperparameters of a checkpoint must be a dict, not {saved!r}")
    cls, own = type(optimizer), plain_hyperparameters(optimizer)
    # In a file, a tuple is a list.
    saved = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
    schedules = {
        name: from_spec(value["schedule"])
        for name, value in saved.items()
        if isinstance(value, Mapping) and value.keys() == {"schedule"}
        if name in own.keys() | KEYWORDS.keys() or isinstance(getattr(cls, name, None), Number)
    }
    try:
        saved |= {name: schedule(0) for name, schedule in schedules.items()}
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"the checkpoint has a schedule that fails: {error}") from error
    # A class may define hyperparameters that an object does not have. Only `rule` is not one where it is None.
    names = [name for name in saved.keys() | own.keys() if not name.startswith("_") and name != "rule"]
    defaults = {name: getattr(cls, name) for name in names if isinstance(getattr(cls, name, cls), _PLAIN)}
    # Older files lack the choice of a library, and what came with it: the keyword-only hyperparameters.
    arguments = inspect.signature(cls).parameters.values() if hasattr(cls, "defaults") else ()
    later = {"like", *(it.name for it in arguments if it.kind is it.KEYWORD_ONLY)}
    if not own.keys() <= saved.keys() | defaults.keys() | KEYWORDS.keys() | set(COUNTERS.values()) | later:
        raise ValueError(f"the checkpoint has the hyperparameters {saved}, expected {', '.join(own) or 'none'}")
    # A transform that is not in the checkpoint is off there.
    defaults |= dict.fromkeys(KEYWORDS) | {name: 0 for name in saved if name in COUNTERS.values()}
    known = defaults | own
    for name, value in saved.items():
        # A custom attribute of the saved object is added here, unless it would hide one of the class.
        is_free = not (name.startswith("_") or hasattr(cls, name) or name in cls._declared)
        # None fits every hyperparameter, but a string never replaces a number.
        here = known.get(name)
        fits = None in (value, here) or isinstance(value, str) == isinstance(here, str)
        if not (_is_plain(value) and fits and (name in known or is_free)):
            raise ValueError(f"the checkpoint has the hyperparameter {name}={value!r}, here it is {here!r}")
    if type(saved.get("skipped")) is not int or saved["skipped"] < 0:
        raise ValueError(f"`skipped` of a checkpoint must be a number of updates, not {saved.get('skipped')!r}")
    restored = defaults | saved
    keywords = {name: restored.pop(name) for name in KEYWORDS}
    return {**keywords, **restored, **schedules}


def _checked_state(saved: Any, optimizer: Checkpointed) -> State | None:
    """Return a copy of saved state, or raise `ValueError` if it does not fit."""
    if saved is None:
        return None
    slots, own = optimizer.slots, optimizer._state
    optional = (*optimizer.optional_slots, *EXTRA_SLOTS.values())
    further = [slot for slot in optional if isinstance(saved, Mapping) and slot in saved]
    if not isinstance(saved, Mapping) or saved.keys() != {*slots, *further}:
        found = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else repr(saved)
        raise ValueError(f"the checkpoint has the state {found}, expected {', '.join(slots) or 'none'}")
    if not saved:
        return {}
    slots = (*slots, *further)
    for slot in slots:
        expected = own[slot] if own is not None and slot in own else saved[slots[0]]
        if expected is saved[slots[0]] and optimizer._takes_arrays() and isinstance(saved[slot], Mapping):
            # Slots may have other shapes than the first one; the next update compares them with its parameters.
            expected = expected | {key: array for key, array in saved[slot].items() if key in expected}
        check_arrays(f"state {slot!r}", saved[slot], expected, any_dtype=True)
    state = {}
    for slot in slots:
        # All slots have the memory order of the first one, each in its own dtype.
        pairs = ((key, first, saved[slot][key]) for key, first in saved[slots[0]].items())
        blanks = (
            (key, np.empty_like(first if first.shape == array.shape else array, array.dtype))
            for key, first, array in pairs
        )
        state[slot] = optimizer._zeros(slot, Layout.of(blanks))
        for key, array in saved[slot].items():
            state[slot][key][...] = array
            release(array)
            release(state[slot][key])
    return state
