r"""
All rules side by side
======================

Every update rule on its way down :math:`f(x, y) = x^2/20 + y^2`, each with the learning rate that suits it best.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from fastoptim.family import FAMILY
from pictures import setup, show

options = setup(__doc__)
STEPS, COLUMNS = 30, 5


def f(p):
    """Return the height of the valley, which is lowest at the origin."""
    return p["x"] ** 2 / 20 + p["y"] ** 2


def gradient(p):
    """Return the partial derivatives of `f`."""
    return {"x": p["x"] / 10, "y": 2 * p["y"]}


# %%
# `fastoptim.sweep` finds the learning rate: it runs 80 of them side by side. The best has the lowest mean loss along
# the path, so a path that ends at the minimum after a detour does not win.


def best_rate(rule):
    """Return the learning rate with the lowest mean loss along its path, of 80 from 0.01 to 100."""
    rates = np.geomspace(0.01, 100, 80)
    start = {"x": -7.0, "y": 2.0}
    losses = fo.sweep(rule, start, {"lr": rates}, gradient, STEPS, loss=f, vectorized=True).losses
    return rates[np.nanargmin(losses.mean(axis=1))]


def descend(optimizer):
    """Return the points that an optimizer visits, starting from (-7, 2)."""
    params = {"x": -7.0, "y": 2.0}
    path = [tuple(params.values())]
    for _ in range(STEPS):
        optimizer.update(params, gradient(params))
        path.append(tuple(params.values()))
    return np.array(path)


# %%
# The valley seen from above: the paths begin at the orange point, and the minimum is the cross. LAMB, LARS and
# Adafactor multiply a step by the size of the parameter. Here each of these is one number, so they walk on a straight
# line to the minimum only because it lies where both are zero.

x, y = np.meshgrid(np.linspace(-10, 10, 201), np.linspace(-4, 4, 81))
rows = -(-len(FAMILY) // COLUMNS)
figure, panels = plt.subplots(rows, COLUMNS, figsize=(8, 1.35 * rows + 0.4), sharex=True, sharey=True)
for axes in panels.flat[len(FAMILY) :]:
    axes.remove()
for name, axes in zip(FAMILY, panels.flat, strict=False):
    rule = getattr(fo, name)
    lr = best_rate(rule)
    path = descend(rule(lr=lr))
    axes.contour(x, y, f({"x": x, "y": y}), levels=np.arange(1, 13) ** 2 / 8, colors="0.5", linewidths=0.4, alpha=0.7)
    axes.plot(*path.T, ".-", markersize=3, linewidth=1)
    axes.plot(*path[0], "o", color="C1", markersize=5)
    axes.plot(0, 0, "+", color="C1", markersize=9, markeredgewidth=1.5)
    axes.set(xlim=(-10, 10), ylim=(-4, 4), xticks=[], yticks=[])
    axes.set_title(f"{name}\nlr {np.round(lr, 2):g}", fontsize=8.5)
    print(f"{name:<18} lr {lr:<7.2g} ends at ({path[-1, 0]:+.3f}, {path[-1, 1]:+.3f})")
figure.suptitle(f"{STEPS} steps down x²/20 + y², with the learning rate that is best for each rule")
show(figure, options)
