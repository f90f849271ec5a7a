r"""
Training on several ranks of MPI
================================

``mpiexec -n 2 python examples/mpi_mnist.py`` trains one network on two ranks. Each computes the gradient of its own
half of the batch; `fastoptim.mpi.Sharded` averages the gradients, updates a half of the parameters on each rank with a
half of the state, and exchanges them. Without ``mpiexec`` there is one rank, which has everything. It needs
``pip install 'fastoptim[mpi]'``.
"""

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import fastoptim as fo
from fastoptim.comparison.digits import load_data
from pictures import setup, show

options = setup(__doc__, iterations=300, data="auto")
try:
    from mpi4py import MPI

    from fastoptim.mpi import Sharded
except ImportError:
    print("mpi4py is not installed: pip install 'fastoptim[mpi]'")
    raise SystemExit from None
comm = MPI.COMM_WORLD

# %%
# All ranks begin with the same weights and draw the same batches. Rank r takes every n-th sample of a batch, from r on.

data = load_data(options.data)
n_images, n_pixels = data.x_train.shape
network = fo.MultiLayerNet(n_pixels, [100] * 4, 10, seed=0)
optimizer = Sharded(fo.AdamW(fo.schedules.cosine(2e-3, options.iterations), clip_norm=1.0), comm)
rng, losses = np.random.default_rng(0), []
network.predict(data.x_train[:1])
with threadpool_limits(1, user_api="blas"):
    for _ in range(options.iterations):
        batch = rng.choice(n_images, 120)
        own = batch[comm.rank :: comm.size]
        grads = network.gradient(data.x_train[own], data.t_train[own])
        optimizer.update(network.params, grads)
        losses.append(network.loss(data.x_train[batch], data.t_train[batch]))

# %%
# The mean of the gradients of equal parts is the gradient of the batch, so the loss falls as on one rank. Each has an
# n-th of the state.

n_own = sum(array.size for array in optimizer.optimizer.m.values())
n_all = sum(array.size for array in network.params.values())
print(f"rank {comm.rank} of {comm.size}: state of {n_own} of {n_all} parameters, last loss {np.mean(losses[-20:]):.4f}")
figure, axes = plt.subplots(figsize=(6, 4))
axes.plot(losses)
axes.set(yscale="log", title=f"AdamW on {data.title}, ranks: {comm.size}", xlabel="iterations", ylabel="loss")
if comm.rank == 0:
    show(figure, options)
