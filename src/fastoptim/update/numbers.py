"""Python floats and NumPy scalars: arrays of no axes stand for them in an update, and new numbers replace them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from fastoptim.kernels.parallel import run_and_replace
from fastoptim.kernels.table import COMMITTED
from fastoptim.update.layout import address
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
        ``g``, so that no other module meets a number, unless all are Python floats and ``are_all_bound``.
    are_all_bound : bool
        Whether kernels update all parameters, and nothing but the array table needs the gradients.

    Attributes
    ----------
    are_copied : bool
        Whether `bind` must copy the numbers of each step. `fastoptim.kernels.table.bind` copies those that remain.
    params : dict or list or None
        Where the numbers of this step are replaced.

    Raises
    ------
    TypeError
        If ``params`` does not let its items be replaced.
    """

    def __init__(self, params: Any, parameters: list[Parameter], are_all_bound: bool) -> None:
        kinds = {type(number) for each in parameters for number in (each.value, each.gradient)}
        are_floats = kinds == {float} and are_all_bound
        self._copies: list[tuple[int, int, type, Array]] = []
        self._replaced: list[tuple[Any, type, Array]] = []
        for k, parameter in enumerate(parameters):
            if not isinstance(parameter.value, np.ndarray):
                params[parameter.key] = parameter.value
                kind, p = type(parameter.value), parameter.p
                self._copies.append((0, k, kind, p))
                self._replaced.append((parameter.key, kind, p))
                parameter.value = parameter.value if are_floats else p
            if not isinstance(parameter.gradient, np.ndarray):
                self._copies.append((1, k, type(parameter.gradient), parameter.g))
                parameter.gradient = parameter.gradient if are_floats else parameter.g
        self.are_copied = bool(self._copies) and not are_floats
        self.params = params if self._copies else None

    def __bool__(self) -> bool:
        return bool(self._copies)

    def bind(self, values: Sequence[Any], gradients: Sequence[Any]) -> tuple[Any, Any] | None:
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
        return tuple(bound[0]), tuple(bound[1])

    def write(self) -> None:
        """Replace the numbers by what the update made of their copies; to do so twice does no harm."""
        if (params := self.params) is not None:
            for key, kind, copy in self._replaced:
                params[key] = kind(copy.item())

    def release(self) -> None:
        """Let go of the container, which would be kept alive until the next step."""
        self.params = None

    def runner(self, program: Array) -> Callable[[], None]:
        """Return what takes a step where all are Python floats: it runs a program, and replaces them."""
        pairs = [(id(key), address(copy)) for key, _, copy in self._replaced]
        run_all = run_and_replace(np.array([address(program), len(pairs), *chain(*pairs)], np.intp))

        def run() -> None:
            try:
                run_all(self.params)
            except BaseException:
                # An interruption, such as KeyboardInterrupt, must not leave half of a step behind.
                if program[COMMITTED]:
                    self.write()
                raise
            finally:
                self.params = None

        return run
