"""Checks of arguments: an error names the argument, what was expected and, where it can, what to type instead."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "check_function",
    "check_number",
    "check_object",
    "checked_path",
    "is_masked",
    "listed",
    "true_or_false",
    "whole_number",
]


def true_or_false(name: str, value: Any, hint: str = "") -> bool:
    """Return a value as a bool; raise `TypeError` if it is another object."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, not {value!r}{hint}")
    return bool(value)


def is_masked(value: Any) -> bool:
    """Tell whether a value is a masked array, without importing `numpy.ma`, which NumPy does on first use."""
    return isinstance(value, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ()))


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return a value as an int; raise `ValueError` if it is not an integer, or not in the range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least or (most and value > most):
        allowed = f">= {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be an integer {allowed}, not {value!r}")
    return int(value)


def check_number(name: str, value: Any, what: str = "a number") -> None:
    """Raise `TypeError` unless a value is a real number and no bool, or an array of no axes that holds one."""
    number = value.item() if isinstance(value, np.ndarray | np.bool_) and value.ndim == 0 else value
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{name} must be {what}, not {value!r}")


def check_function(name: str, value: Any, expected: str, n_args: int, hint: str = "") -> None:
    """Raise `TypeError` unless a value is a function that takes a number of arguments; a class is not one."""
    is_function = callable(value) and not isinstance(value, type)
    if is_function:
        try:
            inspect.signature(value).bind(*[None] * n_args)
        except TypeError:
            is_function = False
        except ValueError:
            pass  # The signatures of some functions in C are unknown.
    if not is_function:
        raise TypeError(f"{name} must be {expected}, not {value!r}{hint}")


def check_object(name: str, value: Any, cls: type, such_as: str) -> None:
    """Raise `TypeError` unless a value is an object of a class; the class itself is not one."""
    if not isinstance(value, cls):
        hint = f"; did you mean {value.__name__}()?" if isinstance(value, type) and issubclass(value, cls) else ""
        raise TypeError(f"{name} must be {such_as}, not {value!r}{hint}")


def listed(name: str, value: Any, such_as: str) -> tuple[Any, ...]:
    """Return the items of a list, tuple or array, of which the numbers become Python's.

    Raises
    ------
    TypeError
        For a string, or for what has no items.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a list such as {such_as}, not {value!r}")
    return tuple(value.tolist() if isinstance(value, np.ndarray) else value)


def checked_path(name: str, value: Any) -> Path:
    """Return a path; raise `TypeError` if a value is neither a string nor a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, as a string or Path, not {value!r} of type {type(value).__name__}")
    return Path(value)
