"""State dicts as files: plain values and dicts of arrays, with a checksum; reading a file executes nothing.

A file has the format of safetensors, so that every reader of safetensors opens it: the length of the header, the
header in JSON, and the bytes of the arrays. The last array, ``sha256``, is the digest of all bytes before it. What
safetensors cannot express, such as keys that are not strings, is JSON in the metadata of the header. The library
safetensors is not used: while it writes, it holds one or two further copies of all arrays, and it has no checksum.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim._files import check_regular, replacing
from fastoptim._messages import short_errors
from fastoptim._version import __version__
from fastoptim.arguments import checked_path
from fastoptim.dtypes import bfloat16, is_bfloat16, is_floating
from fastoptim.mapped import Mapped, release

__all__ = ["StateDict", "StrPath", "check_arrays", "check_items", "copied", "format_and_class", "reading", "write"]

Array = NDArray[Any]

StrPath = str | os.PathLike[str]

StateDict = dict[str, Any]
"""Plain values and dicts of arrays: ``"params"`` is one or None, ``"state"`` is None or has one for each slot."""

FORMAT = 1
"""The version of the format, raised by each change that makes files unreadable for older versions of this package."""

_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("f2"), "F32": np.dtype("f4"), "F64": np.dtype("f8")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_BFLOAT16 = "BF16"
_INTEGERS = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_SCALARS: dict[str, type[np.generic]] = {
    f"numpy.{name}": np.dtype(name).type for name in ("bool", "float16", "float32", *_INTEGERS)
}
_DIGEST_SIZE = hashlib.sha256().digest_size
_PIECE = 1 << 18
"""Elements that are copied at a time while a file is written."""
_BEGIN = b'{"__metadata__": {"fastoptim"'


def _largest_header(size: int) -> int:
    """Return the largest length of a header in a file of some size.

    JSON may take thirty times its length when it is read, so the header may be a sixteenth of the file, or 1 MiB, for
    thousands of small arrays; and no reader of safetensors takes more than 100 MB.
    """
    return min(100_000_000, (1 << 20) + size // 16)


def format_and_class(obj: object) -> StateDict:
    """Return the items that begin the state dict of an object.

    The package qualifies the name of its own classes, so that a user's class ``Adam`` is not mistaken for `Adam`.
    """
    cls = type(obj)
    is_own = cls.__module__.startswith("fastoptim.")
    return {"format": FORMAT, "class": f"fastoptim.{cls.__name__}" if is_own else cls.__name__}


def check_items(state_dict: Any, obj: object, *items: str) -> None:
    """Raise `ValueError` if a state dict has another format, class or set of items than that of an object."""
    expected = format_and_class(obj)
    if not isinstance(state_dict, Mapping) or not expected.keys() <= state_dict.keys():
        raise ValueError("this is not a state dict of fastoptim, which has a 'format' and a 'class'")
    if state_dict["format"] != FORMAT:
        raise ValueError(f"the state dict has format {state_dict['format']!r}, expected {FORMAT}")
    if state_dict["class"] != expected["class"]:
        raise ValueError(f"this is a checkpoint of a {state_dict['class']}, not of a {expected['class']}")
    if state_dict.keys() - {"not_saved"} != {*expected, *items}:
        raise ValueError(f"the checkpoint has the items {[*state_dict]}, expected {[*expected, *items]}")


def check_arrays(what: str, saved: Any, own: Mapping[Any, Array], *, any_dtype: bool = False) -> None:
    """Raise `ValueError` for the first key, shape or dtype in which saved arrays differ from an object's own."""
    if not isinstance(saved, Mapping):
        raise ValueError(f"{what} of a checkpoint must be a dict of arrays, not {type(saved).__name__}")
    missing, further = [key for key in own if key not in saved], [key for key in saved if key not in own]
    if missing or further:
        parts = [f"{verb} the keys {keys}" for verb, keys in (("lacks", missing), ("has in addition", further)) if keys]
        raise ValueError(f"{what} of the checkpoint {' and '.join(parts)}")
    for key, array in saved.items():
        if not isinstance(array, np.ndarray) or not is_floating(array.dtype):
            raise ValueError(f"{what} {key!r} of the checkpoint is not a floating-point array")
        dtype = array.dtype if any_dtype else own[key].dtype
        if (array.shape, array.dtype) != (own[key].shape, dtype):
            raise ValueError(
                f"{what} {key!r} of the checkpoint has shape {array.shape} and dtype {array.dtype}, expected "
                f"{own[key].shape} and {dtype}"
            )


