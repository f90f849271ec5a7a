"""A custom rule: five lines of Python for one element, compiled into the same kernel as the built-in rules.

Run ``python examples/custom_rule.py``. It trains on scikit-learn's handwritten digits.
"""

import argparse

import numpy as np

import fastoptim as fo
from fastoptim.compare import load_data


class SignMomentum(fo.Optimizer):
    """Moves every parameter by ``lr`` against the sign of its averaged gradient."""

    slots = ("m",)

    def __init__(self, lr=1e-3, beta=0.9):
        super().__init__()
        self.lr, self.beta = lr, beta

    def scalars(self):
        """Return the numbers of this step, in the order in which `rule` takes them."""
        return self.lr, self.beta

    @staticmethod
    def rule(p, g, m, lr, beta):
        """Update one element: its parameter, gradient and state, then the scalars."""
        m = beta * m + (1 - beta) * g
        return p - lr * np.sign(m), m


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train with a custom update rule.")
    parser.add_argument("--iterations", type=int, default=300)
    options = parser.parse_args()

    data = load_data("digits")
    network = fo.MultiLayerNet(64, [50, 50], 10, seed=0)
    optimizer = SignMomentum()
    rng = np.random.default_rng(0)

    def report(when):
        """Print how well the network does on images that it is not trained on."""
        loss, accuracy = network.loss(data.x_test, data.t_test), network.accuracy(data.x_test, data.t_test)
        print(f"{when:<6} loss {loss:.4f}  accuracy {accuracy:.4f}")

    report("before")
    for _ in range(options.iterations):
        batch = rng.integers(len(data.x_train), size=64)
        optimizer.update(network.params, network.gradient(data.x_train[batch], data.t_train[batch]))
    report("after")
