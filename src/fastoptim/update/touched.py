"""Row-sparse gradients in a plan: each row that they touch becomes a row of the array table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from fastoptim.kernels import table
from fastoptim.kernels.strided import BLOCK
from fastoptim.rows import Rows, sum_rows
from fastoptim.update.layout import address
from fastoptim.update.validate import Array, Parameter

__all__ = ["SparseGradients", "TouchedRows", "check_touched"]


def check_touched(parameters: list[Parameter], needs_all: str, initial: Mapping[str, float | str]) -> None:
    """Raise `TypeError` if a gradient is row-sparse, but the step needs all elements of its parameter.

    Parameters
    ----------
    parameters : list of Parameter
        Those of the update.
    needs_all : str
        What needs all elements, or an empty string; see `Composition`.
    initial : mapping
        What new state begins with. State that begins as a copy of the parameters, such as their average, also changes
        where gradients are zero.
    """
    needs_all = needs_all or next((f"state {name!r}" for name, value in initial.items() if value == "p"), "")
    for parameter in parameters:
        needs = needs_all or ("its update as a whole" if parameter.slot_shapes is not None else "")
        if needs and parameter.rows is not None:
            raise TypeError(
                f"the gradient of {parameter.key!r} is Rows, expected an array: {needs} needs all elements of a "
                "parameter at each step"
            )


class SparseGradients:
    """Replaces the row-sparse gradients of an update by arrays of their touched rows.

    Parameters
    ----------
    parameters : list of Parameter
        In the order in which arrays are bound.
    """

    def __init__(self, parameters: list[Parameter]) -> None:
        self._expected = {k: (each.key, each.p.shape) for k, each in enumerate(parameters) if each.rows is not None}

    def __bool__(self) -> bool:
        return bool(self._expected)

    def bind(self, values: Sequence[Any], gradients: Sequence[Any]) -> tuple[Sequence[Any], ...] | None:
        """Sum the gradients of the next step.

        Returns
        -------
        tuple or None
            Parameters, gradients, and for each gradient its rows, or None if it is dense. None if a parameter has
            another shape than before, or a gradient another type.

        Raises
        ------
        IndexError, ValueError
            As `sum_rows` does.
        """
        bound: list[Any] = list(gradients)
        rows: list[Any] = [None] * len(gradients)
        for k, (key, shape) in self._expected.items():
            # The indices are checked against this shape, and the form of the parameter only later.
            if np.shape(values[k]) != shape or not isinstance(gradients[k], Rows):
                return None
            rows[k], bound[k] = sum_rows(key, shape, gradients[k])
        return values, tuple(bound), rows


class TouchedRows:
    """The rows of one parameter that a step touches, as the array table describes them.

    Parameters
    ----------
    line : ndarray
        The parameter's row of the table.
    g_form : ndarray
        The form that its gradient must have; `touch` enters the number of rows of each step.
    parameter : Parameter
        The parameter, with its gradient and state.
    n_sums : int
        The largest number of sums that any pass before the update computes.
    """

    def __init__(self, line: Array, g_form: Array, parameter: Parameter, n_sums: int) -> None:
        p, g, slots = parameter.p, parameter.g, parameter.slots
        self._g_form = g_form
        self._width = prod(p.shape[1:])
        self._g_step = self._width * g.itemsize
        # NumPy gives a gradient of one row any stride.
        g_form[table.AXES + g.ndim] = self._g_step
        self._n_blocks = -(-self._width // BLOCK)
        self._blocks = np.zeros((0, self._n_blocks * n_sums))
        numbers = 0, self._width, 0, 8 * self._n_blocks * n_sums, p.strides[0], self._g_step
        self._described = np.array([*numbers, *(slot.strides[0] for slot in slots)], np.intp)
        line[table.TOUCHED] = address(self._described)

    def touch(self, rows: Array) -> int:
        """Enter the rows of the next step, which must be kept alive; return the number of their elements."""
        count = len(rows)
        self._described[0] = address(rows)
        self._g_form[table.HIGH], self._g_form[table.AXES] = count * self._g_step, count
        if count > len(self._blocks):
            self._blocks = np.zeros((2 * count, self._blocks.shape[1]))
            self._described[2] = address(self._blocks)
        return count * self._width

    def sums(self, n_sums: int) -> Any:
        """Return the sums over all touched rows, from those over the blocks of each row."""
        count = int(self._g_form[table.AXES])
        return self._blocks[:count, : self._n_blocks * n_sums].reshape(-1, n_sums).sum(axis=0)
