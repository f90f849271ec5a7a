"""Groups: some parameters have hyperparameters of their own, and frozen ones are left alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fastoptim.arguments import check_function

__all__ = ["Groups", "Pattern", "check_patterns"]

Pattern = str | Callable[[Any, Any], bool]
"""A pattern of keys such as ``"b*"``, or a function of key and array that returns whether they match."""


@dataclass(frozen=True)
class Groups:
    """The groups of an optimizer; the first pattern that matches a parameter decides.

    Parameters
    ----------
    rules : tuple
        Patterns with the hyperparameters that each changes.
    frozen : tuple
        Patterns of parameters that are not updated.
    arrays : dict, optional
        What functions are called with in place of the parameters given, if these are only parts of arrays.
    """

    rules: tuple[tuple[Pattern, dict[str, Any]], ...] = ()
    frozen: tuple[Pattern, ...] = ()
    arrays: Mapping[Hashable, Any] | None = None

    def __bool__(self) -> bool:
        return bool(self.rules or self.frozen)

    def frozen_keys(self, params: Any) -> set[Hashable]:
        """Return the keys that are frozen.

        Raises
        ------
        ValueError
            If a pattern matches nothing.
        """
        if not self.frozen or not isinstance(params, Mapping | list | tuple):
            return set()
        items = _items(params if self.arrays is None else self.arrays)
        _check_used("frozen", self.frozen, items)
        return {key for key, value in items if any(_matches(pattern, key, value) for pattern in self.frozen)}

    def assign(self, parameters: Iterable[Any]) -> None:
        """Give each parameter the number of its group: 0 if no pattern matches, else one more than the pattern's.

        Raises
        ------
        ValueError
            If a pattern matches nothing.
        """
        parameters = list(parameters)
        items = [(each.key, each.p if self.arrays is None else self.arrays[each.key]) for each in parameters]
        _check_used("groups", [pattern for pattern, _ in self.rules], items)
        for parameter, item in zip(parameters, items, strict=True):
            matching = (k for k, (pattern, _) in enumerate(self.rules, 1) if _matches(pattern, *item))
            parameter.group = next(matching, 0)


def check_patterns(name: str, patterns: Iterable[Any]) -> None:
    """Raise `TypeError` unless each is a string, or a function of key and array."""
    for pattern in patterns:
        if not isinstance(pattern, str):
            expected = "a string such as 'b*', or a function of key and array"
            hint = f"; the pattern of the key {pattern} is {str(pattern)!r}" if isinstance(pattern, int) else ""
            check_function(f"a pattern of {name}", pattern, expected, 2, hint)


def _items(params: Any) -> list[tuple[Hashable, Any]]:
    return list(params.items() if isinstance(params, Mapping) else enumerate(params))


def _matches(pattern: Pattern, key: Hashable, array: Any) -> bool:
    return fnmatchcase(str(key), pattern) if isinstance(pattern, str) else bool(pattern(key, array))


def _check_used(name: str, patterns: Iterable[Pattern], items: list[tuple[Hashable, Any]]) -> None:
    for pattern in patterns:
        if getattr(pattern, "is_optional", False):
            continue
        if items and not any(_matches(pattern, key, value) for key, value in items):
            known = ", ".join(map(repr, _keys(items)))
            raise ValueError(f"the pattern {pattern!r} of {name} matches no parameter; the keys are {known}")


def _keys(items: list[tuple[Hashable, Any]]) -> Iterator[Hashable]:
    yield from (key for key, _ in items)
