r"""
A failure in silence: weights whose size does not matter
========================================================

Before a batch normalization only the direction of weights :math:`w` matters, not their norm. The gradient of such a
loss is orthogonal to :math:`w` and falls with its norm, as :math:`1/\|w\|`. So each step makes :math:`w` longer, the
angle of the next step smaller, and nothing in the loss tells. Weight decay shortens :math:`w` and so keeps the angle:
here it regularizes nothing, but sets the effective learning rate.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__, steps=10000)

# %%
# The loss is :math:`-\cos(w, d)` for a direction :math:`d`, seen through noise. For four fifths of the time
# :math:`d` stays, then it is another one: new data.

SIZE = 30
rng = np.random.default_rng(0)
directions = np.linalg.qr(rng.standard_normal((SIZE, 2)))[0].T
noise = 0.5 * rng.standard_normal((options.steps, SIZE))
start = rng.standard_normal(SIZE)
start /= np.linalg.norm(start)

CASES = {
    "SGD": fo.SGD(lr=0.1),
    "SGD, weight decay 0.01": fo.SGD(lr=0.1, weight_decay=0.01),
    "Adam": fo.Adam(lr=0.01),
    "Adam, weight decay 0.1": fo.Adam(lr=0.01, weight_decay=0.1),
}


def angle(a, b):
    """Return the angle between two vectors, in degrees."""
    return np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))


def train(optimizer):
    """Return the norm of the weights, the angle of each step, and the angle to the direction that is right."""
    params, curves = {"w": start.copy()}, []
    for step in range(options.steps):
        d = directions[int(step >= 0.8 * options.steps)]
        w, norm = params["w"], np.linalg.norm(params["w"])
        seen, before = d + noise[step], w.copy()
        optimizer.update(params, {"w": (w * (w @ seen) / norm**2 - seen) / norm})
        curves.append((norm, angle(before, w), angle(w, d)))
    return np.array(curves).T


# %%
# Without decay the weights grow, and their steps turn them less and less. At first that even looks good: smaller steps
# average the noise away. When the data change, the weights without decay take long to turn around.

figure, panels = plt.subplots(3, figsize=(8, 7.5), sharex=True)
for (name, optimizer), style in zip(CASES.items(), ("-", "--", "-", "--"), strict=True):
    norms, turns, errors = train(optimizer)
    turns = np.convolve(turns, np.ones(50) / 50, "valid")
    for axes, curve in zip(panels, (norms, turns, errors), strict=True):
        axes.plot(np.linspace(0, options.steps, len(curve)), curve, style, linewidth=1.3, label=name)
    slow = np.argmax(errors[int(0.8 * options.steps) :] < 20)
    print(
        f"{name:<23} norm {norms[-1]:4.1f}  angle of a step {turns[-1]:.2f}°  within 20° of the new {slow} steps later"
    )
panels[0].set(title="norm of the weights")
panels[1].set(yscale="log", yticks=[0.1, 1, 10], yticklabels=["0.1°", "1°", "10°"], title="angle of a step, mean of 50")
panels[2].set(yticks=[0, 30, 60, 90], yticklabels=["0°", "30°", "60°", "90°"], xlabel="updates")
panels[2].set_title("angle to the right direction")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
show(figure, options)
