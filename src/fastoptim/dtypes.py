"""The dtype bfloat16, which NumPy does not have.

The library ml_dtypes adds it to NumPy. It is imported where an array of that dtype is to be made, and nowhere else.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim._optional import imported_for

__all__ = ["RANDOM", "bfloat16", "checked_state_dtype", "is_bfloat16", "is_floating", "rounded"]

_NEAREST, RANDOM = "bfloat16", "bfloat16-stochastic"
"""The choices of `state_dtype`."""


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype is that of ml_dtypes, without importing it."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype is a floating one."""
    return dtype.kind == "f" or is_bfloat16(dtype)


@cache
def bfloat16() -> np.dtype[Any]:
    """Return the dtype.

    Raises
    ------
    ImportError
        If ml_dtypes is not installed.
    """
    with imported_for("an array of bfloat16", "ml_dtypes"):
        import ml_dtypes
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def rounded(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a copy of an array with another dtype."""
    # ml_dtypes warns of NaN.
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def checked_state_dtype(name: str, value: Any) -> str:
    """Return a value of `state_dtype`.

    Raises
    ------
    ImportError
        If ml_dtypes is not installed.
    TypeError, ValueError
        If it is none of the choices.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {_NEAREST!r}, {RANDOM!r} or None, not {value!r}")
    if value not in (_NEAREST, RANDOM):
        raise ValueError(f"{name} must be {_NEAREST!r}, {RANDOM!r} or None, not {value!r}")
    bfloat16()
    return value
