r"""
Batch normalization
===================

The same network, with initial weights of six sizes. Without batch normalization it learns only if the size is right:
small weights let nothing through, and large ones too much. With batch normalization the values of each unit are shifted
and scaled to mean 0 and variance 1 over the batch, and the network learns from all six sizes.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from fastoptim.comparison.digits import load_data
from pictures import setup, show

options = setup(__doc__, epochs=20)
SCALES = [0.001, 0.01, 0.05, 0.1, 0.3, 1.0]

# %%
# Plain SGD on 1000 of scikit-learn's digits, five hidden layers. With normalization a network also has the parameters
# ``gamma1, beta1, gamma2, …``, which the optimizer finds in the same dict.

data = load_data("digits")
x, t = data.x_train[:1000], data.t_train[:1000]


def train(scale, use_batchnorm):
    """Return the accuracy after each epoch, on the images that it learns from."""
    sizes = 64, [100] * 5, 10
    network = fo.MultiLayerNetExtend(*sizes, weight_init_std=scale, use_batchnorm=use_batchnorm, seed=0)
    optimizer, rng, accuracies = fo.SGD(lr=0.01), np.random.default_rng(0), []
    for _ in range(options.epochs):
        for batch in np.split(rng.permutation(len(x)), 10):
            optimizer.update(network.params, network.gradient(x[batch], t[batch]))
        accuracies.append(network.accuracy(x, t))
    return accuracies


# %%
# Each panel is a standard deviation of the initial weights. One of them, 0.3, suits these images and layers without
# normalization, and there it is the faster way.

figure, panels = plt.subplots(2, 3, figsize=(8, 5), sharex=True, sharey=True)
for scale, axes in zip(SCALES, panels.flat, strict=True):
    ends = {}
    for use_batchnorm, style, name in ((True, "-", "with"), (False, "--", "without")):
        accuracies = train(scale, use_batchnorm)
        axes.plot(range(1, options.epochs + 1), accuracies, style, label=f"{name} batch normalization")
        ends[name] = accuracies[-1]
    axes.set(title=f"initial weights of {scale}", ylim=(0, 1.05))
    print(f"weights of {scale:<6} with {ends['with']:.3f}, without {ends['without']:.3f}")
figure.supxlabel("epochs")
figure.supylabel("accuracy")
figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
show(figure, options)
