r"""
``minimize``, beside SciPy
==========================

:func:`fastoptim.minimize` has the arguments and the result of ``scipy.optimize.minimize``, and
``method=fo.scipy_method(fo.Adam(lr=0.1))`` puts an optimizer into programs that call SciPy's own.

Where exact gradients are cheap, a method that estimates curvature, such as L-BFGS, needs far fewer of them. Where each
gradient is that of a random sample, its line searches compare noise, and an optimizer with averaged parameters wins.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize, rosen, rosen_der

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__, steps=5000)

# %%
# Four functions, each with the minimum 0. Beale's and Booth's are from the usual collections of test functions; the
# last one is a parabola whose curvatures differ by a factor of a thousand.


def beale(x):
    """Return the value and the gradient."""
    powers = np.array([1, 2, 3])
    rest = np.array([1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** powers)
    by_x, by_y = x[1] ** powers - 1, x[0] * powers * x[1] ** (powers - 1)
    return rest @ rest, 2 * np.array([rest @ by_x, rest @ by_y])


def booth(x):
    """Return the value and the gradient."""
    A = np.array([[1.0, 2.0], [2.0, 1.0]])
    rest = A @ x - [7, 5]
    return rest @ rest, 2 * A.T @ rest


def ridge(x):
    """Return the value and the gradient."""
    curvatures = np.geomspace(1, 1000, x.size)
    return curvatures @ x**2 / 2, curvatures * x


PROBLEMS = {
    "Rosenbrock, 2 numbers": (lambda x: (rosen(x), rosen_der(x)), [-1.2, 1.0]),
    "Rosenbrock, 10 numbers": (lambda x: (rosen(x), rosen_der(x)), np.zeros(10)),
    "Beale": (beale, [1.0, 1.0]),
    "Booth": (booth, [0.0, 0.0]),
    "ridge, 10 numbers": (ridge, np.ones(10)),
}
METHODS = {
    "L-BFGS-B": "L-BFGS-B",
    "Adam": fo.scipy_method(fo.Adam(lr=0.05), maxiter=options.steps),
    "Nesterov": fo.scipy_method(fo.Nesterov(lr=2e-4, momentum=0.99), maxiter=options.steps),
}

# %%
# SciPy calls each method. We count gradients, and keep the smallest value after each.

print(f"{'':24}" + "".join(f"{name:>22}" for name in METHODS))
curves = {}
for name, (problem, start) in PROBLEMS.items():
    results = []
    for method_name, method in METHODS.items():
        values = curves[name, method_name] = []

        def counted(x, problem=problem, values=values):
            """Return value and gradient, and keep the smallest value."""
            value, gradient = problem(x)
            values.append(min(value, values[-1] if values else np.inf))
            return value, gradient

        result = minimize(counted, start, jac=True, method=method)
        results.append(f"{result.fun:9.1e} in {len(values):>5}")
    print(f"{name:24}" + "".join(f"{text:>22}" for text in results))

# %%
# The same, with an error of standard deviation 1 in each element of each gradient. ``ema`` keeps an average of the
# parameters, which :func:`fastoptim.minimize` evaluates and returns.

ax_exact, ax_noisy = plt.subplots(1, 2, figsize=(8, 4))[1]
name = "Rosenbrock, 10 numbers"
for method_name in METHODS:
    ax_exact.loglog(np.maximum(curves[name, method_name], 1e-12), label=method_name)

rng = np.random.default_rng(0)
errors = {}


def noisy(x):
    """Return the gradient with errors."""
    return rosen_der(x) + rng.normal(0, 1, x.shape)


for label, method in {
    "L-BFGS-B": "L-BFGS-B",
    "Adam": fo.scipy_method(fo.Adam(lr=0.01), maxiter=options.steps, tol=0),
    "Adam, averaged": fo.scipy_method(fo.Adam(lr=0.01, ema=0.995), maxiter=options.steps, tol=0),
}.items():
    values = []
    minimize(rosen, np.zeros(10), jac=noisy, method=method, callback=lambda x, values=values: values.append(rosen(x)))
    errors[label] = values[-1]
    ax_noisy.loglog(values, label=label)
print("with errors:", *(f"{label} {value:.1e}" for label, value in errors.items()))

ax_exact.set(title="Rosenbrock, exact gradients", xlabel="gradients", ylabel="smallest value so far")
ax_noisy.set(title="with errors in the gradients", xlabel="iterations", ylabel="value")
for axes in ax_exact, ax_noisy:
    axes.legend()
show(plt.gcf(), options)
