r"""
A scientist's case: fit a model, and say how sure it is
=======================================================

A damped oscillation :math:`y(t) = A e^{-\gamma t} \cos(\omega t + \varphi)` was measured with known errors
:math:`\sigma`. The best parameters minimize

.. math:: \chi^2 = \sum_k r_k^2, \qquad r_k = \frac{y(t_k) - y_k}{\sigma_k}

Its gradient is :math:`2 J^T r`, where the Jacobian :math:`J` has the derivatives of :math:`r`, written by hand here.
The same Jacobian gives the error bars: near the minimum the covariance of the parameters is :math:`(J^T J)^{-1}`.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import curve_fit

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__, steps=5000)
TRUE = {"A": 2.0, "gamma": 0.3, "omega": 5.0, "phi": 0.7}


def model(t, A, gamma, omega, phi):
    """Return the oscillation at some times."""
    return A * np.exp(-gamma * t) * np.cos(omega * t + phi)


def jacobian(t, A, gamma, omega, phi):
    """Return its derivatives by the four parameters, one per column."""
    wave, slope = np.cos(omega * t + phi), -A * np.sin(omega * t + phi)
    return np.exp(-gamma * t)[:, None] * np.column_stack([wave, -t * A * wave, t * slope, slope])


rng = np.random.default_rng(1)
t = np.linspace(0, 8, 100)
sigma = rng.uniform(0.1, 0.3, t.size)
y = model(t, **TRUE) + sigma * rng.standard_normal(t.size)

# %%
# The parameters are numbers in a dict. When to stop? More decimals mean nothing when they are much smaller than the
# error bars. So the fit stops early: when 50 updates change no parameter by more than a thousandth of its error bar.

params = {"A": 1.0, "gamma": 0.1, "omega": 4.8, "phi": 0.0}
optimizer = fo.Adam(lr=0.01)
path = [list(params.values())]
for step in range(1, options.steps + 1):
    J = jacobian(t, **params) / sigma[:, None]
    residuals = (model(t, **params) - y) / sigma
    optimizer.update(params, dict(zip(params, 2 * J.T @ residuals, strict=True)))
    path.append(list(params.values()))
    if step % 50 == 0:
        errors = np.sqrt(np.diag(np.linalg.inv(J.T @ J)))
        if np.all(np.abs(np.subtract(path[-1], path[-51])) < 1e-3 * errors):
            break

# %%
# SciPy's Levenberg–Marquardt finds the same values and error bars. It is the faster tool for a fit of four numbers; an
# optimizer of this library also takes millions of them, batches of data, and losses that are no sums of squares.

best, covariance = curve_fit(model, t, y, path[0], sigma, absolute_sigma=True)
print(f"stopped after {step} updates; chi² {residuals @ residuals:.1f} for {t.size - 4} degrees of freedom")
for k, name in enumerate(params):
    scipy = f"{best[k]:.4f} ± {np.sqrt(covariance[k, k]):.4f}"
    print(f"{name:<6} {params[name]:.4f} ± {errors[k]:.4f}  SciPy {scipy}  true {TRUE[name]}")

# %%
# Two thirds of the measurements should be within one error bar of the fit.

figure, panels = plt.subplot_mosaic([["fit", "path"], ["residuals", "path"]], figsize=(8, 4.5), height_ratios=[2, 1])
fine = np.linspace(0, 8, 400)
panels["fit"].errorbar(t, y, sigma, fmt=".", color="C0", markersize=4, linewidth=0.8, label="measured")
panels["fit"].plot(fine, model(fine, **params), color="C1", label="fit")
panels["fit"].set(title="y", xticklabels=[])
panels["fit"].legend()
panels["residuals"].plot(t, residuals, ".")
panels["residuals"].axhspan(-1, 1, color="C1", alpha=0.25)
panels["residuals"].set(title="residuals, in error bars", xlabel="t", yticks=[-2, 0, 2])
distance = (np.array(path) - path[-1]) / errors
for curve, name, style in zip(
    distance.T, ("A", r"$\gamma$", r"$\omega$", r"$\varphi$"), ("-", "--", "-.", ":"), strict=True
):
    panels["path"].plot(curve, style, label=name)
panels["path"].axhspan(-1, 1, color="0.5", alpha=0.25)
panels["path"].set(title="distance to the end, in error bars", xlabel="updates", ylim=(-10, 10))
panels["path"].legend()
show(figure, options)
