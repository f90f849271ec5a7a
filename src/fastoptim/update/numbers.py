"""Python floats and NumPy scalars: arrays of no axes stand for them in an update, and new numbers replace them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastoptim.update.validate import Array, Parameter

__all__ = ["Numbers"]


class Numbers:
    """The numbers among parameters and gradients.

    The rule could run on Python floats, with the same bits, but one kernel for all of them is faster than a call each.

    Parameters
    ----------
    params : dict or list
        Where the parameters are.
    parameters : list of Parameter
        In the order in which arrays are bound. Their numbers are exchanged for arrays of no axes, their ``p`` and
        ``g``, so that no other module meets a number.

    Attributes
    ----------
    are_floats : bool
        Whether all parameters and gradients are Python floats, which `pack` copies by one call.

    Raises
    ------
    TypeError
        If ``params`` does not let its items be replaced.
    """

    def __init__(self, params: Any, parameters: list[Parameter]) -> None:
        kinds = {type(number) for each in parameters for number in (each.value, each.gradient)}
        self.are_floats = kinds == {float}
        if self.are_floats:
            self._join(parameters)
        self._copies: list[tuple[int, int, type, Array]] = []
        self._replaced: list[tuple[Any, type, Array]] = []
        for k, parameter in enumerate(parameters):
            if not isinstance(parameter.value, np.ndarray):
                params[parameter.key] = parameter.value
                self._copies.append((0, k, type(parameter.value), parameter.p))
                self._replaced.append((parameter.key, type(parameter.value), parameter.p))
                parameter.value = parameter.p
            if not isinstance(parameter.gradient, np.ndarray):
                self._copies.append((1, k, type(parameter.gradient), parameter.g))
                parameter.gradient = parameter.g
        self._params = params if self._copies else None

    def __bool__(self) -> bool:
        return bool(self._copies)

    def _join(self, parameters: list[Parameter]) -> None:
        """Put the copies of Python floats side by side: those of all parameters, then those of all gradients."""
        n = len(parameters)
        memory = np.array([each.p for each in parameters] + [each.g for each in parameters])
        arrays = [memory[k : k + 1].reshape(()) for k in range(2 * n)]
        # A view of it is read faster than the array.
        self._memory = memory.data
        for parameter, p, g in zip(parameters, arrays[:n], arrays[n:], strict=True):
            parameter.p, parameter.g = p, g
        self._keys, self._kinds = [each.key for each in parameters], [float] * (2 * n)
        self._pack, self._unpack = struct.Struct(f"{2 * n}d").pack_into, struct.Struct(f"{n}d").unpack_from

    def pack(self, params: Any, values: Sequence[Any], gradients: Sequence[Any]) -> bool:
        """Copy the numbers of the next step, unless any is no Python float; return whether that was done."""
        numbers = *values, *gradients
        if [*map(type, numbers)] != self._kinds:
            return False
        self._pack(self._memory, 0, *numbers)
        self._params = params
        return True

    def bind(self, params: Any, values: Sequence[Any], gradients: Sequence[Any]) -> tuple[Any, Any] | None:
        """Copy the numbers of the next step.

        Returns
        -------
        tuple or None
            Parameters and gradients with arrays in place of numbers; None if a number has another type than before.
        """
        bound = list(values), list(gradients)
        for which, k, kind, copy in self._copies:
            number = bound[which][k]
            if type(number) is not kind:
                return None
            copy[...] = number
            bound[which][k] = copy
        self._params = params
        return tuple(bound[0]), tuple(bound[1])

    def write(self) -> None:
        """Replace the numbers by what the update made of their copies; to do so twice does no harm."""
        if (params := self._params) is None:
            return
        if self.are_floats:
            for key, number in zip(self._keys, self._unpack(self._memory), strict=True):
                params[key] = number
        else:
            for key, kind, copy in self._replaced:
                params[key] = kind(copy[()])

    def release(self) -> None:
        """Let go of the container, which would be kept alive until the next step."""
        self._params = None
