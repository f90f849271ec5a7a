"""What the pictures of pages draw with: `conf.py` passes this text to the directive ``plot``."""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo  # noqa: F401, what the pages use.


def draw_path(axes, optimizer):
    """Draw the path of an optimizer down the valley of the notes, in 30 steps."""
    params = {"x": -7.0, "y": 2.0}
    path = [tuple(params.values())]
    for _ in range(30):
        optimizer.update(params, {"x": params["x"] / 10, "y": 2 * params["y"]})
        path.append(tuple(params.values()))
    x, y = np.meshgrid(np.linspace(-9, 9, 91), np.linspace(-3.5, 3.5, 41))
    axes.contour(x, y, x**2 / 20 + y**2, levels=np.arange(1, 11) ** 2 / 8, colors="0.5", linewidths=0.5, alpha=0.6)
    axes.plot(*np.transpose(path), "o-", color="C1", markersize=3, linewidth=1.2)
    axes.plot(0, 0, "+", color="C0", markersize=9)
    axes.set(xlim=(-9, 9), ylim=(-3.5, 3.5))


def draw(optimizer, title=""):
    """Draw one path."""
    axes = plt.figure(figsize=(6, 2.6)).subplots()
    draw_path(axes, optimizer)
    axes.set(xlabel="x", ylabel="y", title=title)


def draw_all(optimizers, titles=None):
    """Draw six paths, each with a title, or with the name of its rule."""
    panels = plt.figure(figsize=(9, 4)).subplots(2, 3, sharex=True, sharey=True)
    for axes, optimizer, title in zip(panels.flat, optimizers, titles or [""] * 6, strict=True):
        draw_path(axes, optimizer)
        axes.set_title(title or type(optimizer).__name__)


def in_chinese():
    """Leave the text of a picture to the reader's fonts: those of matplotlib have no Chinese characters."""
    plt.rcParams["svg.fonttype"] = "none"
    plt.rcParams["font.family"] = "sans-serif"
