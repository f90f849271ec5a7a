"""
The comparison of the notes, step by step
=========================================

Five update rules train one network each, on the same random batches of MNIST. If MNIST is not available, they train on
scikit-learn's small digits. ``fastoptim compare`` does the same on all cores.
"""

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

from fastoptim import SGD, AdaGrad, Adam, Momentum, MultiLayerNet, RMSprop, smooth_curve
from fastoptim.comparison.digits import load_data
from pictures import setup, show

options = setup(__doc__, iterations=2000, data="auto")

# %%
# Step 1: the images, one per row, and their digits.

data = load_data(options.data)
print(data.notice or f"training on {data.title}")
n_images, n_pixels = data.x_train.shape
batch_size = 128

# %%
# Step 2: one optimizer and one network per rule.

optimizers = {"SGD": SGD(), "Momentum": Momentum(), "AdaGrad": AdaGrad(), "Adam": Adam(), "RMSprop": RMSprop()}
networks = {name: MultiLayerNet(n_pixels, [100, 100, 100, 100], 10) for name in optimizers}
losses: dict[str, list[float]] = {name: [] for name in optimizers}

# %%
# Step 3: in each iteration all networks learn from the same random batch.

# Their matrix products are small: a second BLAS thread gains nothing, and while it waits it slows the rest. The limit
# holds only for a BLAS that is loaded, so a prediction comes first.
networks["SGD"].predict(data.x_test[:1])
threadpool_limits(1, user_api="blas")
for iteration in range(options.iterations):
    batch = np.random.choice(n_images, batch_size)
    x, t = data.x_train[batch], data.t_train[batch]
    for name, optimizer in optimizers.items():
        network = networks[name]
        optimizer.update(network.params, network.gradient(x, t))
        losses[name].append(network.loss(x, t))
    if iteration % 100 == 0:
        print(f"{iteration:5}", *(f"{name} {curve[-1]:.3f}" for name, curve in losses.items()), sep="  ")

# %%
# Step 4: the picture. All rules have their default learning rates, so it shows these as much as the rules; the example
# *Which learning rate?* finds better ones.

figure, axes = plt.subplots()
for (name, curve), marker in zip(losses.items(), "oxsDv", strict=True):
    axes.plot(smooth_curve(curve), marker=marker, markevery=100, markersize=5, linewidth=1.2, label=name)
axes.set(xlabel="iterations", ylabel="loss of the batch, smoothed", ylim=(0, 1), title=data.title)
axes.legend(loc="upper right")
show(figure, options)
