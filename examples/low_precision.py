r"""
State in half of the memory
===========================

With ``state_dtype="bfloat16"`` an optimizer stores its state in half of the memory, with 8 bits of precision in place
of float32's 24. A change by less than the last bit is lost, and :math:`v \leftarrow \beta_2 v + (1 - \beta_2) g^2` with
Adam's :math:`\beta_2 = 0.999` makes such changes. ``"bfloat16-stochastic"`` rounds up or down at random, so that on
average nothing is lost.
"""

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import fastoptim as fo
from fastoptim.comparison.digits import load_data
from pictures import setup, show

options = setup(__doc__, iterations=2000, seeds=1, data="auto")
PRECISIONS = {"float32": None, "bfloat16": "bfloat16", "bfloat16-stochastic": "bfloat16-stochastic"}
try:
    import ml_dtypes  # noqa: F401
except ImportError:
    print("bfloat16 needs ml_dtypes: pip install 'fastoptim[bfloat16]'")
    PRECISIONS = {"float32": None}

# %%
# A thousand parameters get random gradients of standard deviation 1, and then of 0.1, as late in a training. :math:`v`
# should fall then.

means = {}
for name, state_dtype in PRECISIONS.items():
    params, optimizer = {"w": np.zeros(1000, np.float32)}, fo.Adam(state_dtype=state_dtype)
    rng, means[name] = np.random.default_rng(0), []
    for step in range(4000):
        size = 1 if step < 2000 else 0.1
        optimizer.update(params, {"w": size * rng.standard_normal(1000, np.float32)})
        means[name].append(optimizer.v["w"].astype(np.float32).mean())
    print(f"{name}: v {means[name][1999]:.3f} half way, {means[name][-1]:.3f} at the end")

# %%
# Adam in the comparison of the notes: the end loss is the mean of the last hundred iterations. All begin with the same
# weights and see the same batches.

data = load_data(options.data)
print(data.notice or f"training on {data.title}")
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
for name, values in ends.items():
    print(f"{name:<20}", *(f"{end:.3g}" for end in values), f" mean {np.mean(values):.3g}")

# %%
# Rounded to nearest, :math:`v` does not fall at all. At the end Adam's steps, which are divided by its root, are a
# third of what they should be, and no error tells. So training falls behind where gradients become tiny: on
# scikit-learn's digits after 500 iterations, on MNIST not in 2000.

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4))
for name, (color, line, width) in zip(PRECISIONS, [("0.5", "-", 5), ("C1", "--", 2), ("C0", ":", 2)], strict=False):
    left.plot(means[name], line, color=color, linewidth=width, label=name)
    smooth = np.convolve(losses[name], np.ones(50) / 50, "valid")
    right.plot(smooth, line, color=color, linewidth=width)
left.set(yscale="log", title="v: gradients fall to a tenth half way", xlabel="updates")
left.legend(loc="lower left")
right.set(yscale="log", title="loss of Adam, mean of 50", xlabel="iterations")
show(figure, options)
