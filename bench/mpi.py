"""Group *mpi*: a step of AdamW on two ranks, divided among them, beside replicas that each update everything.

``mpiexec -n 2 python -m bench.mpi ROUNDS`` prints the seconds of both, in turns, and the share of the state of rank 0.
Each rank has one thread, because threads of two ranks would share the cores.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import fastoptim as fo

from .figures import Figure, Skipped
from .peers import OURS, absent
from .results import Results

__all__ = ["CASE", "REPLICAS", "measured", "mpiexec", "share", "share_of_state"]

CASE, REPLICAS = "AdamW, 1e7 in 100 arrays on 2 ranks", "replicas"

ROOT = Path(__file__).parent.parent


def mpiexec() -> str | None:
    """Return the path of mpiexec, or None without it or mpi4py."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return None if absent("mpi4py") else shutil.which("mpiexec", path=path)


@cache
def measured(rounds: int) -> dict[str, Any]:
    """Return the samples of both by their names, and the share of the state, measured once by two processes."""
    command = [str(mpiexec()), "-n", "2", sys.executable, "-m", "bench.mpi", str(rounds)]
    env = {**os.environ, **dict.fromkeys(["NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")}
    done = subprocess.run(command, env=env, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout))


def share(rounds: int) -> float:
    """Return the part of the state that a rank has."""
    return float(measured(rounds)["share"])


def share_of_state(results: Results) -> Figure:
    """The part of the state that a rank has, times the number of ranks."""
    times = results.get("mpi", CASE)
    if OURS not in times:
        raise Skipped(absent("mpi4py") or f"not measured: {CASE}")
    return Figure(times[OURS].extra["share"] * 2, CASE)


def _main(rounds: int) -> None:
    from mpi4py import MPI

    from fastoptim.mpi import Sharded

    comm = MPI.COMM_WORLD
    params, others, grads, means = (
        fo.flatten({k: np.full(100_000, value, np.float32) for k in range(100)}) for value in (1.0, 1.0, 1e-3, 0.0)
    )
    sharded, alone = Sharded(fo.AdamW(), comm), fo.AdamW()

    def step_of_replica() -> None:
        comm.Allreduce(grads.flat, means.flat)
        means.flat[...] /= comm.size
        alone.update(others, means)

    steps = {OURS: lambda: sharded.update(params, grads), REPLICAS: step_of_replica}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(2 + rounds):
        for name, step in steps.items():
            comm.barrier()
            start = perf_counter()
            step()
            comm.barrier()
            samples[name].append(perf_counter() - start)
    np.testing.assert_allclose(params.flat, others.flat, rtol=1e-6)
    if comm.rank == 0:
        own = sum(array.size for array in (sharded.optimizer.m or {}).values())
        print(json.dumps({**{name: times[2:] for name, times in samples.items()}, "share": own / params.flat.size}))


if __name__ == "__main__":
    _main(int(sys.argv[1]))
