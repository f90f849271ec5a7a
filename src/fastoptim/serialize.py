"""Files of state dicts: plain values and dicts of arrays, whole or refused; reading one executes nothing.

The format is that of safetensors, which any of its readers opens: the length of a header, the header in JSON, the
numbers. The last array, ``sha256``, is the digest of all bytes before it. What safetensors has no place for, such as
keys that are no strings, stands in the header's metadata, as JSON too. The library of that name is not used, because it
holds all numbers in memory once or twice more while it writes, and checks no digest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim._files import replacing
from fastoptim._version import __version__

__all__ = ["StateDict", "StrPath", "check_arrays", "check_items", "copied", "format_and_class", "read", "write"]

Array = NDArray[Any]

StrPath = str | os.PathLike[str]

StateDict = dict[str, Any]
"""What is saved: plain values, and dicts of arrays: one, or None, as ``"params"``, and one a slot as ``"state"``."""

FORMAT = 1
"""Counts up with each change after which older versions could not read what is written."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_INTEGERS = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_SCALARS: dict[str, type[np.generic]] = {
    f"numpy.{name}": np.dtype(name).type for name in ("bool", "float16", "float32", *_INTEGERS)
}
_DIGEST = hashlib.sha256().digest_size
_BEGIN = b'{"__metadata__": {"fastoptim"'


def format_and_class(obj: object) -> StateDict:
    """Return the first items of the state dict of an object.

    The name of the class has the package before it, so that a user's ``Adam`` is not taken for this package's.
    """
    cls = type(obj)
    is_own = cls.__module__.startswith("fastoptim.")
    return {"format": FORMAT, "class": f"fastoptim.{cls.__name__}" if is_own else cls.__name__}


def check_items(state_dict: Any, obj: object, *items: str) -> None:
    """Raise `ValueError` unless a state dict has the format, the class and the items of that of an object."""
    expected = format_and_class(obj)
    if not isinstance(state_dict, Mapping) or not expected.keys() <= state_dict.keys():
        raise ValueError("this is not a state dict of fastoptim, which has a 'format' and a 'class'")
    if state_dict["format"] != FORMAT:
        raise ValueError(f"the state dict has format {state_dict['format']!r}, expected {FORMAT}")
    if state_dict["class"] != expected["class"]:
        raise ValueError(f"this is a checkpoint of a {state_dict['class']}, not of a {expected['class']}")
    if state_dict.keys() != {*expected, *items}:
        raise ValueError(f"the checkpoint has the items {[*state_dict]}, expected {[*expected, *items]}")


def check_arrays(what: str, saved: Any, own: Mapping[Any, Array], *, any_dtype: bool = False) -> None:
    """Raise `ValueError` for the first key, shape or dtype in which two dicts of arrays differ."""
    if not isinstance(saved, Mapping):
        raise ValueError(f"{what} of a checkpoint must be a dict of arrays, not {type(saved).__name__}")
    missing, further = [key for key in own if key not in saved], [key for key in saved if key not in own]
    if missing or further:
        raise ValueError(f"{what} of the checkpoint lacks the keys {missing} and has {further} that are not expected")
    for key, array in saved.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            raise ValueError(f"{what} {key!r} of the checkpoint is not a floating-point array")
        dtype = array.dtype if any_dtype else own[key].dtype
        if (array.shape, array.dtype) != (own[key].shape, dtype):
            raise ValueError(
                f"{what} {key!r} of the checkpoint has shape {array.shape} and dtype {array.dtype}, expected "
                f"{own[key].shape} and {dtype}"
            )


def copied(state_dict: StateDict) -> StateDict:
    """Return a state dict with copies of the arrays, in the same memory order."""
    return _with_arrays(state_dict, lambda _, arrays: {key: array.copy("K") for key, array in arrays.items()})


