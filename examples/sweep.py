r"""
Which learning rate?
====================

The loss after 100 steps against the learning rate, for every optimizer, on a valley with steep sides and a flat floor:
:math:`f(x, y) = x^2/20 + y^2`.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from fastoptim.family import FAMILY
from pictures import setup, show

options = setup(__doc__, steps=100)
COLUMNS = 5
RATES = np.geomspace(1e-4, 10, 60)
LOW, HIGH = 1e-8, 1e3  # Losses beyond are drawn at the edge.


def f(p):
    """Return the height of the valley, which is lowest at the origin."""
    return p["x"] ** 2 / 20 + p["y"] ** 2


def gradient(p):
    """Return the partial derivatives of `f`; ``p["x"]`` has a number for each learning rate."""
    return {"x": p["x"] / 10, "y": 2 * p["y"]}


# %%
# `fastoptim.sweep` runs 60 learning rates side by side, in one kernel call a step. The results have the bits of 60
# separate runs.

curves = {}
for name in FAMILY:
    start = {"x": -7.0, "y": 2.0}
    rule = getattr(fo, name)
    result = fo.sweep(rule, start, {"lr": RATES}, gradient, options.steps, loss=f, vectorized=True)
    curves[name] = np.clip(np.nan_to_num(result.losses[:, -1], nan=np.inf), LOW, HIGH)
    best = curves[name].argmin()
    print(f"{name:<18} best lr {RATES[best]:<8.2g} loss {curves[name][best]:.2g}")

# %%
# Each panel shows one rule in blue and the others in grey. The point is the best learning rate, and the dotted line the
# default. Most defaults are far to the left of the point: they are meant for networks, where gradients are noisy, and
# for many more steps. Rprop does not depend on its learning rate, which is only the length of its first step.

rows = -(-len(curves) // COLUMNS)
figure, panels = plt.subplots(rows, COLUMNS, figsize=(8, 1.35 * rows + 0.4), sharex=True, sharey=True)
for axes in panels.flat[len(curves) :]:
    axes.remove()
for k, ((name, losses), axes) in enumerate(zip(curves.items(), panels.flat, strict=False)):
    for others in curves.values():
        axes.plot(RATES, others, color="0.5", linewidth=0.4, alpha=0.3)
    axes.axvline(getattr(fo, name)().lr, color="C1", linestyle=":")
    axes.plot(RATES, losses)
    axes.plot(RATES[losses.argmin()], losses.min(), "o", color="C1", markersize=5)
    axes.set(xscale="log", yscale="log", xticks=[1e-4, 1e-2, 1], yticks=[1e-8, 1e-4, 1])
    axes.set_title(name, fontsize=8.5)
    axes.tick_params(labelbottom=k >= len(curves) - COLUMNS)
figure.supxlabel("learning rate")
figure.supylabel(f"loss after {options.steps} steps (drawn at the edge if beyond)")
show(figure, options)
