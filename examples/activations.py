r"""
Initial weights, and what they let through
==========================================

Random numbers go through five layers of 100 units, before any training. If weights are drawn too small, all activations
become equal, those of zero, and almost no gradient comes back to the first layer. If they are drawn too large, sigmoids
are switches: nearly all are 0 or 1. The standard deviation :math:`\sqrt{1/n}` of Xavier, for :math:`n` inputs, keeps
the spread of sigmoids from layer to layer, and :math:`\sqrt{2/n}` of He that of ReLU, which lets only half of its
inputs through.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__, samples=1000)
LAYERS = 5

# %%
# ``weight_init_std`` is a number or the name of a rule. A network's parameters are arrays, so the activations of its
# layers take three lines of NumPy.

CASES = [("sigmoid", 1.0), ("sigmoid", 0.01), ("sigmoid", "xavier"), ("relu", 0.01), ("relu", "xavier"), ("relu", "he")]


def activations(network, x):
    """Return the activations of all hidden layers."""
    hidden = []
    for k in range(1, LAYERS + 1):
        x = x @ network.params[f"W{k}"] + network.params[f"b{k}"]
        x = np.maximum(x, 0) if network.activation == "relu" else 1 / (1 + np.exp(-x))
        hidden.append(x)
    return hidden


# %%
# Each row is a network, and each panel the histogram of all activations of a layer. On the right is the norm of the
# gradient of the first layer. Xavier's spread alone does not help sigmoids: each passes at most a quarter of the
# gradient that it gets, so after five of them little is left. The zeros of ReLU, about one half, are not drawn.

rng = np.random.default_rng(0)
x, t = rng.standard_normal((options.samples, 100)), rng.integers(10, size=options.samples)
figure, panels = plt.subplots(len(CASES), LAYERS, figsize=(8, 8.5), sharex="row")
for row, (activation, std) in zip(panels, CASES, strict=True):
    network = fo.MultiLayerNet(100, [100] * LAYERS, 10, activation, std, seed=0, dtype=np.float64)
    grads = network.gradient(x, t)
    first = np.linalg.norm(grads["W1"])
    end = 1 if activation == "sigmoid" else 2
    for k, (axes, a) in enumerate(zip(row, activations(network, x), strict=True)):
        axes.hist(a[a > 0], bins=30, range=(0, end), color="C0" if activation == "sigmoid" else "C1")
        axes.set(yticks=[], xlim=(0, end), xticks=[0, end])
        axes.spines["left"].set_visible(False)
        title = f"layer {k + 1}\n" if axes in panels[0] else ""
        axes.set_title(f"{title}spread {a.std():.2g}", fontsize=8.5)
    row[0].set_ylabel(f"{activation}\n{std}")
    axes.text(1.1, 0.5, f"gradient\n{first:.1g}", transform=axes.transAxes, va="center", fontsize=9)
    print(f"{activation:<7} {std!s:<6}  spread of the last layer {a.std():.2g}  gradient of the first {first:.1g}")
show(figure, options)
