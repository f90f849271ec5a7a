"""Measure steps of `fastoptim.mpi.Sharded` on 1 to n ranks, and draw a model of them to 4,096 ranks.

``mpiexec -n 4 python tools/mpi_model.py docs/mpi.png`` prints what was measured beside the model, and what the model
says for more ranks. The numbers of another network replace those measured here: ``--alpha 2e-6 --bandwidth 12.5e9``.
"""

from __future__ import annotations

import argparse
from math import ceil, log2
from time import perf_counter, sleep

import numpy as np
from mpi4py import MPI

import fastoptim as fo
from fastoptim.mpi import Sharded
from fastoptim.mpi.team import message_limit

WORLD = MPI.COMM_WORLD
BYTES = 4
"""Of a float32."""

MEASURED = 10_000_000
"""Number of parameters of the steps that are measured."""


def timed(comm, step, rounds):
    """Return the least seconds of a step that all ranks begin together, the first two left out."""
    seconds = []
    for _ in range(rounds + 2):
        comm.barrier()
        start = perf_counter()
        step()
        comm.barrier()
        seconds.append(perf_counter() - start)
    return min(seconds[2:])


def idle(comm):
    """Wait for the other ranks without taking a core from those that measure."""
    request = comm.Ibarrier()
    while not request.Test():
        sleep(0.01)


def exchange_seconds(comm, size):
    """Return the time of a message of some bytes in each direction between ranks 0 and 1."""
    out, into, other = np.zeros(size, np.uint8), np.empty(size, np.uint8), 1 - comm.rank

    def step():
        for _ in range(20):
            MPI.Request.Waitall([comm.Irecv(into, other), comm.Isend(out, other)])

    return timed(comm, step, 9) / 20


def step_seconds(comm, n_parameters):
    """Return the times of a step: sharded, and of a rank that averages by Allreduce and updates all parameters."""
    params, grads, mean = (fo.flatten({k: np.ones(n_parameters // 100, np.float32) for k in range(100)}) for _ in "123")
    sharded, alone = Sharded(fo.AdamW(), comm), fo.AdamW()

    def replica():
        comm.Allreduce(grads.flat, mean.flat)
        mean.flat[...] /= comm.size
        alone.update(params, mean)

    return timed(comm, lambda: sharded.update(params, grads), 9), timed(comm, replica, 9)


def model(n, n_parameters, alpha, bandwidth, update):
    """Return the seconds of a step on n ranks: sharded, and as replicas."""
    size = BYTES * n_parameters
    moved = 2 * (n - 1) / n * size / bandwidth
    messages = 2 * (n - 1) * ceil(size / n / message_limit(n)) + 2 * ceil(log2(n))
    return update / n + moved + messages * alpha, update + moved + 2 * ceil(log2(n)) * alpha


def draw(path, measured, ranks, times):
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for k, (name, color) in enumerate({"sharded": "C0", "replicas": "C1"}.items()):
        axes.plot(ranks, [each[k] for each in times], color=color, label=f"{name}, model")
        axes.plot([*measured], [each[k] for each in measured.values()], "o", color=color, label=f"{name}, measured")
    axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="seconds a step")
    axes.legend()
    figure.savefig(path, bbox_inches="tight", dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?")
    parser.add_argument("--parameters", type=int, default=MEASURED)
    parser.add_argument("--alpha", type=float, help="seconds that a message takes without its bytes")
    parser.add_argument("--bandwidth", type=float, help="bytes a second that a rank sends while it receives as many")
    options = parser.parse_args()
    measured = {}
    for n in range(1, WORLD.size + 1):
        comm = WORLD.Split(0 if WORLD.rank < n else MPI.UNDEFINED)
        if comm != MPI.COMM_NULL:
            measured[n] = step_seconds(comm, MEASURED)
            if n == 2:
                small, large = exchange_seconds(comm, 8), exchange_seconds(comm, 1 << 20)
        idle(WORLD)
    if WORLD.rank:
        return
    if len(measured) < 2:
        parser.error("run it by mpiexec on two ranks or more")
    alpha = options.alpha or small
    bandwidth = options.bandwidth or (1 << 20) / (large - small)
    update = measured[1][0]
    print(f"alpha {alpha:.2g} s, bandwidth {bandwidth:.2g} bytes/s, update of all on one rank {update:.2g} s")
    ranks = [2**k for k in range(13)]
    times = [model(n, options.parameters, alpha, bandwidth, update * options.parameters / MEASURED) for n in ranks]
    for n, (sharded, replica) in measured.items():
        of_sharded, of_replica = model(n, MEASURED, alpha, bandwidth, update)
        print(f"{n:>5} measured {sharded:.2g} s, replicas {replica:.2g} s; model {of_sharded:.2g}, {of_replica:.2g} s")
    for n, (sharded, replica) in zip(ranks, times, strict=True):
        print(f"{n:>5} model    {sharded:.2g} s, replicas {replica:.2g} s")
    if options.picture and options.parameters == MEASURED:
        draw(options.picture, measured, ranks, times)


if __name__ == "__main__":
    main()
