"""
Gradients by hand, by autograd and by JAX
=========================================

An optimizer takes gradients from anywhere. A network of one hidden layer learns a curve three times: with
back-propagation written by hand, with HIPS autograd, and with JAX. A library that is not installed is left out.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__, steps=500)
rng = np.random.default_rng(0)
x = np.linspace(-3, 3, 80)[:, None]
y = np.sin(2 * x) + 0.1 * rng.standard_normal(x.shape)
start = {
    "W1": rng.standard_normal((1, 20)),
    "b1": np.zeros(20),
    "W2": rng.standard_normal((20, 1)) / 5,
    "b2": np.zeros(1),
}


def predict(params, numpy=np):
    """Return the output of the network, computed by NumPy, or by autograd's or JAX's version of it."""
    return numpy.tanh(x @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]


# %%
# By hand: the derivatives of each array, from the last to the first.


def by_hand(params):
    """Return the gradient of the mean squared error."""
    hidden = np.tanh(x @ params["W1"] + params["b1"])
    output = 2 * (hidden @ params["W2"] + params["b2"] - y) / len(x)
    inner = (output @ params["W2"].T) * (1 - hidden**2)
    return {"W1": x.T @ inner, "b1": inner.sum(0), "W2": hidden.T @ output, "b2": output.sum(0)}


sources = {"by hand": by_hand}

# %%
# autograd differentiates NumPy code, in float64. ``grad`` returns a dict like that of the parameters.

try:
    import autograd
    import autograd.numpy as autograd_numpy

    sources["autograd"] = autograd.grad(lambda params: autograd_numpy.mean((predict(params, autograd_numpy) - y) ** 2))
except ImportError:
    print("autograd is not installed: pip install autograd")

# %%
# JAX compiles the gradient, and computes it in float32 unless told otherwise. The parameters remain NumPy's float64
# arrays, and the update promotes the gradients as NumPy would.

try:
    import jax

    sources["JAX"] = jax.jit(jax.grad(lambda params: jax.numpy.mean((predict(params, jax.numpy) - y) ** 2)))
except ImportError:
    print("JAX is not installed: pip install jax")

# %%
# The three networks agree. autograd's parameters differ in the last digits of float64. JAX's differ more, because its
# gradients have the digits of float32.

paths, fits = {}, {}
for name, gradient in sources.items():
    params, optimizer = {key: array.copy() for key, array in start.items()}, fo.Adam(lr=0.01)
    paths[name] = []
    for _ in range(options.steps):
        optimizer.update(params, gradient(params))
        paths[name].append(np.concatenate([array.ravel() for array in params.values()]))
    fits[name] = predict(params)
    print(f"{name:<8} mean squared error {np.mean((fits[name] - y) ** 2):.4f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4))
left.plot(x, y, ".", color="0.5", label="data")
for (name, fit), style in zip(fits.items(), ("-", "--", ":"), strict=False):
    left.plot(x, fit, style, linewidth=2.5, label=name)
    if name != "by hand":
        difference = np.abs(np.subtract(paths[name], paths["by hand"])).max(axis=1)
        right.plot(difference, style, color=left.lines[-1].get_color(), label=name)
        print(f"{name}: largest difference of a parameter from those by hand {difference.max():.0e}")
left.set(title="data, and three networks", xlabel="x", ylim=(-1.5, 2.2))
left.legend(ncols=2)
right.set(yscale="log", title="largest difference from those by hand", xlabel="updates")
if not right.lines:
    right.remove()  # Neither library is installed.
show(figure, options)
