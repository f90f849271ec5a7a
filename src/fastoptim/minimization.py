"""Minimize a function of one array in the manner of SciPy, by any optimizer."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastoptim._suggest import did_you_mean
from fastoptim.arguments import check_number, check_object, whole_number
from fastoptim.objective import Objective
from fastoptim.optimizer import Optimizer
from fastoptim.optimizers import Adam
from fastoptim.update.validate import Array

if TYPE_CHECKING:
    from scipy.optimize import Bounds, OptimizeResult

__all__ = ["averages", "minimize", "scipy_method"]

_MESSAGES = {
    0: "the largest element of the projected gradient is at most tol",
    1: "maxiter updates were done",
    2: "fun did not become smaller in the last {patience} evaluations",
    3: "the callback raised StopIteration",
    4: "the gradient is NaN or infinite",
}


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    *,
    jac: Callable[..., Any] | bool | None = None,
    optimizer: Optimizer | None = None,
    bounds: Bounds | Sequence[tuple[float | None, float | None]] | None = None,
    maxiter: int = 1000,
    tol: float = 1e-5,
    patience: int | None = None,
    every: int = 1,
    rng: np.random.Generator | int | None = None,
    callback: Callable[..., Any] | None = None,
) -> OptimizeResult:
    """Minimize a function by an optimizer, called like ``scipy.optimize.minimize`` and with its result.

    In iteration k, the optimizer updates x by the gradient there, and x is projected onto the bounds:
    ``x = clip(update(x, jac(x)), low, high)``. Steps of an optimizer need not descend, so the result is not the last x
    but the evaluated one with the smallest ``fun``.

    Parameters
    ----------
    fun : function
        ``fun(x, *args)`` returns the value at x, a float; or, if ``jac`` is True, the value and the gradient. It must
        not keep x, which is updated in place.
    x0 : array_like, float32 or float64, any shape
        Start of the search. It is copied; integers and other floating dtypes become float64.
    args : tuple
        Further arguments of ``fun`` and ``jac``. Anything else is one argument, as in SciPy.
    jac : function, True or None
        ``jac(x, *args)`` returns the gradient, an array of the shape of x; with ``rng`` it is ``jac(x, rng, *args)``,
        the gradient of a random sample. If it is None, gradients are finite differences, by ``x0.size`` more calls of
        ``fun`` each.
    optimizer : Optimizer, optional
        Any optimizer, with its transforms and schedules; ``Adam(lr=0.01)`` by default. One that was used before
        continues from its state. With ``ema`` and with schedule-free rules, the averages are evaluated and returned.
    bounds : scipy.optimize.Bounds, or sequence of (low, high), optional
        Bounds of each element, in the order of ``x.ravel()``; None or infinite where there is none.
    maxiter : int
        Largest number of updates.
    tol : float
        Stop when no element of the projected gradient ``x - clip(x - jac(x), low, high)`` is larger. Not used with
        ``rng``, because the gradient of a sample does not vanish at the minimum.
    patience : int, optional
        Stop when this many evaluations in a row have found no smaller value.
    every : int
        Number of updates from one evaluation of ``fun`` to the next. It is also evaluated at the end.
    rng : numpy.random.Generator or int, optional
        The generator that ``jac`` gets, or its seed.
    callback : function, optional
        Called after each evaluation, as SciPy calls it: ``callback(intermediate_result)`` with x, fun and nit if its
        only parameter has this name, else ``callback(x)``. It may raise StopIteration to stop.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x``, ``fun``, ``nit`` (updates), ``nfev``, ``njev``, ``success``, ``message`` and ``status``: 0 for a gradient
        within ``tol``, 1 for ``maxiter``, 2 for ``patience``, 3 for the callback, 4 for a gradient that is not finite.
        0 and 2 are successes. Also ``jac``, the gradient at x, unless ``rng`` was given.

    Raises
    ------
    TypeError
        If ``optimizer`` is not an optimizer, ``x0`` is not real, ``fun`` or ``callback`` is not a function, ``jac`` is
        neither a function, True nor None, or ``rng`` is given without a function ``jac``.
    ValueError
        If ``maxiter``, ``patience``, ``every`` or ``tol`` is out of range, ``bounds`` do not fit ``x0``, ``fun`` does
        not return one number, or a gradient does not have the shape of ``x0``.

    See Also
    --------
    scipy_method : the same as ``method`` of ``scipy.optimize.minimize``.

    Examples
    --------
    >>> import fastoptim as fo
    >>> from scipy.optimize import rosen, rosen_der
    >>> result = fo.minimize(rosen, [-1.2, 1.0], jac=rosen_der, optimizer=fo.Adam(lr=0.05), maxiter=5000)
    >>> result.x.round(3), result.success
    (array([1., 1.]), True)

    With bounds, and with random gradients of a mean, whose noise an average of the parameters removes:

    >>> fo.minimize(rosen, [0.0, 0.0], jac=rosen_der, bounds=[(None, 0.5), (None, None)]).x.round(2)
    array([0.5 , 0.25])
    >>> data = np.random.default_rng(0).normal(3.0, 1.0, 1000)
    >>> result = fo.minimize(
    ...     lambda x: np.mean((x - data) ** 2),
    ...     [0.0],
    ...     jac=lambda x, rng: 2 * (x - rng.choice(data, 10).mean()),
    ...     optimizer=fo.Adam(lr=0.1, ema=0.99),
    ...     patience=200,
    ...     rng=1,
    ... )
    >>> bool(abs(result.x[0] - data.mean()) < 0.05)
    True
    """
    from scipy.optimize import OptimizeResult

    args = args if isinstance(args, tuple) else (args,)
    optimizer = Adam(lr=0.01) if optimizer is None else optimizer
    check_object("optimizer", optimizer, Optimizer, "an optimizer such as fo.Adam(lr=0.1)")
    _check_stopping(maxiter, tol, patience, every)
    x = np.array(x0)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"x0 must be an array of real numbers, got dtype {x.dtype}")
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)
    low, high = _limits(bounds, x)
    np.clip(x, low, high, out=x)
    problem = Objective(fun, jac, args, None if rng is None else _generator(rng))
    report = _reporter(callback)

    best = OptimizeResult(x=x.copy(), fun=np.nan)
    status, nit, n_worse = None, 0, 0
    while status is None:
        g = problem.gradient(x)
        if not np.isfinite(g).all():
            status = 4
        elif problem.rng is None and np.abs(x - np.clip(x - g, low, high)).max(initial=0.0) <= tol:
            status = 0
        elif nit >= maxiter:
            status = 1
        if nit % every == 0 or status is not None:
            point = np.clip(averages(optimizer, {"x": x})["x"], low, high)
            value = problem.value(point)
            n_worse += 1
            if value < best.fun or np.isnan(best.fun):
                best, n_worse = OptimizeResult(x=point, fun=value), 0
            if status is None and patience is not None and n_worse >= patience:
                status = 2
            try:
                report(OptimizeResult(x=point.copy(), fun=value, nit=nit))
            except StopIteration:
                status = 3
        if status is None:
            optimizer.update({"x": x}, {"x": g})
            np.clip(x, low, high, out=x)
            nit += 1
    if problem.rng is None:
        best.jac = problem.gradient(best.x)
    message = _MESSAGES[status].format(patience=patience)
    best.update(nit=nit, nfev=problem.nfev, njev=problem.njev, status=status, success=status in (0, 2), message=message)
    return best


def scipy_method(optimizer: Optimizer, **options: Any) -> Callable[..., OptimizeResult]:
    """Return a ``method`` for ``scipy.optimize.minimize`` that minimizes by an optimizer.

    Parameters
    ----------
    optimizer : Optimizer
        Each minimization begins with a copy of it.
    **options
        Options of `minimize`, such as ``patience``; ``options`` of ``scipy.optimize.minimize`` replace them.

    Returns
    -------
    function
        A function with the arguments that SciPy passes to a method.

    Raises
    ------
    TypeError
        If ``optimizer`` is not an optimizer, or `minimize` has no option of a name.
    ValueError
        By the method, if there are constraints other than bounds.

    Examples
    --------
    >>> import fastoptim as fo
    >>> from scipy.optimize import minimize, rosen, rosen_der
    >>> method = fo.scipy_method(fo.Adam(lr=0.05))
    >>> minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=method, options={"maxiter": 5000}).x.round(3)
    array([1., 1.])
    """
    check_object("optimizer", optimizer, Optimizer, "an optimizer such as fo.Adam(lr=0.1)")
    known = inspect.signature(minimize).parameters
    for name in options:
        if name not in known:
            raise TypeError(f"minimize has no option {name!r}{did_you_mean(name, known)}")

    def method(
        fun: Callable[..., Any],
        x0: Any,
        args: tuple[Any, ...] = (),
        *,
        constraints: Any = (),
        hess: Any = None,  # noqa: ARG001
        hessp: Any = None,  # noqa: ARG001
        **kwargs: Any,
    ) -> OptimizeResult:
        if constraints:
            raise ValueError("optimizers take bounds, but no other constraints; use method='SLSQP' or 'trust-constr'")
        return minimize(fun, x0, args, optimizer=copy.deepcopy(optimizer), **{**options, **kwargs})

    return method


def _generator(rng: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise TypeError(f"rng must be a seed, a generator of NumPy or None, not {rng!r}") from None


def _check_stopping(maxiter: Any, tol: Any, patience: Any, every: Any) -> None:
    whole_number("maxiter", maxiter, least=0)
    whole_number("every", every)
    if patience is not None:
        whole_number("patience", patience)
    check_number("tol", tol)
    if not tol >= 0:
        raise ValueError(f"tol must be a number >= 0, not {tol!r}")


def _limits(bounds: Any, x: Array) -> tuple[Any, Any]:
    if bounds is None:
        return -np.inf, np.inf
    if hasattr(bounds, "lb"):
        low, high = bounds.lb, bounds.ub
    else:
        try:
            pairs = [(-np.inf if low is None else low, np.inf if high is None else high) for low, high in bounds]
        except (TypeError, ValueError):
            raise TypeError(f"bounds must be scipy.optimize.Bounds, or pairs (low, high), got {bounds!r}") from None
        if len(pairs) != x.size:
            raise ValueError(f"bounds must be one pair for each of the {x.size} elements of x, got {len(pairs)}")
        low, high = np.array(pairs, x.dtype).T
    try:
        low, high = (np.broadcast_to(np.asarray(side, x.dtype), x.size).reshape(x.shape) for side in (low, high))
    except ValueError:
        raise ValueError(f"bounds must be one pair for each of the {x.size} elements of x") from None
    if not (low <= high).all():
        raise ValueError("bounds must have low <= high for each element of x; None means no bound")
    return low, high


def averages(optimizer: Optimizer, params: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return what is to be evaluated: averages, of all parameters that have them, or else the parameters themselves."""
    if hasattr(optimizer, "evaluation"):
        with optimizer.evaluation(params):
            return {key: p.copy() for key, p in params.items()}
    return params if optimizer.averaged is None else optimizer.averaged


def _reporter(callback: Callable[..., Any] | None) -> Callable[[OptimizeResult], Any]:
    if callback is None:
        return lambda result: None  # noqa: ARG005
    if not callable(callback):
        raise TypeError(f"callback must be a function, got {callback!r}")
    if {*inspect.signature(callback).parameters} == {"intermediate_result"}:
        return lambda result: callback(intermediate_result=result)
    return lambda result: callback(result.x)
