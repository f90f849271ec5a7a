"""Arrays of other libraries: the NumPy array in their memory, or what to type where there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastoptim.dtypes import bfloat16
from fastoptim.rows import Rows
from fastoptim.trees import Places

__all__ = ["as_gradient", "as_parameter", "how_to_convert", "with_arrays"]

_CONVERSIONS = {
    "torch": "t.detach().numpy() is an array in the memory of a CPU tensor t",
    "jax": "np.array(x) is a writable copy of a JAX array x",
    "jaxlib": "np.array(x) is a writable copy of a JAX array x",
    "pandas": "x.to_numpy() is the array of a Series or DataFrame x",
    "cupy": "cupy.asnumpy(x) is a copy of a CuPy array x",
    "tensorflow": "x.numpy() is a copy of a tensor x",
}
"""How to get an array from values of other libraries, by the library's name."""

_OWN = np.ndarray, np.generic, float, int, Rows
"""What `Optimizer.update` takes as it is, or refuses."""


def _is_tensor(value: Any) -> bool:
    # Without torch there are no tensors; to import it would take seconds.
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def as_parameter(value: Any) -> Any:
    """Return the array in the memory of a CPU tensor, or the value itself if it has none that may be written to."""
    if not _is_tensor(value) or not value.is_leaf:
        return value
    try:
        return _array_of(value)
    except (RuntimeError, TypeError):
        return value


def _array_of(tensor: Any) -> Any:
    tensor, torch = (tensor.detach() if tensor.requires_grad else tensor), sys.modules["torch"]
    if tensor.dtype is torch.bfloat16:
        # NumPy knows the dtype only from ml_dtypes.
        return tensor.view(torch.int16).numpy().view(bfloat16())
    return tensor.numpy()


def as_gradient(value: Any) -> Any:
    """Return an array of the numbers of a value, in its own memory if that is possible, or else the value itself."""
    if isinstance(value, _OWN):
        return value
    try:
        return _read(value)
    except ImportError:
        raise
    except Exception:
        # `how_to_convert` repeats what the other library said.
        return value


def _read(value: Any) -> Any:
    if _is_tensor(value):
        return _array_of(value)
    if hasattr(type(value), "__array__"):
        return np.asarray(value)
    return np.from_dlpack(value) if hasattr(type(value), "__dlpack__") else value


def with_arrays(params: Any, grads: Any, *, is_update: bool = False) -> tuple[Any, Any]:
    """Return parameters and gradients with arrays in place of the values of other libraries.

    Parameters
    ----------
    params, grads : dict or list
        As given to `Optimizer.update`.
    is_update : bool
        Whether the parameters will be written to. torch counts the changes of a tensor, so that no gradient is computed
        from numbers that were replaced after the forward pass; it cannot see those that are made through an array.

    Returns
    -------
    tuple
        The same objects where all values are arrays and numbers already. What cannot be converted is left as it is.
    """
    if (converted := _converted(params, as_parameter)) is not None:
        if is_update:
            changed = [p for p in (params[key] for key in converted) if _is_tensor(p) and not p.is_inference()]
            sys.modules["torch"].autograd.graph.increment_version(changed)
        # The new numbers of an update are assigned to the container that was given.
        params = Places({key: (params, key) for key in converted}, converted)
        grads = dict(enumerate(grads)) if isinstance(grads, list | tuple) else grads
    if (converted := _converted(grads, as_gradient)) is not None:
        grads = list(converted.values()) if isinstance(grads, list | tuple) else converted
    return params, grads


def _converted(values: Any, convert: Callable[[Any], Any]) -> dict[Any, Any] | None:
    """Return a dict with all values converted, or None if none of them needs to be."""
    if not isinstance(values, Mapping | list | tuple):
        return None
    result, is_other = dict[Any, Any](), False
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        result[key] = value if isinstance(value, _OWN) else convert(value)
        is_other |= result[key] is not value
    return result if is_other else None


def how_to_convert(value: Any) -> str:
    """Return what to type in place of a value that is not taken, if that is known, as the end of a message."""
    if isinstance(value, Mapping):
        return '; fo.tree(x) is the flat view of nested dicts and lists x, with keys such as "layer1/W"'
    if isinstance(value, list | tuple):
        return "; np.array(x) is the array of a list of numbers x, and fo.tree(x) the flat view of nested lists"
    if _is_tensor(value) and (hint := _of_tensor(value)):
        return f"; {hint}"
    if (library := type(value).__module__.partition(".")[0]) in _CONVERSIONS:
        return f"; {_CONVERSIONS[library]}"
    try:
        _read(value)
    except Exception as error:
        return f"; its conversion says: {error}"
    return ""


def _of_tensor(value: Any) -> str:
    if value.device.type != "cpu":
        return f"t.detach().cpu().numpy() is a copy of a tensor t on the device {value.device}"
    if str(value.layout) == "torch.sparse_coo":
        rows = "fo.Rows(t.indices()[0].numpy(), t.values().numpy())"
        return f"with t = t.coalesce(), {rows} is the gradient of the rows that a sparse tensor t has"
    if str(value.layout) != "torch.strided":
        return f"t.to_dense() is a dense copy of a tensor t of layout {value.layout}"
    if not value.is_leaf:
        return "it is the result of an operation that torch differentiates; t.detach() shares the memory of such a t"
    return ""
