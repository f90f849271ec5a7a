"""Fingerprints of functions: equal for equal code, different after any edit that changes what is computed."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, ModuleType, NoneType
from typing import Any

import numba
import numpy as np
import scipy
from numba.core.compiler import Compiler
from numba.core.dispatcher import Dispatcher

__all__ = ["called_functions", "fingerprint"]

_NUMBERS_AND_TEXT = (bool, int, float, complex, str, bytes, NoneType, EllipsisType)
_STDLIB = Path(sysconfig.get_paths()["stdlib"])
_LIBRARIES = tuple(Path(str(package.__file__)).parent for package in (np, numba, scipy))


class _UnknownError(Exception):
    """A function depends on a value of a kind that is not known here."""


def fingerprint(function: Callable[..., Any]) -> str | None:
    """Return 16 hexadecimal digits that identify the code of a function and everything that the code depends on.

    They are a hash of its bytecode and constants, of the values in its closure and of the globals that it reads, and of
    the same for each function among these. File paths and line numbers are not included, and functions of Python,
    NumPy, Numba and SciPy only by name.

    Returns
    -------
    str or None
        None if the function depends on a value of a kind that is not known here. A change of the value could not be
        detected then, so compiled code must not be cached.
    """
    try:
        text = "\n".join(_describe_function(function, {}))
    except _UnknownError:
        return None
    return hashlib.sha256(f"{sys.version_info}\n{text}".encode()).hexdigest()[:16]


def _describe(value: Any, names: set[str], seen: dict[Any, int]) -> Iterator[str]:
    if isinstance(value, Dispatcher):
        yield from _describe_options(value)
        value = value.py_func
    if isinstance(value, _NUMBERS_AND_TEXT) and type(value) in _NUMBERS_AND_TEXT:
        yield f"{type(value).__name__} {value!r}"
    elif (type(value) is np.ndarray or isinstance(value, np.generic)) and value.dtype.kind in "biufc":
        yield f"{value.dtype.str} {value.shape} {value.strides} {value.tobytes().hex()}"
    elif isinstance(value, tuple):
        yield f"{type(value).__qualname__} {getattr(value, '_fields', '')} of {len(value)}"
        for item in value:
            yield from _describe(item, names, seen)
    elif isinstance(value, set | frozenset):
        yield from _describe(tuple(sorted(value, key=repr)), names, seen)
    elif isinstance(value, FunctionType) and not _is_library(value.__code__.co_filename):
        yield from _describe_function(value, seen)
    elif isinstance(value, ModuleType) and not _is_library_module(value):
        yield from _describe_module(value, names, seen)
    elif isinstance(value, ModuleType):
        yield value.__name__
    elif isinstance(value, FunctionType | BuiltinFunctionType | np.ufunc | type) and _is_library_object(value):
        yield f"{getattr(value, '__module__', '')}.{value.__name__}"
    else:
        raise _UnknownError


def _describe_options(compiled: Any) -> Iterator[str]:
    if compiled._compiler.pipeline_class is not Compiler:
        raise _UnknownError
    yield "compiled"
    yield from _describe(tuple(sorted(compiled.targetoptions.items())), set(), {})
    # Numba adds a signature at each call with other types, unless some were given.
    yield repr((sorted(compiled.locals.items()), None if compiled._can_compile else compiled.nopython_signatures))


def _describe_function(function: Callable[..., Any], seen: dict[Any, int]) -> Iterator[str]:
    function = getattr(function, "py_func", function)
    # A function that was described before is named by its number: this ends cycles and keeps functions distinct.
    yield f"function {seen.get(id(function), len(seen))}"
    if id(function) in seen:
        return
    seen[id(function)] = len(seen)
    code = function.__code__
    names = _names(code)
    yield from _describe_code(code, seen)
    yield from _describe(function.__defaults__, names, seen)
    for cell in function.__closure__ or ():
        yield from _describe(cell.cell_contents, names, seen)
    for name in sorted(names & function.__globals__.keys()):
        yield name
        yield from _describe(function.__globals__[name], names, seen)


def _describe_module(module: ModuleType, names: set[str], seen: dict[Any, int]) -> Iterator[str]:
    yield f"module {seen.setdefault(id(module), len(seen))}"
    # Another function may refer to other names of the module, or of modules in it.
    described = id(module), frozenset(names)
    if described in seen:
        return
    seen[described] = len(seen)
    for name in sorted(names & vars(module).keys()):
        value = vars(module)[name]
        if isinstance(value, FunctionType) and not _is_library(value.__code__.co_filename):
            # Numba calls it only by an overload, whose code is somewhere else.
            raise _UnknownError
        yield name
        yield from _describe(value, names, seen)


def _describe_code(code: CodeType, seen: dict[Any, int]) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_argcount))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _describe_code(constant, seen)
        else:
            yield from _describe(constant, set(), seen)


def _names(code: CodeType) -> set[str]:
    nested = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*nested)


def called_functions(function: Any) -> dict[str, FunctionType]:
    """Return the Python functions, except those of libraries, that a function refers to by global names."""
    function = getattr(function, "py_func", function)
    found = {name: function.__globals__.get(name) for name in _names(function.__code__)}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, FunctionType) and not _is_library(value.__code__.co_filename)
    }


def _is_library(file: str) -> bool:
    path = Path(file)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return any(path.is_relative_to(folder) for folder in (_LIBRARIES if installed else (*_LIBRARIES, _STDLIB)))


def _is_library_module(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return module.__name__ in sys.builtin_module_names if file is None else _is_library(file)


def _is_library_object(value: Any) -> bool:
    if isinstance(value, np.ufunc):
        return getattr(np, value.__name__, None) is value
    module = sys.modules.get(value.__module__ or "")
    return module is not None and _is_library_module(module) and getattr(module, value.__name__, None) is value
