"""Every update rule on its way down ``f(x, y) = x**2/20 + y**2``, each with the learning rate that suits it best.

`fo.sweep` finds that learning rate: it runs 80 of them side by side. Run ``python examples/family.py``.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import fastoptim as fo
from fastoptim.family import FAMILY

STEPS, COLUMNS = 30, 6


def f(p):
    """Return the height of the valley, which is lowest at the origin."""
    return p["x"] ** 2 / 20 + p["y"] ** 2


def gradient(p):
    """Return the partial derivatives of `f`."""
    return {"x": p["x"] / 10, "y": 2 * p["y"]}


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the paths of all update rules.")
    parser.add_argument("--output", type=Path, default=Path("comparison"))
    options = parser.parse_args()

    x, y = np.meshgrid(np.linspace(-10, 10, 201), np.linspace(-4, 4, 81))
    rows = -(-len(FAMILY) // COLUMNS)
    figure = Figure(figsize=(14, 2 * rows + 1), dpi=120, layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat
    for k, (name, axes) in enumerate(zip(FAMILY, panels, strict=False)):
        rule = getattr(fo, name)
        lr = best_rate(rule)
        path = descend(rule(lr=lr))
        axes.contour(x, y, f({"x": x, "y": y}), levels=np.arange(1, 13) ** 2 / 8, colors="0.8", linewidths=0.7)
        axes.plot(*path.T, ".-", color="C0", markersize=4, linewidth=1)
        axes.plot(*path[0], "o", color="C1", markersize=5)
        axes.plot(0, 0, "k+", markersize=9)
        axes.set(xlim=(-10, 10), ylim=(-4, 4), xticks=range(-10, 11, 5))
        axes.set_title(f"{name}, lr {np.round(lr, 2):g}", fontsize=10)
        axes.tick_params(labelbottom=k >= len(FAMILY) - COLUMNS)
        print(f"{name:<18} lr {lr:<7.2g} ends at ({path[-1, 0]:+.3f}, {path[-1, 1]:+.3f})")
    for axes in panels:
        axes.set_visible(False)
    figure.suptitle(
        f"{STEPS} steps from the orange point towards the minimum (+) of x²/20 + y², with the learning rate that is "
        "best for each rule"
    )
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "family.png")
    print(f"wrote {options.output / 'family.png'}")
