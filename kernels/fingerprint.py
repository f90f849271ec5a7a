"""What a function computes, as a short string: equal for equal code, different after any edit that matters."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["fingerprint"]


def fingerprint(function: Callable[..., Any]) -> str:
    """Return 16 hexadecimal digits that stand for the code of a function and all it depends on.

    That is its bytecode and constants, the values of its closure and of the globals it reads, and the same of every
    Python function among them. Where a file lies, and the numbers of its lines, do not count.
    """
    text = "\n".join(_describe(function, set()))
    return hashlib.sha256(f"{sys.version_info}\n{text}".encode()).hexdigest()[:16]


def _describe(value: Any, seen: set[int]) -> Iterator[str]:
    value = getattr(value, "py_func", value)
    if isinstance(value, FunctionType) and not _is_library(value.__module__):
        if id(value) in seen:
            return
        seen.add(id(value))
        yield from _describe_code(value.__code__)
        yield from _describe(value.__defaults__, seen)
        for cell in value.__closure__ or ():
            yield from _describe(cell.cell_contents, seen)
        for name in sorted(_names(value.__code__)):
            if name in value.__globals__:
                yield name
                yield from _describe_global(value.__globals__[name], value.__code__, seen)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _describe(item, seen)
    elif isinstance(value, frozenset):
        yield repr(sorted(map(repr, value)))
    elif hasattr(value, "__qualname__"):
        yield f"{getattr(value, '__module__', '')}.{value.__qualname__}"
    elif hasattr(value, "tobytes"):
        yield f"{value!r} {value.tobytes().hex()}"
    else:
        yield repr(value)


def _describe_global(value: Any, code: CodeType, seen: set[int]) -> Iterator[str]:
    if not isinstance(value, ModuleType):
        yield from _describe(value, seen)
    else:
        yield value.__name__
        if not _is_library(value.__name__):
            for name in sorted(_names(code)):
                if hasattr(value, name):
                    yield name
                    yield from _describe_global(getattr(value, name), code, seen)


def _describe_code(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _describe_code(constant)
        else:
            yield from _describe(constant, set())


def _names(code: CodeType) -> set[str]:
    nested = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*nested)


def _is_library(module: str | None) -> bool:
    # These change only with their version, which is Numba's business or a matter of the rounding of one function.
    root = (module or "").partition(".")[0]
    return root in {"numpy", "numba", "scipy"} or root in sys.stdlib_module_names
