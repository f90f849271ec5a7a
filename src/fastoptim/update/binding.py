"""Get the arrays of the next step out of its containers, if these are like the ones that a plan was made for."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from fastoptim.parameters import FlatDict
from fastoptim.update.kerneltask import Arrays, KernelTask
from fastoptim.update.numbers import Numbers

__all__ = ["Bind", "binder", "flat_binder", "with_keys"]

Bind = Callable[[Any, Any], Arrays | None]
"""``bind(params, grads)`` returns the arrays, or None if they do not fit."""


def flat_binder(
    params: FlatDict, grads: FlatDict, kernels: KernelTask, bind_rows: Callable[[Arrays], bool] | None = None
) -> Bind:
    """Return what gets the buffers of flat dicts, and binds them by `KernelTask.bind_rows` or another function."""
    # A reference to the dict would keep its memory alive until the next update.
    expected: Any = weakref.ref(params)
    first, second = params.layout, grads.layout

    def bind(params: Any, grads: Any) -> Arrays | None:
        nonlocal bind_rows
        if params is not expected():
            return None
        try:
            layout = grads.layout
            if layout is not first and layout is not second and layout not in (first, second):
                return None
            arrays = (params._flat,), (grads._flat,)
        except AttributeError:
            return None
        if bind_rows is None:
            bind_rows = kernels.bind_rows
        return arrays if bind_rows(arrays) else None

    return bind


def binder(
    params: Any,
    grads: Any,
    kernels: KernelTask,
    bind_rows: Callable[[Arrays], bool] | None = None,
    numbers: Numbers | None = None,
) -> Bind:
    """Return what gets the arrays of other containers, or numbers, which are told in which container they are."""
    n_params, of_params, of_grads = len(params), type(params), type(grads)
    get_params, get_grads = _items_getter(kernels.keys, of_params), _items_getter(kernels.keys, of_grads)

    def bind(params: Any, grads: Any) -> Arrays | None:
        nonlocal bind_rows
        # The plan fits containers of these types; an array can be asked for keys as well.
        if type(params) is not of_params or type(grads) is not of_grads:
            return None
        try:
            if len(params) != n_params:
                return None
            arrays = get_params(params), get_grads(grads)
        except (IndexError, KeyError, TypeError):
            return None
        if bind_rows is None:
            bind_rows = kernels.bind_rows
        if not bind_rows(arrays):
            return None
        if numbers is not None:
            numbers.params = params
        return arrays

    return bind


def with_keys(bind: Bind, keys: list[Any]) -> Bind:
    """Return a function that binds parameters only if they have these keys in this order.

    Of parameters that overlap, each must see what those before it wrote. And where some are frozen, a plan does not ask
    for all keys.
    """

    def bind_if_equal(params: Any, grads: Any) -> Arrays | None:
        arrays = bind(params, grads)
        return arrays if arrays is not None and list(params) == keys else None

    return bind_if_equal


def _items_getter(keys: Sequence[Any], container: type) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that gets the values of some keys from containers of a type, as a tuple."""
    if len(keys) > 1 and not hasattr(container, "__missing__"):
        return operator.itemgetter(*keys)

    def get(values: Any) -> tuple[Any, ...]:
        if hasattr(container, "__missing__") and not all(key in values for key in keys):
            # A defaultdict would add the key.
            raise KeyError
        return tuple([values[key] for key in keys])

    if len(keys) == 1 and not hasattr(container, "__missing__"):
        only = keys[0]
        return lambda values: (values[only],)
    return get
