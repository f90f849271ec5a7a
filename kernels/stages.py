"""Stages, such as a rule and its transforms, and their composition into one function, so that memory is passed once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

__all__ = ["Stage", "compose", "function_of"]


class Stage(NamedTuple):
    """One function of a composition.

    A value is named ``"p"``, ``"g"``, or as a slot; a stage may also give a new name to a value for later stages.
    """

    function: Callable[..., Any]
    takes: tuple[str, ...]
    """Names of the values that are its first arguments."""
    gives: tuple[str, ...]
    """Names of the values that it returns."""
    scalars: tuple[int, ...] = ()
    """Positions of its other arguments among the scalars of the composition."""


def function_of(rule: Any) -> Callable[..., Any]:
    """Return the Python function of a rule that is a static method or was compiled by Numba, or the rule itself."""
    function: Callable[..., Any] = rule.__func__ if isinstance(rule, staticmethod) else getattr(rule, "py_func", rule)
    return function


@lru_cache
def compose(stages: tuple[Stage, ...], slots: Sequence[str], n_scalars: int, gives: tuple[str, ...]) -> Any:
    """Return the function ``(p, g, *slots, *scalars)`` that calls stages one after the other.

    The function is plain Python, so that it is compiled, fingerprinted and run on arrays just as a rule is. Equal
    arguments give the same function. Its attribute ``reads`` is the set of the arrays among its arguments that it uses.

    Parameters
    ----------
    stages : tuple of Stage
        In the order in which they are called.
    slots : tuple of str
        Names of the state.
    n_scalars : int
        Number of scalars.
    gives : tuple of str
        Names of the values to return.
    """
    # Names of slots are the user's, so they do not occur in the text.
    known = {"p": "p", "g": "g"} | {slot: f"slot{k}" for k, slot in enumerate(slots)}
    arguments = [*known.values(), *(f"scalar{k}" for k in range(n_scalars))]
    names: dict[str, Any] = {}
    lines = []
    for k, stage in enumerate(stages):
        names[f"stage{k}"] = function_of(stage.function)
        given = [*(known[name] for name in stage.takes), *(f"scalar{n}" for n in stage.scalars)]
        results = [known.setdefault(name, f"value{len(known)}") for name in stage.gives]
        lines.append(f"    {', '.join(results)} = stage{k}({', '.join(given)})")
    lines.append(f"    return {', '.join(known[name] for name in gives)}")
    text = f"def composed({', '.join(arguments)}):\n" + "\n".join(lines)
    exec(compile(text, "<fastoptim composition>", "exec"), names)
    composed = names.pop("composed")
    composed.__name__ = "-".join(function_of(stage.function).__name__ for stage in stages)
    composed.__signature__ = inspect.signature(composed)
    composed.reads = {name for stage in stages for name in stage.takes} & {"p", "g", *slots}
    return composed
