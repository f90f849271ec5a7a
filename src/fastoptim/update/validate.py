"""The parameters of one update: every error in them is found here, before anything is written."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim.arguments import is_masked
from fastoptim.conversions import how_to_convert, with_arrays
from fastoptim.dtypes import is_bfloat16, is_floating
from fastoptim.rows import Rows, sum_rows

__all__ = ["Array", "NonFiniteGradients", "Parameter", "Parameters", "validate"]

Array = NDArray[Any]

Parameters = Mapping[Any, Any] | Sequence[Any]
"""What `Optimizer.update` takes: arrays or floating-point numbers, by key or by position."""


class NonFiniteGradients(FloatingPointError):
    """Some gradients are NaN or infinite."""

    def __init__(self, keys: list[Hashable]) -> None:
        super().__init__(f"there are NaN or infinite numbers in the gradients of {', '.join(map(repr, keys))}")


@dataclass(slots=True, eq=False)
class Parameter:
    """One parameter of an update: validated, then given its state, then a kernel."""

    key: Hashable
    value: Any
    gradient: Any
    p: Array
    g: Array
    """Parameter and gradient as arrays: a copy of a number, or else a view, which no other code can alter in place."""
    is_weak: bool = False
    """Whether the gradient is a Python number that takes the dtype of what it meets, as in NumPy 2."""
    slots: list[Array] = field(default_factory=list)
    before: list[Array] = field(default_factory=list)
    """The slots as they were, if this step gives one of them another dtype."""
    kernel: Any = None
    """What updates it; None where that is the fallback."""
    kinds: tuple[type, ...] = ()
    """Types of the elements of parameter, gradient and slots, for the kernel."""
    strided: tuple[bool, bool] = (False, False)
    """Whether parameter and gradient lie in memory otherwise than the state."""
    group: int = 0
    """Which scalars are its: 0, or those of one of the optimizer's groups."""
    slot_shapes: Mapping[str, tuple[int, ...]] | None = None
    """The shapes of slots that have another than the parameter's, if it is updated as a whole; None if by a kernel."""
    is_fixed: bool = False
    """Whether the gradient overlaps what is written, so that it must stay where it is."""
    rows: Array | None = None
    """Which rows of the parameter ``g`` has, each once; None if it has all."""

    @property
    def written(self) -> list[Array]:
        """The arrays that the update writes to."""
        return [self.p, *self.slots]

    def slot_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a slot."""
        return (self.slot_shapes or {}).get(name, self.p.shape)

    @property
    def dtypes(self) -> tuple[np.dtype[Any], ...]:
        """The dtypes of parameter, gradient and slots."""
        return self.p.dtype, self.g.dtype, *(slot.dtype for slot in self.slots)


def validate(params: Any, grads: Any, frozen: Collection[Hashable] = ()) -> list[Parameter]:
    """Return the parameters of an update but those that are frozen.

    Raises
    ------
    IndexError, KeyError, TypeError, ValueError
        For the first that is wrong.
    """
    params, grads = with_arrays(params, grads)
    parameters = [_parameter(*triple) for triple in _triples(params, grads, frozen)]
    if isinstance(params, tuple) and not all(isinstance(each.value, np.ndarray) for each in parameters):
        raise TypeError("a tuple cannot take the new values of plain numbers; pass a list")
    return parameters


def _triples(params: Any, grads: Any, frozen: Collection[Hashable]) -> Iterator[tuple[Hashable, Any, Any]]:
    if isinstance(params, Mapping) and isinstance(grads, Mapping):
        for key, value in params.items():
            if key in frozen:
                continue
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
        triples = zip(range(len(params)), params, grads, strict=False)
        yield from (triple for triple in triples if triple[0] not in frozen)
    else:
        hint = ""
        if isinstance(params, np.ndarray):
            hint = "; for a single array w with gradient g: update([w], [g])"
        elif hasattr(params, "params"):
            hint = "; did you mean its .params?"
        elif any(isinstance(x, Iterable) and not isinstance(x, Mapping | list | tuple) for x in (params, grads)):
            hint = "; list(x) is a list of what an iterable x yields"
        raise TypeError(
            "update takes two dicts or two lists of arrays, "
            f"not params of type {type(params).__name__} with grads of type {type(grads).__name__}{hint}"
        )


def _own(value: Any, dtype: type | None = None) -> Array:
    return value.view(np.ndarray) if isinstance(value, np.ndarray) else np.asarray(value, dtype)


def _parameter(key: Hashable, value: Any, gradient: Any) -> Parameter:
    if not isinstance(value, np.ndarray | np.floating | float) or is_masked(value):
        raise TypeError(
            f"parameter {key!r} is of type {type(value).__name__}, expected a NumPy array or a floating-point number"
            f"{f'; write {value}.0' if type(value) is int else how_to_convert(value)}"
        )
    p = _own(value)
    if not is_floating(p.dtype):
        raise TypeError(
            f"parameter {key!r} is of dtype {p.dtype}, expected a floating one such as float32 or float64; "
            "convert it with .astype"
        )
    if isinstance(value, np.ndarray) and not p.flags.writeable:
        raise ValueError(f"parameter {key!r} is read-only, so it cannot be updated in place; pass a writable copy")
    if isinstance(gradient, Rows):
        rows, g = sum_rows(key, p.shape, gradient)
        return Parameter(key, value, g, p, g, rows=rows)
    is_other = is_masked(gradient) or isinstance(gradient, bool)
    if is_other or not isinstance(gradient, np.ndarray | np.number | float | int):
        raise TypeError(
            f"the gradient of {key!r} is of type {type(gradient).__name__}, expected one like its parameter"
            f"{how_to_convert(gradient)}"
        )
    is_number = isinstance(gradient, int | float) and not isinstance(gradient, np.generic)
    g = _own(gradient, np.float64 if is_number else None)
    if g.dtype.kind not in "fiu" and not is_bfloat16(g.dtype):
        raise TypeError(
            f"the gradient of {key!r} is of dtype {g.dtype}, expected a real one like {p.dtype}, its parameter's"
        )
    if g.shape != p.shape:
        raise ValueError(f"the gradient of {key!r} has shape {g.shape}, expected {p.shape}, the shape of its parameter")
    return Parameter(key, value, gradient, p, g, is_weak=is_number)
