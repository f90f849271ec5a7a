"""Compiled code that Python calls as a built-in function, in a fifth of the time that Numba's own way takes.

Numba makes a tuple of the arguments, converts each to an integer of C and the result to an object, which takes as long
as the update of a hundred elements. Here Python is given the address of the code, as C extensions do for the functions
that they define (``PyMethodDef``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property
from typing import Any

from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastoptim.kernels.jit import DISABLED, cfunc

__all__ = ["ERROR", "Method", "set_number", "truth"]

_NO_ARGUMENT, _ONE_ARGUMENT = 4, 8
ERROR = 0
"""What a method returns if an error was raised in it."""


class _Definition(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_make: Any = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCFunction_NewEx", ctypes.pythonapi)
)


@intrinsic
def truth(_typing: Any, _value: Any) -> Any:
    """Return ``True`` or ``False`` as a method must: by address, and as a reference that the caller owns."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        result = context.get_python_api(builder).bool_from_bool(args[0])
        return builder.ptrtoint(result, context.get_value_type(signature.return_type))

    return types.intp(types.boolean), codegen


@intrinsic
def set_number(_typing: Any, _container: Any, _key: Any, _number: Any) -> Any:
    """Do what ``container[key] = number`` does, with objects by their addresses; return whether no error was raised."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        python = context.get_python_api(builder)
        container, key = (builder.inttoptr(each, python.pyobj) for each in args[:2])
        number = python.float_from_double(args[2])
        status = python.object_setitem(container, key, number)
        python.decref(number)
        return builder.icmp_signed("==", status, status.type(0))

    return types.boolean(types.intp, types.intp, types.float64), codegen


class Method:
    """Decorates a function that becomes a method of arrays; called with an array, it returns the bound method.

    Parameters
    ----------
    function : function
        It takes the ``id`` of the array and, if the method has an argument, that of the argument. Both objects are
        alive while it runs, and the thread has the GIL. It returns a `truth`, or `ERROR`.

    Attributes
    ----------
    compiled
        The function, compiled on first use.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._n_integers = function.__code__.co_argcount

    @cached_property
    def compiled(self) -> Any:  # noqa: D102
        return cfunc(self._function, self._n_integers, lambda: True, types.intp)

    @cached_property
    def _definition(self) -> _Definition:
        flags = _NO_ARGUMENT if self._n_integers == 1 else _ONE_ARGUMENT
        definition = _Definition(self._function.__name__.encode(), self.compiled.address, flags, None)
        # Bound methods may outlive this module when the interpreter exits.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(definition))
        return definition

    def __call__(self, array: NDArray[Any]) -> Callable[..., bool]:
        """Bind the method to an array, which it keeps alive; without compilation, it does nothing and returns False."""
        if DISABLED:
            return lambda *_: False
        bound: Callable[..., bool] = _make(ctypes.addressof(self._definition), array, None)
        return bound
