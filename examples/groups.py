"""
Weight decay of weights only
============================

A group is a pattern of keys with hyperparameters of its own. Three networks learn scikit-learn's handwritten digits:
without decay, with decay of all parameters, and with decay of all but the biases, whose keys begin with "b".
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from fastoptim.comparison.digits import load_data
from pictures import setup, show

options = setup(__doc__, iterations=2000)

# %%
# The pattern ``"b*"`` matches ``b1``, ``b2`` and ``b3``. Each optimizer still makes one call of one kernel a step.

CASES = {
    "no decay": fo.AdamW(weight_decay=0),
    "decay of weights only": fo.AdamW(weight_decay=1, groups={"b*": {"weight_decay": 0}}),
    "decay of all parameters": fo.AdamW(weight_decay=1),
}


def norm(network, letter):
    """Return the norm of all weights, "W", or of all biases, "b"."""
    return np.sqrt(sum((p**2).sum() for key, p in network.params.items() if key.startswith(letter)))


# %%
# Both kinds of decay shrink the weights in the same way. The biases shrink only where they decay too.

data = load_data("digits")
figure, panels = plt.subplots(1, 2, figsize=(8, 4))
panels = dict(zip("Wb", panels, strict=True))
for (name, optimizer), style in zip(CASES.items(), (":", "-", "--"), strict=True):
    network, rng = fo.MultiLayerNet(64, [50, 50], 10, seed=0), np.random.default_rng(0)
    norms = {"W": [], "b": []}
    for _ in range(options.iterations):
        batch = rng.integers(len(data.x_train), size=64)
        optimizer.update(network.params, network.gradient(data.x_train[batch], data.t_train[batch]))
        for letter, curve in norms.items():
            curve.append(norm(network, letter))
    for letter, curve in norms.items():
        panels[letter].plot(curve, style, linewidth=3 if style == "-" else 1.8, label=name)
    accuracy = network.accuracy(data.x_test, data.t_test)
    print(f"{name:<24} weights {norms['W'][-1]:.2f}  biases {norms['b'][-1]:.2f}  test accuracy {accuracy:.3f}")
panels["W"].set(title="norm of all weights", xlabel="updates")
panels["b"].set(title="norm of all biases", xlabel="updates")
panels["W"].legend()
show(figure, options)
