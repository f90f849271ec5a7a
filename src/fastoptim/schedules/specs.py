"""Schedules as plain values, which checkpoints keep."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fastoptim import schedules

__all__ = ["SCHEDULES", "from_spec", "to_spec"]

SCHEDULES: dict[str, Any] = {name: getattr(schedules, name) for name in schedules.__all__}
"""All schedules by name."""


def to_spec(schedule: Any) -> Any:
    """Return a schedule as lists, numbers and names, or None if it is another function."""
    if type(schedule) not in SCHEDULES.values():
        return None
    values = [getattr(schedule, field.name) for field in fields(schedule)]
    specs = [_spec_of(value) for value in values]
    return None if any(spec is None and value is not None for spec, value in zip(specs, values, strict=True)) else [
        type(schedule).__name__, *specs
    ]  # fmt: skip


def _spec_of(value: Any) -> Any:
    if isinstance(value, tuple):
        specs = [_spec_of(each) for each in value]
        return None if None in specs else ["tuple", *specs]
    return value if value is None or isinstance(value, int | float) else to_spec(value)


def from_spec(spec: Any) -> Any:
    """Return the schedule that `to_spec` described; raise `ValueError` for anything else."""
    if isinstance(spec, int | float | None):
        return spec
    if not isinstance(spec, list) or not spec or not isinstance(spec[0], str):
        raise ValueError(f"{spec!r} is not a schedule")
    name, *values = spec
    values = [from_spec(value) for value in values]
    if name == "tuple":
        return tuple(values)
    try:
        return SCHEDULES[name](*values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{spec!r} is not a schedule") from error
