r"""
A curved valley, a saddle, a ridge: slow without a word
=======================================================

An optimizer that makes no progress raises no error: its loss looks flat, as at a minimum. Here are three landscapes in
which this happens, and four rules, each with the best of 40 learning rates:

* Rosenbrock's valley :math:`(1 - x)^2 + 100 (y - x^2)^2` is steep across and flat along a curve.
* The saddle :math:`x^2 - y^2 + y^4/4` is left only in the direction of :math:`y`, whose gradient is nearly zero there.
* The ridge :math:`|x - y| + (x + y)^2/100` has sides whose gradient never becomes small, so steps of one length jump
  across it, from side to side.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__, steps=300)
RULES = {"SGD": fo.SGD, "Momentum": fo.Momentum, "RMSprop": fo.RMSprop, "Adam": fo.Adam}
RATES = np.geomspace(1e-4, 3, 40)

# %%
# Each landscape is a function, its gradient, a start, its lowest value, and the part of the plane that is drawn.


def rosenbrock(x, y):
    """Return the height and its two partial derivatives."""
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2, -2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)


def saddle(x, y):
    """Return the height above the two minima, and its partial derivatives."""
    return x**2 - y**2 + y**4 / 4 + 1, 2 * x, -2 * y + y**3


def ridge(x, y):
    """Return the height and its partial derivatives, of which one side's is taken on the ridge."""
    side, along = np.sign(x - y), (x + y) / 50
    return np.abs(x - y) + (x + y) ** 2 / 100, side + along, -side + along


LANDSCAPES = {
    rosenbrock: ((-1.5, 1.0), (-2, 2), (-1, 3)),
    saddle: ((-1.5, 1e-5), (-2, 2), (-2, 2)),
    ridge: ((-1.5, -1.9), (-2, 1), (-2, 1)),
}


def run(rule, landscape, start):
    """Return the learning rate with the smallest maximum of the last 50 losses, and its path."""
    point = dict(zip("xy", start, strict=True))

    def gradient(p):
        return dict(zip("xy", landscape(p["x"], p["y"])[1:], strict=True))

    def loss(p):
        return landscape(p["x"], p["y"])[0]

    losses = fo.sweep(rule, point, {"lr": RATES}, gradient, options.steps, loss=loss, vectorized=True).losses
    lr = RATES[np.nanargmin(losses[:, -50:].max(axis=1))]
    optimizer, path = rule(lr=lr), [start]
    for _ in range(options.steps):
        optimizer.update(point, gradient(point))
        path.append((point["x"], point["y"]))
    return lr, np.array(path).T


# %%
# Above are the paths from the grey point, below the losses. On the saddle SGD's loss stays at 1 as if it had arrived,
# and then falls; RMSprop divides by the size of the gradient, so a tiny one does not hold it up. In Rosenbrock's valley
# SGD, Momentum and RMSprop are fast until they reach its floor.

figure, panels = plt.subplots(2, 3, figsize=(8, 6))
for (landscape, (start, xlim, ylim)), (above, below) in zip(LANDSCAPES.items(), panels.T, strict=True):
    x, y = np.meshgrid(np.linspace(*xlim, 200), np.linspace(*ylim, 200))
    height = landscape(x, y)[0]
    levels = np.quantile(height, np.linspace(0, 1, 12)[1:-1])
    above.contour(x, y, height, levels=levels, colors="0.5", linewidths=0.6, alpha=0.7)
    for (name, rule), style in zip(RULES.items(), ("-", "--", "-.", ":"), strict=True):
        lr, path = run(rule, landscape, start)
        losses = landscape(*path)[0]
        above.plot(*path, style, linewidth=1.4)
        below.plot(losses, style, label=name)
        middle, end = losses[len(losses) // 2], losses[-1]
        print(f"{landscape.__name__:<10} {name:<8} lr {lr:<7.2g} loss {middle:.1e} half way, {end:.1e} at the end")
    above.plot(*start, "o", color="0.5")
    above.set(xlim=xlim, ylim=ylim, title=landscape.__name__.capitalize())
    above.grid(visible=False)
    below.set(yscale="log", ylim=(1e-10, 1e3), xlabel="updates")
panels[1, 0].set_ylabel("loss")
panels[1, 0].legend(loc="lower left")
show(figure, options)