def copied(state_dict: StateDict) -> StateDict:
    """Copy the arrays of a state dict, each in its memory order."""
    return _map_arrays(state_dict, lambda _, arrays: {key: array.copy("K") for key, array in arrays.items()})


def write(path: StrPath, state_dict: StateDict) -> None:
    """Write a state dict to a file, which replaces an older one in one step.

    Raises
    ------
    OSError
        If the file cannot be written; the older one is unchanged.
    TypeError
        If the dtype of an array is not float16, bfloat16, float32 or float64, or if a key or value cannot be written
        as JSON.
    ValueError
        If the arrays are so many and so small that the header would be too long to be read.
    """
    tensors: dict[str, Array] = {}

    def list_arrays(group: str, arrays: Mapping[Any, Array]) -> list[Any]:
        for key, array in arrays.items():
            if _dtype_name(array.dtype) is None:
                raise TypeError(
                    f"{group} {key!r} is of dtype {array.dtype}; a file takes {', '.join(map(str, _NAMES))} and "
                    "bfloat16, whose bits mean the same on every machine"
                )
            if not _survives(key):
                raise TypeError(f"{group} {key!r}: keys in a file must be strings, numbers, None or tuples of these")
            tensors[_name(group, key)] = array
        return [[key, _axes(array)] for key, array in arrays.items()]

    metadata = _map_arrays(state_dict, list_arrays)
    header: dict[str, Any] = {"__metadata__": {"fastoptim": _dumps(metadata)}}
    offset = 0
    for name, array in tensors.items():
        kind, stop = _dtype_name(array.dtype), offset + array.nbytes
        entry = {"dtype": kind, "shape": array.shape, "data_offsets": [offset, stop]}
        header[name] = entry
        offset += array.nbytes
    header["sha256"] = {"dtype": "U8", "shape": [_DIGEST_SIZE], "data_offsets": [offset, offset + _DIGEST_SIZE]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > (limit := _largest_header(offset)):
        raise ValueError(
            f"{len(tensors):,} arrays in {offset:,} bytes need a header of {len(text):,} bytes, but a file of this "
            f"size may have one of {limit:,}: use fewer, larger arrays"
        )
    digest = hashlib.sha256()
    with replacing(checked_path("path", path)) as stream:
        for piece in chain([len(text).to_bytes(8, "little"), text], _pieces(tensors.values())):
            digest.update(piece)
            stream.write(piece)
        stream.write(digest.digest())


def _dtype_name(dtype: np.dtype[Any]) -> str | None:
    return _BFLOAT16 if is_bfloat16(dtype) else _NAMES.get(dtype)


def _pieces(arrays: Iterable[Array]) -> Iterator[bytes]:
    """Yield the bytes of arrays as copies: another thread may alter an array between its digest and its writing."""
    for array in arrays:
        numbers = np.ravel(array)
        if is_bfloat16(array.dtype):
            numbers = numbers.view(np.uint16)
        numbers = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
        for start in range(0, numbers.size, _PIECE):
            yield numbers[start : start + _PIECE].tobytes()
        release(array)


@contextmanager
def reading(path: StrPath, *, is_mapped: bool = False) -> Iterator[StateDict]:
    """Read a state dict from a file, to be restored in the block; its arrays are read-only.

    It takes time and memory proportional to the size of the file, or little memory if the file is mapped in place of
    being read. Messages of all errors are one short line.

    Raises
    ------
    OSError
        If the file cannot be read, is not a regular file or does not fit into memory.
    ValueError
        If it is not a file that `write` wrote, or if it is damaged.
    """
    with short_errors():
        yield _read(checked_path("path", path), is_mapped)


def _read(path: Path, is_mapped: bool) -> StateDict:
    check_regular(path)
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(8 + len(_BEGIN))
        stream.seek(0)
        # Check the first bytes before reading the whole file, which may be huge.
        fits = head.endswith(_BEGIN) and int.from_bytes(head[:8], "little") <= _largest_header(size)
        data: Any = b""
        try:
            if fits:
                data = Mapped(stream.fileno(), size, access=mmap.ACCESS_READ) if is_mapped else stream.read(size)
        except MemoryError:
            raise OSError(errno.ENOMEM, f"its {size:,} bytes do not fit into memory", str(path)) from None
    if _digest(memoryview(data)[:-_DIGEST_SIZE]) != data[-_DIGEST_SIZE:]:
        raise ValueError(f"{path} is damaged, or not a checkpoint of fastoptim: its checksum is wrong")
    try:
        return _parse(memoryview(data)[:-_DIGEST_SIZE])
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # The checksum is right, so the file was forged or written by a later version.
        raise ValueError(f"{path} is not a checkpoint that fastoptim {__version__} can read: {error}") from error


def _digest(data: memoryview) -> bytes:
    digest = hashlib.sha256()
    for start in range(0, len(data), 1 << 24):
        piece = data[start : start + (1 << 24)]
        digest.update(piece)
        release(np.frombuffer(piece, np.uint8))
    return digest.digest()


def _parse(data: memoryview) -> StateDict:
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:start]))
    metadata = _loads(header.pop("__metadata__")["fastoptim"])
    if metadata["format"] != FORMAT:
        raise ValueError(f"it has format {metadata['format']}, expected {FORMAT}")
    del header["sha256"]
    tensors = {}
    for name, entry in header.items():
        # NumPy has no other byte order of bfloat16, so its bits are read as integers.
        is_low = entry["dtype"] == _BFLOAT16
        dtype = np.dtype(np.uint16) if is_low else _DTYPES[entry["dtype"]]
        # NumPy checks that the array lies in the file, so a forged shape cannot allocate memory.
        numbers = np.ndarray(entry["shape"], dtype.newbyteorder("<"), data, start)
        array = numbers.astype(dtype, copy=False)
        tensors[name] = array.view(bfloat16()) if is_low else array
        start += numbers.nbytes

    def arrays(group: str, entries: list[Any]) -> dict[Hashable, Array]:
        # Each array is taken once: a name that is repeated would be copied again and again.
        return {_key(key): _to_axes(tensors.pop(_name(group, key)), axes) for key, axes in entries}

    state_dict = _map_arrays(metadata, arrays)
    if tensors or start != len(data):
        raise ValueError("it has arrays or bytes that belong to nothing")
    return state_dict


