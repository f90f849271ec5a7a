"""What an optimizer or a network holds, taken out and put back: everything is checked before anything is changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import pairwise
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np

from fastoptim.entries import Entry, State, checked
from fastoptim.family import FAMILY
from fastoptim.parameters import FlatDict, Layout
from fastoptim.records import FORMAT, Record, StrPath, read

if TYPE_CHECKING:
    from fastoptim.network import MultiLayerNet
    from fastoptim.optimizer import Optimizer

__all__ = ["load", "network_record", "optimizer_record", "restore_network", "restore_optimizer"]

_PLAIN = (Number, np.bool_, str, type(None))
"""What a hyperparameter may be; attributes of any other kind are not saved."""


def load(path: StrPath, params: Any = None) -> Any:
    """Make the optimizer, or the network, that a file holds.

    Parameters
    ----------
    path : path
        A file written by `Optimizer.save` or `MultiLayerNet.save`.
    params : dict or list, optional
        Where the parameters that were saved with an optimizer are written to, as by `Optimizer.load`.

    Returns
    -------
    Optimizer or MultiLayerNet
        Of the class of this package that the file names. For a class of one's own, make an object and call its method
        ``load``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, or holds anything else, or if ``params`` do not fit. Nothing is changed then.

    Notes
    -----
    Nothing that a file says is imported or executed, and it is given no more memory than a few times its size. The
    checksum finds damage, not malice.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> params, grads = {"w": np.ones(2)}, {"w": np.array([1.0, -1.0])}
    >>> opt = fo.Adam(lr=0.5)
    >>> opt.update(params, grads)
    >>> params_of_tomorrow = {"w": np.zeros(2)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     opt.save(f"{folder}/night.safetensors", params)
    ...     opt = fo.load(f"{folder}/night.safetensors", params_of_tomorrow)
    >>> opt.iter, opt.lr, opt.m["w"], params_of_tomorrow["w"].round(4)
    (1, 0.5, array([ 0.1, -0.1]), array([0.5, 1.5]))
    """
    from fastoptim import network, optimizers  # They import this module.

    record = read(path)
    package, _, name = str(record.get("class")).rpartition(".")
    if package == "fastoptim" and name in network.__all__:
        if params is not None:
            raise ValueError(f"{path} holds a network, which has parameters of its own: load it without params")
        return _network(record)
    if package != "fastoptim" or name not in FAMILY:
        raise ValueError(f"{path} holds a {name}, which is no class of fastoptim: make one and call its method load")
    optimizer: Optimizer = getattr(optimizers, name)()
    restore_optimizer(optimizer, record, params)
    return optimizer


def optimizer_record(optimizer: Optimizer, params: Any) -> Record:
    """Return what an optimizer holds, and the parameters if any are given; the arrays are no copies."""
    return {
        "format": FORMAT,
        "class": _class_name(optimizer),
        "iter": int(optimizer.iter),
        "hyperparameters": _hyperparameters(optimizer),
        "state": optimizer._state,
        "params": None if params is None else {entry.key: entry.p for entry in _entries(params)},
    }


def restore_optimizer(optimizer: Optimizer, record: Record, params: Any) -> None:
    """Put a record into an optimizer, and its parameters into those given; or raise `ValueError` and change nothing."""
    _check_class(record, optimizer, "iter", "hyperparameters", "state", "params")
    steps, hyperparameters, saved = record["iter"], record["hyperparameters"], record["params"]
    if type(steps) is not int or steps < 0:
        raise ValueError(f"`iter` of a checkpoint is the number of updates, not {steps!r}")
    hyperparameters = _checked_hyperparameters(hyperparameters, optimizer)
    state = _state(record["state"], optimizer.slots, optimizer._state)
    if saved is None and params is not None:
        raise ValueError("the checkpoint was saved without parameters: load it without params")
    if saved is not None and params is None:
        raise ValueError("the checkpoint was saved with parameters: pass those that they are to be written to")
    entries = _entries(params)
    if params is not None:
        _check_fit("params", saved, {entry.key: entry.p for entry in entries})
    from fastoptim.optimizer import Optimizer  # It imports this module.

    # A hyperparameter that its class refuses is refused by a copy.
    restored = copy.copy(optimizer)
    for name, value in hyperparameters.items():
        try:
            setattr(restored, name, value)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"the checkpoint has the hyperparameter {name}={value!r}: {error}") from error
    restored._state = state
    restored.iter = steps
    # Arrays cannot refuse their numbers, but what holds plain numbers may be no dict.
    for entry in sorted(entries, key=lambda entry: entry.is_array):
        if entry.is_array:
            np.copyto(entry.p, saved[entry.key])
        else:
            params[entry.key] = type(entry.value)(saved[entry.key])
    vars(optimizer).update(Optimizer.__getstate__(restored))


def _entries(params: Any) -> list[Entry]:
    if params is None:
        return []
    if not isinstance(params, Mapping | list | tuple):
        hint = ": pass its params" if hasattr(params, "params") else ""
        raise TypeError(f"params must be a dict or a list of arrays, not a {type(params).__name__}{hint}")
    return checked(params, params)


def network_record(net: MultiLayerNet) -> Record:
    """Return what a network holds; the arrays are no copies."""
    return {
        "format": FORMAT,
        "class": _class_name(net),
        "hyperparameters": {
            "input_size": int(net.input_size),
            "hidden_size_list": [int(size) for size in net.hidden_size_list],
            "output_size": int(net.output_size),
            "activation": net.activation,
            "weight_decay_lambda": net.weight_decay_lambda,
            "dtype": net.dtype.name,
        },
        "params": net.params,
    }


def restore_network(net: MultiLayerNet, record: Record) -> None:
    """Put a record into a network of the same architecture; or raise `ValueError` and change nothing."""
    _check_class(record, net, "hyperparameters", "params")
    saved, own = record["hyperparameters"], network_record(net)["hyperparameters"]
    anything = {"weight_decay_lambda": None}
    if not isinstance(saved, dict) or saved | anything != own | anything:
        raise ValueError(f"the checkpoint is of a network with {saved}, not with {own}")
    if not isinstance(saved.get("weight_decay_lambda"), Number):
        raise ValueError(f"the checkpoint lacks a number as weight_decay_lambda: {saved}")
    _check_fit("params", record["params"], net.params)
    net.weight_decay_lambda = saved["weight_decay_lambda"]
    net.params.update(record["params"])


def _network(record: Record) -> MultiLayerNet:
    from fastoptim.network import MultiLayerNet

    try:
        arguments = record["hyperparameters"]
        sizes = [arguments["input_size"], *arguments["hidden_size_list"], arguments["output_size"]]
        # A file cannot ask for the memory of more numbers than it holds.
        n_params = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
        if n_params != sum(array.size for array in record["params"].values()):
            raise ValueError(f"the parameters are not those of a network with the sizes {sizes}")
        net = MultiLayerNet(**arguments, weight_init_std=0.0, seed=0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the checkpoint holds no network: {error}") from error
    restore_network(net, record)
    return net


def _class_name(obj: object) -> str:
    """Return the name of a class, such that one's own ``Adam`` is not taken for this package's."""
    cls = type(obj)
    return f"fastoptim.{cls.__name__}" if cls.__module__.startswith("fastoptim.") else cls.__name__


def _hyperparameters(optimizer: Optimizer) -> dict[str, Any]:
    public = {name: value for name, value in vars(optimizer).items() if not name.startswith("_") and name != "iter"}
    # An array of no dimensions is taken for the number in it.
    numbers = {name: value[()] for name, value in public.items() if isinstance(value, np.ndarray)}
    return {name: value for name, value in (public | numbers).items() if isinstance(value, _PLAIN)}


def _check_class(record: Record, obj: object, *items: str) -> None:
    if not isinstance(record, Mapping) or not {"format", "class"} <= record.keys():
        raise ValueError("this is no state_dict of fastoptim")
    if record["format"] != FORMAT:
        raise ValueError(f"the state_dict is of format {record['format']!r}, this version of fastoptim takes {FORMAT}")
    if record["class"] != _class_name(obj):
        raise ValueError(f"the checkpoint is of a {record['class']}, not of a {_class_name(obj)}")
    if record.keys() != {"format", "class", *items}:
        raise ValueError(f"the checkpoint has the items {[*record]}, expected {['format', 'class', *items]}")


def _checked_hyperparameters(saved: Any, optimizer: Optimizer) -> dict[str, Any]:
    """Return what hyperparameters an optimizer is to have, or raise `ValueError`."""
    from fastoptim.optimizer import Optimizer  # It imports this module.

    cls, own = type(optimizer), _hyperparameters(optimizer)
    if not isinstance(saved, Mapping):
        raise ValueError(f"the hyperparameters of a checkpoint are a dict, not {saved!r}")
    # What a class says of all its objects, an object need not say, neither the one that was saved nor this one.
    names = [name for name in saved.keys() | own.keys() if not name.startswith("_") and not hasattr(Optimizer, name)]
    defaults = {name: getattr(cls, name) for name in names if isinstance(getattr(cls, name, cls), _PLAIN)}
    if not own.keys() <= saved.keys() | defaults.keys():
        raise ValueError(f"the checkpoint has the hyperparameters {saved}, expected {', '.join(own) or 'none'}")
    for name, value in saved.items():
        here = own.get(name, defaults.get(name))
        # What a user added to an object may be added again, but nothing else that its class defines.
        is_known = name in own or name in defaults or not (name.startswith("_") or hasattr(cls, name))
        # None may stand for anything, but text is never a number.
        fits = None in (value, here) or isinstance(value, str) == isinstance(here, str)
        if not (is_known and fits and isinstance(value, _PLAIN)):
            raise ValueError(f"the checkpoint has the hyperparameter {name}={value!r}, here it is {here!r}")
    if type(saved.get("skipped")) is not int or saved["skipped"] < 0:
        raise ValueError(f"`skipped` of a checkpoint is a number of updates, not {saved.get('skipped')!r}")
    return {name: defaults[name] for name in own.keys() - saved.keys()} | dict(saved)


def _state(saved: Any, slots: tuple[str, ...], own: State | None) -> State | None:
    """Return a new state with the numbers of one that was saved."""
    if saved is None:
        return None
    if not isinstance(saved, Mapping) or saved.keys() != set(slots):
        found = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else repr(saved)
        raise ValueError(f"the checkpoint has the state {found}, expected {', '.join(slots) or 'none'}")
    if not slots:
        return {}
    first = saved[slots[0]]
    for slot in slots:
        _check_fit(f"state {slot!r}", saved[slot], first if own is None else own[slot])
    layout = Layout.of(first.items())
    state = {slot: FlatDict.zeros(layout) for slot in slots}
    for slot in slots:
        state[slot].update(saved[slot])
    return state


def _check_fit(what: str, saved: Any, own: Mapping[Any, Any]) -> None:
    """Raise `ValueError` for the first key, shape or dtype in which two dicts of arrays differ."""
    if not isinstance(saved, Mapping):
        raise ValueError(f"{what} of a checkpoint is a dict of arrays, not {type(saved).__name__}")
    missing, further = [key for key in own if key not in saved], [key for key in saved if key not in own]
    if missing or further:
        raise ValueError(f"{what} of the checkpoint lacks the keys {missing} and has {further} that are not expected")
    for key, array in saved.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            raise ValueError(f"{what} {key!r} of the checkpoint is no array of floating-point numbers")
        if (array.shape, array.dtype) != (own[key].shape, own[key].dtype):
            raise ValueError(
                f"{what} {key!r} of the checkpoint has shape {array.shape} and dtype {array.dtype}, expected "
                f"{own[key].shape} and {own[key].dtype}"
            )
