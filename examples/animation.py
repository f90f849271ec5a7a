r"""
The paths, animated
===================

The six optimizers of the notes start together at :math:`(-7, 2)` in the valley :math:`f(x, y) = x^2/20 + y^2`. A path
shows where an optimizer goes; only an animation shows when. Here RMSprop and AdaGrad are the first to come near the
minimum, where RMSprop does not stay at rest, and Momentum and Nesterov go past it.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__, steps=30)

OPTIMIZERS = [
    fo.SGD(lr=0.95),
    fo.Momentum(lr=0.1),
    fo.Nesterov(lr=0.1),
    fo.AdaGrad(lr=1.5),
    fo.RMSprop(lr=0.7, decay_rate=0.9),
    fo.Adam(lr=0.3),
]


def descend(optimizer):
    """Return the points that an optimizer visits, starting from (-7, 2)."""
    params = {"x": -7.0, "y": 2.0}
    path = [tuple(params.values())]
    for _ in range(options.steps):
        optimizer.update(params, {"x": params["x"] / 10, "y": 2 * params["y"]})
        path.append(tuple(params.values()))
    return np.array(path)


# %%
# All paths are computed first; the animation only draws more and more of each. The last frame is shown for a while.

paths = [descend(optimizer) for optimizer in OPTIMIZERS]
x, y = np.meshgrid(np.linspace(-8, 4, 121), np.linspace(-2.5, 2.5, 101))
plt.rcParams["savefig.dpi"] = 100
# Older frames of a GIF would show through a transparent background.
figure, axes = plt.subplots(figsize=(8, 4), facecolor="white")
axes.contour(x, y, x**2 / 20 + y**2, levels=np.arange(1, 13) ** 2 / 8, colors="0.5", linewidths=0.6, alpha=0.7)
axes.plot(0, 0, "+", color="0.4", markersize=14, markeredgewidth=2)
axes.grid(visible=False)
lines = []
for optimizer, marker in zip(OPTIMIZERS, "oX^svD", strict=True):
    style = {"marker": marker, "markevery": [-1], "markersize": 9, "linewidth": 1.2}
    lines += axes.plot([], [], label=type(optimizer).__name__, **style)
axes.legend(loc="lower left", ncols=2)
axes.set_title("step 0")
figure.draw_without_rendering()
figure.set_layout_engine("none")  # It would arrange each frame anew.


def draw(step):
    """Draw all paths up to a step."""
    for line, path in zip(lines, paths, strict=True):
        line.set_data(*path[: step + 1].T)
    axes.set_title(f"step {step}")
    return lines


frames = [*range(options.steps + 1), *[options.steps] * (options.steps // 6)]
animation = FuncAnimation(figure, draw, frames, interval=150)
show(animation, options)
for optimizer, path in zip(OPTIMIZERS, paths, strict=True):
    far = np.hypot(*path.T) > 1
    print(f"{type(optimizer).__name__:<8} within 1 of the minimum from step {len(far) - far[::-1].argmax()} on")
