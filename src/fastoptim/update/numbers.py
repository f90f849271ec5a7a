"""Python floats and NumPy scalars: arrays of no axes stand for them in an update, and new numbers replace them."""

from __future__ import annotations

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

    Raises
    ------
    TypeError
        If ``params`` does not let its items be replaced.
    """

    def __init__(self, params: Any, parameters: list[Parameter]) -> None:
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
        if (params := self._params) is not None:
            for key, kind, copy in self._replaced:
                params[key] = kind(copy[()])
            self.release()

    def release(self) -> None:
        """Let go of the container, which would be kept alive until the next step."""
        self._params = None
