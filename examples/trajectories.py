"""Six update rules on their way down ``f(x, y) = x**2/20 + y**2``, a long valley with steep sides and a flat floor.

The parameters are plain Python floats, which `update` replaces in the dict. Run ``python examples/trajectories.py``.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import fastoptim as fo


def f(x, y):
    """Return the height of the valley, which is lowest at the origin."""
    return x**2 / 20 + y**2


def gradient(x, y):
    """Return the partial derivatives of `f`."""
    return {"x": x / 10, "y": 2 * y}


def descend(optimizer, steps=30):
    """Return the points that an optimizer visits, starting from (-7, 2)."""
    params = {"x": -7.0, "y": 2.0}
    path = [tuple(params.values())]
    for _ in range(steps):
        optimizer.update(params, gradient(**params))
        path.append(tuple(params.values()))
    return np.array(path)


CASES = [
    (fo.SGD(lr=0.95), "zigzags: the gradient misses the minimum"),
    (fo.Momentum(lr=0.1), "rolls like a ball and overshoots"),
    (fo.Nesterov(lr=0.1), "looks ahead and overshoots less"),
    (fo.AdaGrad(lr=1.5), "damps the steep direction, slows for good"),
    (fo.RMSprop(lr=0.7, decay_rate=0.9), "forgets old gradients (decay 0.9), never settles"),
    (fo.Adam(lr=0.3), "momentum, scaled in each direction"),
]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the paths of six update rules.")
    parser.add_argument("--output", type=Path, default=Path("comparison"))
    options = parser.parse_args()

    x, y = np.meshgrid(np.linspace(-10, 10, 201), np.linspace(-4, 4, 81))
    figure = Figure(figsize=(12, 6.5), dpi=150, layout="constrained")
    for axes, (optimizer, remark) in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, CASES, strict=True):
        path = descend(optimizer)
        axes.contour(x, y, f(x, y), levels=np.arange(1, 13) ** 2 / 8, colors="0.75", linewidths=0.8)
        axes.plot(*path.T, "o-", color="C3", markersize=3.5, linewidth=1.2)
        axes.plot(0, 0, "k+", markersize=10)
        axes.set(xlim=(-10, 10), ylim=(-4, 4), xticks=range(-10, 11, 5))
        axes.set_title(f"{type(optimizer).__name__}(lr={optimizer.lr})\n{remark}", fontsize=10)
        print(f"{type(optimizer).__name__:<8} ends at ({path[-1, 0]:+.3f}, {path[-1, 1]:+.3f})")
    figure.supxlabel("x")
    figure.supylabel("y")
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "trajectories.png")
    print(f"wrote {options.output / 'trajectories.png'}")
