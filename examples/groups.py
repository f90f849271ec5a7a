"""Weight decay of weights only: a group of parameters with another hyperparameter.

Three networks learn scikit-learn's handwritten digits: without decay, with decay of all parameters, and with decay of
all but the biases, whose keys begin with "b". Run ``python examples/groups.py``.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import fastoptim as fo
from fastoptim.compare import load_data

CASES = {
    "no decay": fo.AdamW(weight_decay=0),
    "decay of weights only": fo.AdamW(weight_decay=1, groups={"b*": {"weight_decay": 0}}),
    "decay of all parameters": fo.AdamW(weight_decay=1),
}
STYLES = {
    "no decay": {"color": "C0", "linestyle": ":"},
    "decay of weights only": {"color": "C1", "linewidth": 3},
    "decay of all parameters": {"color": "k", "linestyle": "--"},
}


def norm(network, letter):
    """Return the norm of all weights, "W", or of all biases, "b"."""
    return np.sqrt(sum((p**2).sum() for key, p in network.params.items() if key.startswith(letter)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train three networks with and without weight decay.")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("comparison"))
    options = parser.parse_args()

    data = load_data("digits")
    figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
    panels = dict(zip("Wb", figure.subplots(1, 2), strict=True))
    for name, optimizer in CASES.items():
        network, rng = fo.MultiLayerNet(64, [50, 50], 10, seed=0), np.random.default_rng(0)
        norms = {"W": [], "b": []}
        for _ in range(options.iterations):
            batch = rng.integers(len(data.x_train), size=64)
            optimizer.update(network.params, network.gradient(data.x_train[batch], data.t_train[batch]))
            for letter, curve in norms.items():
                curve.append(norm(network, letter))
        for letter, curve in norms.items():
            panels[letter].plot(curve, **STYLES[name], label=name)
        accuracy = network.accuracy(data.x_test, data.t_test)
        print(f"{name:<24} weights {norms['W'][-1]:.2f}  biases {norms['b'][-1]:.2f}  test accuracy {accuracy:.3f}")
    panels["W"].set(title="all weights", xlabel="updates", ylabel="norm")
    panels["b"].set(title="all biases", xlabel="updates")
    panels["W"].legend()
    figure.suptitle("Both kinds of decay shrink the weights; the group leaves the biases free")
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "groups.png")
    print(f"wrote {options.output / 'groups.png'}")
