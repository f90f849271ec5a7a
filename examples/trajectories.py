r"""
Six optimizers on their way down a valley
=========================================

The valley :math:`f(x, y) = x^2/20 + y^2` has steep sides and a flat floor. Its gradient, :math:`(x/10, 2y)`, mostly
points across the valley, not along it to the minimum. The pictures of the notes show what each update rule does about
that in 30 steps from :math:`(-7, 2)`.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__)


def f(x, y):
    """Return the height of the valley, which is lowest at the origin."""
    return x**2 / 20 + y**2


def gradient(x, y):
    """Return the partial derivatives of `f`."""
    return {"x": x / 10, "y": 2 * y}


# %%
# The parameters are plain Python floats. They cannot be changed in place, so ``update`` puts new ones into the dict.


def descend(optimizer, steps=30):
    """Return the points that an optimizer visits, starting from (-7, 2)."""
    params = {"x": -7.0, "y": 2.0}
    path = [tuple(params.values())]
    for _ in range(steps):
        optimizer.update(params, gradient(**params))
        path.append(tuple(params.values()))
    return np.array(path)


# %%
# The learning rates are those of the notes. Each suits its rule; no rate suits all of them.

CASES = [
    (fo.SGD(lr=0.95), "zigzags across the valley"),
    (fo.Momentum(lr=0.1), "rolls like a ball and overshoots"),
    (fo.Nesterov(lr=0.1), "looks ahead and overshoots less"),
    (fo.AdaGrad(lr=1.5), "damps the steep direction, and slows for good"),
    (fo.RMSprop(lr=0.7, decay_rate=0.9), "forgets old gradients, and never settles"),
    (fo.Adam(lr=0.3), "momentum, scaled in each direction"),
]

x, y = np.meshgrid(np.linspace(-10, 10, 201), np.linspace(-4, 4, 81))
figure, panels = plt.subplots(3, 2, figsize=(8, 8), sharex=True, sharey=True)
for axes, (optimizer, remark) in zip(panels.flat, CASES, strict=True):
    name, path = type(optimizer).__name__, descend(optimizer)
    axes.contour(x, y, f(x, y), levels=np.arange(1, 13) ** 2 / 8, colors="0.5", linewidths=0.6, alpha=0.7)
    axes.plot(*path.T, "o-", color="C1", markersize=3.5, linewidth=1.2)
    axes.plot(0, 0, "+", color="C0", markersize=12, markeredgewidth=2)
    axes.set(xlim=(-10, 10), ylim=(-4, 4), xticks=range(-10, 11, 5))
    axes.set_title(f"{name}, lr {optimizer.lr}:\n{remark}", fontsize=10)
    axes.grid(visible=False)
    print(f"{name:<8} ends at ({path[-1, 0]:+.3f}, {path[-1, 1]:+.3f})")
figure.supxlabel("x")
figure.supylabel("y")
show(figure, options)
