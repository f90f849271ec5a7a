"""The comparison of the notes, step by step: five update rules, one network each, the same batches of MNIST.

Run ``python examples/compare_mnist.py``. If MNIST is not available, it trains on scikit-learn's small digits.
``fastoptim compare`` does the same on all cores.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from fastoptim import SGD, AdaGrad, Adam, Momentum, MultiLayerNet, RMSprop, smooth_curve
from fastoptim.compare import load_data

parser = argparse.ArgumentParser(description="Compare five update rules on MNIST.")
parser.add_argument("--iterations", type=int, default=2000)
parser.add_argument("--output", type=Path, default=Path("comparison"))
parser.add_argument("--data", default="auto", help="auto, mnist, digits or a folder")
options = parser.parse_args()

# Step 1: the images, one per row, and their digits.
data = load_data(options.data)
print(data.notice or f"training on {data.title}")
n_images, n_pixels = data.x_train.shape
batch_size = 128

# Step 2: one optimizer and one network per rule.
optimizers = {"SGD": SGD(), "Momentum": Momentum(), "AdaGrad": AdaGrad(), "Adam": Adam(), "RMSprop": RMSprop()}
networks = {name: MultiLayerNet(n_pixels, [100, 100, 100, 100], 10) for name in optimizers}
losses: dict[str, list[float]] = {name: [] for name in optimizers}

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

# Step 4: the picture.
figure = Figure(figsize=(8, 5.5), dpi=150, layout="constrained")
axes = figure.add_subplot(xlabel="iterations", ylabel="loss", ylim=(0, 1), title=data.title)
for (name, curve), marker in zip(losses.items(), "oxsDv", strict=True):
    axes.plot(smooth_curve(curve), marker=marker, markevery=100, label=name)
axes.legend(loc="upper right")
options.output.mkdir(parents=True, exist_ok=True)
figure.savefig(options.output / "compare_mnist.png")
print(f"wrote {options.output / 'compare_mnist.png'}")