def _map_arrays(state_dict: StateDict, convert: Callable[[str, Any], Any]) -> StateDict:
    """Apply a function to the name and value of each dict of arrays in a state dict."""
    result = dict(state_dict)
    if state_dict.get("params") is not None:
        result["params"] = convert("params", state_dict["params"])
    if state_dict.get("state") is not None:
        result["state"] = {slot: convert(f"state.{slot}", arrays) for slot, arrays in state_dict["state"].items()}
    return result


def _axes(array: Array) -> list[int]:
    """Return the axes of an array by decreasing stride."""
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))


def _to_axes(array: Array, axes: list[int]) -> Array:
    """Reorder the memory of a C-ordered array so that `_axes` returns the axes given."""
    if sorted(axes) != [*range(array.ndim)]:
        raise ValueError(f"{axes} are not the axes of an array of shape {array.shape}")
    if axes == sorted(axes):
        return array
    return array.transpose(axes).copy().transpose(np.argsort(axes))


def _name(group: str, key: Any) -> str:
    """Return the name of an array in the file, such as ``state.m["W1"]``."""
    return f"{group}[{_dumps(key)}]"


def _survives(key: Hashable) -> bool:
    """Return whether a key survives writing and reading."""
    try:
        return bool(_key(_loads(_dumps(key))) == key)
    except TypeError:
        return False


def _key(key: Any) -> Hashable:
    """Turn the lists that JSON makes of tuples back into tuples."""
    return tuple(map(_key, key)) if isinstance(key, list) else key


def _dumps(value: Any) -> str:
    return json.dumps(value, default=_encode)


def _loads(text: str) -> Any:
    return json.loads(text, object_hook=_decode)


def _encode(value: Any) -> dict[str, Any]:
    if type(value) not in _SCALARS.values():
        raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written to a file")
    return {f"numpy.{value.dtype.name}": value.item()}


def _decode(value: dict[str, Any]) -> Any:
    name = next(iter(value), "")
    if len(value) != 1 or name not in _SCALARS:
        return value
    if not isinstance(value[name], int | float):
        raise ValueError(f"{value[name]!r} is not a number")
    return _SCALARS[name](value[name])
