r"""
A custom rule
=============

An optimizer is a formula for one number. Write it in Python, and it is compiled into the same kind of kernel as the
built-in rules. This one moves every parameter by the learning rate :math:`\eta` against the sign of its averaged
gradient:

.. math:: m \leftarrow \beta m + (1 - \beta) g, \qquad p \leftarrow p - \eta\,\mathrm{sign}(m)
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from fastoptim.comparison.digits import load_data
from pictures import setup, show

options = setup(__doc__, iterations=600)


class SignMomentum(fo.Optimizer):
    """Moves every parameter by ``lr`` against the sign of its averaged gradient."""

    slots = ("m",)

    def __init__(self, lr=1e-3, beta=0.9, **keywords):
        super().__init__(**keywords)
        self.lr, self.beta = lr, beta

    def scalars(self):
        """Return the numbers of this step, in the order in which `rule` takes them."""
        return self.lr, self.beta

    @staticmethod
    def rule(p, g, m, lr, beta):
        """Update one element: its parameter, gradient and state, then the scalars."""
        m = beta * m + (1 - beta) * g
        return p - lr * np.sign(m), m


# %%
# ``check_rule`` finds out whether the rule does the same compiled as in NumPy, also on zeros, NaN and huge numbers. It
# raises an error that says what is wrong, or nothing.

fo.check_rule(SignMomentum)

# %%
# Every step changes every parameter by the learning rate, so the network never comes to rest unless the learning rate
# falls. Schedules work without a line of code in the class, and because the constructor passes its keywords on, so do
# clipping, weight decay and all other transforms.

optimizers = {
    "lr 0.002": SignMomentum(lr=2e-3),
    "lr 0.002, falling to 0": SignMomentum(lr=fo.schedules.cosine(2e-3, options.iterations)),
}
data = load_data("digits")
figure, axes = plt.subplots()
for (name, optimizer), style in zip(optimizers.items(), ("--", "-"), strict=True):
    network, rng = fo.MultiLayerNet(64, [50, 50], 10, seed=0), np.random.default_rng(0)
    before = network.accuracy(data.x_test, data.t_test)
    losses = []
    for _ in range(options.iterations):
        batch = rng.integers(len(data.x_train), size=64)
        optimizer.update(network.params, network.gradient(data.x_train[batch], data.t_train[batch]))
        losses.append(network.loss(data.x_train, data.t_train))
    after = network.accuracy(data.x_test, data.t_test)
    low, high = min(losses[-30:]), max(losses[-30:])
    print(f"{name:<22}  test accuracy {before:.3f} before, {after:.3f} after; last losses {low:.4f} to {high:.4f}")
    axes.plot(losses, style, label=name)
axes.set(yscale="log", xlabel="updates", ylabel="loss of all training images")
axes.set_title("Steps of one length: the loss settles only if the learning rate falls")
axes.legend()
show(figure, options)
