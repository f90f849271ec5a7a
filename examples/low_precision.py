"""
State in half of the memory
===========================

With ``state_dtype="bfloat16"`` an optimizer stores its state in half of the memory, rounded to nearest, and with
``"bfloat16-stochastic"`` rounded at random. It needs ml_dtypes: ``pip install fastoptim[bfloat16]``.
"""

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import fastoptim as fo
from fastoptim.compare import load_data
from pictures import setup, show

options = setup(__doc__, iterations=2000, seeds=1, data="auto")
PRECISIONS = {"float32": None, "bfloat16": "bfloat16", "bfloat16-stochastic": "bfloat16-stochastic"}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4))

# %%
# Where gradients are 1, the mean of their squares approaches 1. Rounded to nearest it stops as soon as a change is less
# than half of the distance of two numbers; rounded at random it moves on average as it should.

for name, state_dtype in PRECISIONS.items():
    params, g = {"w": np.zeros(100, np.float32)}, {"w": np.ones(100, np.float32)}
    optimizer = fo.RMSprop(decay_rate=0.999, state_dtype=state_dtype)
    means = []
    for _ in range(4000):
        optimizer.update(params, g)
        means.append(optimizer.h["w"].astype(float).mean())
    left.plot(means, label=name)
left.set(xlabel="updates", title="mean of squares of ones")
left.legend()

# %%
# Adam in the comparison of the notes: the end loss is the mean of the last hundred iterations. All three begin with the
# same weights and see the same batches.

data = load_data(options.data)
n_images, n_pixels = data.x_train.shape
ends = {name: [] for name in PRECISIONS}
for seed in range(options.seeds):
    networks = {name: fo.MultiLayerNet(n_pixels, [100] * 4, 10, seed=seed) for name in PRECISIONS}
    optimizers = {name: fo.Adam(state_dtype=state_dtype, state_seed=seed) for name, state_dtype in PRECISIONS.items()}
    losses = {name: [] for name in PRECISIONS}
    rng = np.random.default_rng(seed)
    # Matrix products are small: a second BLAS thread gains nothing. A limit holds only for a BLAS that is loaded.
    networks["float32"].predict(data.x_train[:1])
    with threadpool_limits(1, user_api="blas"):
        for _ in range(options.iterations):
            batch = rng.choice(n_images, 128)
            x, t = data.x_train[batch], data.t_train[batch]
            for name, network in networks.items():
                optimizers[name].update(network.params, network.gradient(x, t))
                losses[name].append(network.loss(x, t))
    for name, curve in losses.items():
        ends[name].append(np.mean(curve[-100:]))

for (name, values), marker in zip(ends.items(), "osD", strict=True):
    print(f"{name:<20}", *(f"{end:.4f}" for end in values), f" mean {np.mean(values):.4f}")
    right.plot(values, marker, label=name)
right.set(xlabel="seed", xticks=range(options.seeds), title=f"end loss of Adam, {data.title}")
show(figure, options)