def write(path: StrPath, state_dict: StateDict) -> None:
    """Replace a file by one that holds a state dict.

    Raises
    ------
    OSError
        If the file cannot be written; the old one is as it was.
    TypeError
        If an array is of another dtype than float16, float32 and float64, or a key or a value has no form in JSON.
    """
    tensors: dict[str, Array] = {}

    def listed(group: str, arrays: Mapping[Any, Array]) -> list[Any]:
        for key, array in arrays.items():
            if array.dtype not in _NAMES:
                raise TypeError(
                    f"{group} {key!r} is of dtype {array.dtype}; a file takes {', '.join(map(str, _NAMES))}, whose "
                    "bits mean the same on every machine"
                )
            if not _is_kept(key):
                raise TypeError(f"{group} {key!r}: keys in a file must be strings, numbers, None or tuples of these")
            tensors[_name(group, key)] = array
        return [[key, _axes(array)] for key, array in arrays.items()]

    about = _with_arrays(state_dict, listed)
    header: dict[str, Any] = {"__metadata__": {"fastoptim": _dumps(about)}}
    offset = 0
    for name, array in tensors.items():
        entry = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        header[name] = entry
        offset += array.nbytes
    header["sha256"] = {"dtype": "U8", "shape": [_DIGEST], "data_offsets": [offset, offset + _DIGEST]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    numbers: Iterator[Any] = (
        np.ravel(array).astype(array.dtype.newbyteorder("<"), copy=False) for array in tensors.values()
    )
    with replacing(Path(path)) as stream:
        for piece in chain([len(text).to_bytes(8, "little"), text], numbers):
            digest.update(piece)
            stream.write(piece)
        stream.write(digest.digest())


def read(path: StrPath) -> StateDict:
    """Return the state dict that a file holds; its arrays are read-only.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not what `write` has written.
    """
    with Path(path).open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(8 + len(_BEGIN))
        stream.seek(0)
        # A film that somebody took for a checkpoint is not read to its end.
        data = stream.read(size) if head.endswith(_BEGIN) else b""
    if hashlib.sha256(memoryview(data)[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise ValueError(f"{path} is damaged, or not a checkpoint of fastoptim: its checksum is wrong")
    try:
        return _parsed(memoryview(data)[:-_DIGEST])
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Only a file that was made up, or a later version's, comes this far.
        raise ValueError(f"{path} is not a checkpoint that fastoptim {__version__} can read: {error}") from error


def _parsed(data: memoryview) -> StateDict:
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:start]))
    about = _loads(header.pop("__metadata__")["fastoptim"])
    if about["format"] != FORMAT:
        raise ValueError(f"it has format {about['format']}, expected {FORMAT}")
    del header["sha256"]
    tensors = {}
    for name, entry in header.items():
        if min(entry["shape"], default=0) < 0:
            raise ValueError(f"{name} has shape {entry['shape']}")
        dtype = _DTYPES[entry["dtype"]]
        stop = start + math.prod(entry["shape"]) * dtype.itemsize
        # No array is larger than the bytes that are there for it alone.
        numbers = np.frombuffer(data[start:stop], dtype.newbyteorder("<"))
        tensors[name] = numbers.reshape(entry["shape"]).astype(dtype, copy=False)
        start = stop

    def arrays(group: str, entries: list[Any]) -> dict[Hashable, Array]:
        return {_key(key): _laid_out(tensors[_name(group, key)], axes) for key, axes in entries}

    return _with_arrays(about, arrays)


def _with_arrays(state_dict: StateDict, convert: Callable[[str, Any], Any]) -> StateDict:
    """Return a state dict with each of its dicts of arrays converted, by its name."""
    result = dict(state_dict)
    if state_dict.get("params") is not None:
        result["params"] = convert("params", state_dict["params"])
    if state_dict.get("state") is not None:
        result["state"] = {slot: convert(f"state.{slot}", arrays) for slot, arrays in state_dict["state"].items()}
    return result


def _axes(array: Array) -> list[int]:
    """Return the axes of an array, that of the largest steps in memory first."""
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))


def _laid_out(array: Array, axes: list[int]) -> Array:
    """Return an array in C order so that `_axes` of it are these."""
    if axes == sorted(axes):
        return array
    return array.transpose(axes).copy().transpose(np.argsort(axes))


def _name(group: str, key: Any) -> str:
    """Return the name that safetensors knows an array by: ``state.m["W1"]``."""
    return f"{group}[{_dumps(key)}]"


def _is_kept(key: Hashable) -> bool:
    """Tell whether a key is the same after it was written and read."""
    try:
        return bool(_key(_loads(_dumps(key))) == key)
    except TypeError:
        return False


def _key(key: Any) -> Hashable:
    """Return what was a key before JSON made lists of tuples."""
    return tuple(map(_key, key)) if isinstance(key, list) else key


def _dumps(value: Any) -> str:
    return json.dumps(value, default=_encoded)


def _loads(text: str) -> Any:
    return json.loads(text, object_hook=_decoded)


def _encoded(value: Any) -> dict[str, Any]:
    if type(value) not in _SCALARS.values():
        raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written to a file")
    return {f"numpy.{value.dtype.name}": value.item()}


def _decoded(value: dict[str, Any]) -> Any:
    name = next(iter(value), "")
    return _SCALARS[name](value[name]) if len(value) == 1 and name in _SCALARS else value
