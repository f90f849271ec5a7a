"""The function that `minimize` minimizes: its value and its gradient, however they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastoptim.update.validate import Array

__all__ = ["Objective"]


class Objective:
    """A function of an array, with its gradient and the number of calls of each.

    Parameters
    ----------
    fun, jac, args, rng
        As in `fastoptim.minimize`, but ``rng`` is a generator or None.

    Attributes
    ----------
    nfev, njev : int
        How often the function and the gradient were evaluated.

    Raises
    ------
    TypeError
        If ``fun`` or ``jac`` is of a type that `fastoptim.minimize` does not take, or ``rng`` comes without a gradient.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        jac: Callable[..., Any] | bool | None,
        args: tuple[Any, ...],
        rng: np.random.Generator | None,
    ) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be a function of x, got {fun!r}")
        if not (callable(jac) or jac is None or jac is True):
            raise TypeError(f"jac must be a function, True if fun returns (value, gradient), or None, got {jac!r}")
        if rng is not None and not callable(jac):
            raise TypeError("rng is for jac(x, rng), the gradient of a random sample: pass a function as jac")
        self.fun, self.jac, self.args, self.rng = fun, jac, args, rng
        self.nfev = self.njev = 0
        self._last: tuple[Array, Any] | None = None

    def value(self, x: Array) -> float:
        """Return the value at x; raise `ValueError` if it is not one number."""
        if self.jac is True:
            value = self._both(x)[0]
        else:
            self.nfev += 1
            value = self.fun(x, *self.args)
        if np.size(value) != 1:
            raise ValueError(f"fun must return one number, got an array of shape {np.shape(value)}")
        if value is None:
            raise TypeError("fun must return one number, got None: is a return missing?")
        return float(np.asarray(value).item())

    def gradient(self, x: Array) -> Array:
        """Return the gradient at x; raise `ValueError` if it does not have the shape of x."""
        self.njev += 1
        if self.jac is True:
            g = self._both(x)[1]
        elif self.jac is None:
            g = self._differences(x)
        else:
            g = self.jac(x, *self.args) if self.rng is None else self.jac(x, self.rng, *self.args)
        if g is None:
            raise TypeError("the gradient must be an array, got None: is a return missing?")
        g = np.asarray(g)
        if g.shape != x.shape:
            raise ValueError(f"the gradient must have the shape {x.shape} of x, got {g.shape}")
        return g

    def _both(self, x: Array) -> Any:
        """Return what ``fun`` returns at x, from memory if it was the last point."""
        if self._last is None or not np.array_equal(self._last[0], x):
            self.nfev += 1
            both = self.fun(x, *self.args)
            if not isinstance(both, tuple | list) or len(both) != 2:
                raise TypeError(f"with jac=True, fun must return (value, gradient), got {type(both).__name__}")
            self._last = x.copy(), both
        return self._last[1]

    def _differences(self, x: Array) -> Array:
        from scipy.optimize import approx_fprime

        self.nfev += x.size + 1
        flat = approx_fprime(x.ravel().astype(np.float64), lambda moved: self.fun(moved.reshape(x.shape), *self.args))
        return np.asarray(flat).reshape(x.shape)
