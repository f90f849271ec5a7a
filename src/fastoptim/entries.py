"""The parameters of one update: all that can be wrong with them is found here, before anything is written."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim.parameters import FlatDict

__all__ = ["KERNEL_TYPES", "Entry", "NonFiniteGradients", "State", "attach", "check_finite", "checked"]

Array = NDArray[Any]

State = dict[str, FlatDict]
"""For each slot, an array for each parameter; all slots have one layout."""

KERNEL_TYPES: dict[np.dtype[Any], type] = {np.dtype(T): T for T in (np.float32, np.float64)}
"""The dtypes that kernels exist for."""


@dataclass(slots=True, eq=False)
class Entry:
    """One parameter that was checked: as the user holds it, and as arrays."""

    key: Hashable
    value: Any
    gradient: Any
    p: Array
    g: Array
    slots: list[Array] = field(default_factory=list)
    is_aliased: bool = False
    """Whether the gradient shares memory with what is written to, so that each line of a rule changes it as well."""

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype to compile for, or None where no kernel does what NumPy does: for numbers and mixed dtypes."""
        dtype = self.p.dtype
        uniform = all(array.dtype == dtype for array in (self.g, *self.slots))
        return dtype if uniform and dtype in KERNEL_TYPES and self.is_array else None

    @property
    def is_array(self) -> bool:
        """Whether the parameter is updated in place; a number is replaced by a new one."""
        return isinstance(self.value, np.ndarray)


def _triples(params: Any, grads: Any) -> Iterator[tuple[Hashable, Any, Any]]:
    if isinstance(params, Mapping) and isinstance(grads, Mapping):
        for key, value in params.items():
            try:
                gradient = grads[key]
            except KeyError:
                raise KeyError(f"grads has no gradient of {key!r}; every key of params needs one") from None
            yield key, value, gradient
    elif isinstance(params, list | tuple) and isinstance(grads, list | tuple):
        if len(grads) < len(params):
            raise KeyError(
                f"grads has no gradient of number {len(grads)}; the {len(params)} arrays of params need one each"
            )
        yield from zip(range(len(params)), params, grads, strict=False)
    else:
        raise TypeError(
            "update takes two dicts or two lists of arrays, "
            f"not params of type {type(params).__name__} with grads of type {type(grads).__name__}"
        )


def _entry(key: Hashable, value: Any, gradient: Any) -> Entry:
    if not isinstance(value, np.ndarray | np.floating | float) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"parameter {key!r} is of type {type(value).__name__}, expected a NumPy array or a floating-point number"
        )
    p = np.asarray(value)
    if p.dtype.kind != "f":
        raise TypeError(
            f"parameter {key!r} is of dtype {p.dtype}, expected a floating one such as float32 or float64; "
            "convert it with .astype"
        )
    if isinstance(value, np.ndarray) and not p.flags.writeable:
        raise ValueError(f"parameter {key!r} is read-only, so it cannot be updated in place; pass a writable copy")
    if not isinstance(gradient, np.ndarray | np.number | float | int) or isinstance(gradient, np.ma.MaskedArray | bool):
        raise TypeError(
            f"the gradient of {key!r} is of type {type(gradient).__name__}, expected one like its parameter"
        )
    g = np.asarray(gradient)
    if g.dtype.kind not in "fiu":
        raise TypeError(
            f"the gradient of {key!r} is of dtype {g.dtype}, expected a real one like {p.dtype}, its parameter's"
        )
    if g.shape != p.shape:
        raise ValueError(f"the gradient of {key!r} has shape {g.shape}, expected {p.shape}, the shape of its parameter")
    return Entry(key, value, gradient, p, g)


def checked(params: Any, grads: Any) -> list[Entry]:
    """Return an entry for each parameter; raise `KeyError`, `TypeError` or `ValueError` for the first that is wrong."""
    entries = [_entry(*triple) for triple in _triples(params, grads)]
    if isinstance(params, tuple) and not all(entry.is_array for entry in entries):
        raise TypeError("a tuple cannot take the new values of plain numbers; pass a list")
    return entries


class NonFiniteGradients(FloatingPointError):
    """Some gradients are NaN or infinite."""


def check_finite(entries: list[Entry]) -> None:
    """Raise `NonFiniteGradients` if any gradient is NaN or infinite."""
    bad = [repr(entry.key) for entry in entries if not np.isfinite(entry.g).all()]
    if bad:
        raise NonFiniteGradients(f"there are NaN or infinite numbers in the gradients of {', '.join(bad)}")


def attach(entries: list[Entry], state: State) -> None:
    """Give each entry its arrays of the state, or raise `KeyError` or `ValueError` for one that has none that fit."""
    for entry in entries:
        for name, arrays in state.items():
            slot = arrays.get(entry.key)
            if slot is None:
                known = ", ".join(map(repr, arrays))
                raise KeyError(
                    f"parameter {entry.key!r} was not there at the first update, so it has no state {name!r}; "
                    f"expected keys among {known}. Use another optimizer object for other parameters"
                )
            if slot.shape != entry.p.shape:
                raise ValueError(
                    f"parameter {entry.key!r} has shape {entry.p.shape}, expected {slot.shape} as in its state {name!r}"
                )
            if not slot.flags.writeable:
                raise ValueError(f"state {name!r} of {entry.key!r} is read-only, so it cannot be updated in place")
            entry.slots.append(slot)
