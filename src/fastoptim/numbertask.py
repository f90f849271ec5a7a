"""Python floats among the parameters: kernels update copies of them, which then replace them."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import numpy as np

from fastoptim.validate import Parameter, items_getter

__all__ = ["NumberTask"]

_TYPES = (float, np.float64)


class NumberTask:
    """Replaces numbers of float64 precision by new ones of their types.

    Running the rule on Python floats gives the same bits, but takes a kernel's time for each number.

    Parameters
    ----------
    params, grads : dict or list
        Where the numbers and their gradients are.
    parameters : list of Parameter
        Those for which `takes` is true.

    Attributes
    ----------
    parameters, copies : list of Parameter
        The parameters that were given, and the same as arrays of no axes, for a kernel.

    Raises
    ------
    TypeError
        If ``params`` does not let its items be replaced.
    """

    def __init__(self, params: Any, grads: Any, parameters: list[Parameter]) -> None:
        n = len(parameters)
        self.parameters = parameters
        self._keys = [parameter.key for parameter in parameters]
        self._get_params = items_getter(self._keys, type(params))
        self._get_grads = items_getter(self._keys, type(grads))
        self._types = [type(parameter.value) for parameter in parameters]
        self._all_types = [*self._types, *(type(parameter.gradient) for parameter in parameters)]
        self._memory = np.zeros(2 * n)
        self._pack = partial(struct.Struct(f"{2 * n}d").pack_into, self._memory.data, 0)
        places = [self._memory[k : k + 1].reshape(()) for k in range(2 * n)]
        self.copies = [
            Parameter(parameter.key, p, g, p, g, parameter.slots)
            for parameter, p, g in zip(parameters, places[:n], places[n:], strict=True)
        ]
        for parameter in parameters:
            params[parameter.key] = parameter.value
        self._params = params
        self._pack(*(p.value for p in parameters), *(p.gradient for p in parameters))

    @staticmethod
    def takes(parameter: Parameter) -> bool:
        """Tell whether a parameter and its gradient are such numbers."""
        are_numbers = type(parameter.value) in _TYPES and type(parameter.gradient) in _TYPES
        return are_numbers and not parameter.before and all(slot.dtype == np.float64 for slot in parameter.slots)

    def bind(self, params: Any, grads: Any) -> bool:
        """Copy the numbers of the next step; return whether there are some of the same types as before."""
        try:
            values = *self._get_params(params), *self._get_grads(grads)
        except (IndexError, KeyError, TypeError):
            return False
        if [*map(type, values)] != self._all_types:
            return False
        self._pack(*values)
        self._params = params
        return True

    def write(self) -> None:
        """Replace the numbers by what the kernel made of their copies; to do so twice does no harm."""
        if (params := self._params) is not None:
            for key, kind, value in zip(self._keys, self._types, self._memory.tolist(), strict=False):
                params[key] = value if kind is float else kind(value)
            self.release()

    def release(self) -> None:
        """Let go of the container, which would be kept alive until the next step."""
        self._params = None
