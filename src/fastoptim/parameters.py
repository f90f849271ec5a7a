"""Flat dicts: dicts of arrays that are views of one buffer."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastoptim.arguments import is_masked
from fastoptim.dtypes import is_floating
from fastoptim.tables import Table, shortened, size_of

__all__ = ["Field", "FlatDict", "Layout", "flatten", "table_of"]


@dataclass(frozen=True, slots=True)
class Field:
    """The place of one array in a buffer; ``offset`` and ``strides`` are in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a dict of arrays: one buffer for each dtype, without gaps, in the order of the keys."""

    fields: dict[Hashable, Field]
    sizes: dict[np.dtype[Any], int]
    """Number of elements of each buffer."""

    @classmethod
    def of(cls, arrays: Iterable[tuple[Hashable, NDArray[Any]]]) -> Self:
        """Return the layout for the shapes, dtypes and memory orders of these arrays."""
        fields: dict[Hashable, Field] = {}
        sizes: dict[np.dtype[Any], int] = {}
        for key, array in arrays:
            offset = sizes.get(array.dtype, 0)
            fields[key] = Field(array.dtype, array.shape, packed_strides(array), offset * array.itemsize)
            sizes[array.dtype] = offset + array.size
        return cls(fields, sizes)

    def packs_like(self, other: Layout) -> bool:
        """Return whether both layouts have one buffer with the same elements in the same order, of any dtype."""
        return self is other or (len(self.sizes) == len(other.sizes) == 1 and self._in_elements == other._in_elements)

    @property
    def _in_elements(self) -> list[Any]:
        return [
            (key, f.shape, *(number // f.dtype.itemsize for number in (f.offset, *f.strides)))
            for key, f in self.fields.items()
        ]


def packed_strides(array: NDArray[Any]) -> tuple[int, ...]:
    """Return the strides of an array without gaps in the same memory order; ``np.zeros_like`` chooses the same."""
    strides = [0] * array.ndim
    step = array.itemsize
    for axis in sorted(range(array.ndim), key=lambda axis: (abs(array.strides[axis]), -axis)):
        strides[axis] = step
        step *= max(array.shape[axis], 1)
    return tuple(strides)


class FlatDict(dict[Any, Any]):
    """A dict whose values are always views of one buffer; made by `flatten`.

    Assigning an array to a key copies its numbers into the buffer. Keys cannot be added or removed.

    Attributes
    ----------
    flat : ndarray
        The buffer, of shape (total number of elements,): all values in the order of the keys.
    layout : Layout
        The layout of the values in the buffer.
    """

    __slots__ = ("__weakref__", "_flat", "buffers", "layout")

    def __init__(self, layout: Layout, buffers: dict[np.dtype[Any], NDArray[Any]]) -> None:
        self.layout = layout
        # Views cannot be resized; resizing a buffer would free the memory of the values.
        self.buffers = {dtype: buffer.view() for dtype, buffer in buffers.items()}
        fields = layout.fields.items()
        if len(buffers) == 1:
            # A network makes such a dict for each gradient. The hash of a dtype takes a third as long as a view.
            ((buffer,), (self._flat,)) = buffers.values(), self.buffers.values()
            views = {key: np.ndarray(f.shape, f.dtype, buffer, f.offset, f.strides) for key, f in fields}
        else:
            views = {key: np.ndarray(f.shape, f.dtype, buffers[f.dtype], f.offset, f.strides) for key, f in fields}
        super().__init__(views)

    @classmethod
    def zeros(cls, layout: Layout) -> Self:
        """Return a flat dict of zeros."""
        return cls(layout, {dtype: np.zeros(size, dtype) for dtype, size in layout.sizes.items()})

    @property
    def flat(self) -> NDArray[Any]:
        """The buffer; assigning an array copies its numbers into it."""
        try:
            return self._flat
        except AttributeError:
            dtypes = ", ".join(map(str, self.buffers)) or "none"
            raise AttributeError(f"there is a buffer for each dtype ({dtypes}), so no single one is `flat`") from None

    @flat.setter
    def flat(self, values: Any) -> None:
        if values is not self.flat:
            if np.shape(values) != self.flat.shape:
                raise ValueError(f"`flat` has shape {self.flat.shape}, not {np.shape(values)}")
            np.copyto(self.flat, values, casting="same_kind")

    def is_as_laid_out(self) -> bool:
        """Tell whether no value was given another shape, dtype or strides in place."""
        fields = self.layout.fields
        return all(
            (a.shape, a.dtype, a.strides) == (fields[key].shape, fields[key].dtype, fields[key].strides)
            for key, a in self.items()
        )

    def __setitem__(self, key: Any, value: Any) -> None:
        self.update({key: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Copy the values of another dict into the buffer, or none of them if any does not fit.

        Raises
        ------
        KeyError
            If a key is not in this dict.
        ValueError
            If a shape differs.
        TypeError
            If an array is masked, or its dtype cannot be converted by ``"same_kind"`` casting.
        """
        arrays = _arrays(dict(*args, **kwargs))
        for key, array in arrays.items():
            if key not in self:
                raise KeyError(f"{key!r} is not in this flat dict, whose keys are fixed: {', '.join(map(repr, self))}")
            if array.shape != self[key].shape:
                raise ValueError(f"{key!r} has shape {self[key].shape}, but the value assigned to it has {array.shape}")
            if not np.can_cast(array.dtype, self[key].dtype, "same_kind"):
                raise TypeError(f"{key!r} is of dtype {self[key].dtype}, which does not take values of {array.dtype}")
        for key, array in arrays.items():
            # Copy values that share memory with the buffer before it is written: two keys may exchange their values.
            if array is not self[key] and any(np.may_share_memory(array, own) for own in self.buffers.values()):
                arrays[key] = array.copy()
        for key, array in arrays.items():
            if array is not self[key]:
                self[key][...] = array

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        self.update(other)
        return self

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key; raise `KeyError` if the dict does not have it."""
        if key not in self:
            self[key] = default
        return self[key]

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError("the keys of a flat dict are fixed; `dict(flat)` is an ordinary dict of the same arrays")

    __delitem__ = pop = popitem = clear = _refuse

    def __repr__(self) -> str:
        arrays = shortened((f"{key!r}: {a.dtype} {a.shape}" for key, a in self.items()), "...")
        return f"{type(self).__name__}({{{', '.join(arrays)}}})"

    def _repr_html_(self) -> str:
        rows = [(str(key), str(a.shape), str(a.dtype), f"{a.size:,}", size_of(a.nbytes)) for key, a in self.items()]
        n_elements, n_bytes = (sum(getattr(a, name) for a in self.values()) for name in ("size", "nbytes"))
        caption = f"{type(self).__name__}: {len(self)} arrays, {n_elements:,} elements, {size_of(n_bytes)}"
        titles = ("key", "shape", "dtype", "elements", "size")
        return Table(titles, shortened(rows, ("⋮", *[""] * 4)), 3, caption)._repr_html_()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.layout, self.buffers)


def _arrays(values: Mapping[Any, Any]) -> dict[Any, NDArray[Any]]:
    masked = [key for key, value in values.items() if is_masked(value)]
    if masked:
        raise TypeError(f"{masked[0]!r} is a masked array, and a buffer has no place for its mask; fill it first")
    return {key: np.asarray(value) for key, value in values.items()}


def table_of(dicts: Mapping[str, FlatDict], title: str) -> Table:
    """Return a table with a row for each of some flat dicts, such as the slots of an optimizer."""
    rows = []
    for name, arrays in dicts.items():
        dtypes = ", ".join(dict.fromkeys(str(a.dtype) for a in arrays.values()))
        n_elements, n_bytes = (sum(getattr(a, size) for a in arrays.values()) for size in ("size", "nbytes"))
        rows.append((name, dtypes, str(len(arrays)), f"{n_elements:,}", size_of(n_bytes)))
    return Table((title, "dtype", "arrays", "elements", "size"), rows, 2)


def flatten(params: Mapping[Any, Any], dtype: DTypeLike | None = None) -> FlatDict:
    """Copy a dict of arrays into one buffer and return the dict of its views.

    An update of a flat dict with flat gradients is one call of one kernel over contiguous memory; other arithmetic may
    use ``.flat`` in the same way.

    Parameters
    ----------
    params : mapping of arrays
        Arrays of one floating dtype.
    dtype : dtype, optional
        Floating dtype of the buffer; required if the arrays have several dtypes.

    Returns
    -------
    FlatDict
        The keys, shapes and values of ``params``, in C order, with the buffer as attribute ``flat``.

    Raises
    ------
    TypeError
        If ``params`` is not a mapping or is nested, if an array is masked, if the arrays have several dtypes and
        ``dtype`` is not given, or if the dtype is not a floating one.

    Examples
    --------
    >>> import fastoptim as fo
    >>> import numpy as np
    >>> params = fo.flatten({"W": np.ones((2, 3)), "b": np.zeros(3)})
    >>> params.flat
    array([1., 1., 1., 1., 1., 1., 0., 0., 0.])
    >>> params["b"][:] = 5
    >>> params.flat.sum()
    np.float64(21.0)
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"flatten takes a dict of arrays, not {type(params).__name__}")
    if nested := [key for key, value in params.items() if isinstance(value, Mapping)]:
        raise TypeError(f"{nested[0]!r} is a dict; fo.flatten(fo.tree(params)) is the flat dict of nested params")
    arrays = _arrays(params)
    dtypes = {array.dtype for array in arrays.values()} if dtype is None else {np.dtype(dtype)}
    if len(dtypes) > 1:
        names = ", ".join(f"{key!r}: {array.dtype}" for key, array in arrays.items())
        raise TypeError(f"one buffer holds one dtype, but here are several ({names}); choose with `dtype=`")
    for target in dtypes:
        if not is_floating(target):
            raise TypeError(f"a buffer of parameters is of a floating dtype, not {target}; choose with `dtype=`")
    target = next(iter(dtypes), np.dtype(np.float64))
    flat = FlatDict.zeros(Layout.of((key, np.empty(array.shape, target)) for key, array in arrays.items()))
    for key, array in arrays.items():
        flat[key] = array
    return flat
