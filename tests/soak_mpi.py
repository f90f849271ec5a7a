"""Kill a rank at random moments while all of them train and save; each time all end, and the file is whole.

``python tests/soak_mpi.py 50`` kills 50 times.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fastoptim as fo
from mpi_launch import command, environment

PATIENCE_S = 60

TRAIN = """
import os, sys
from pathlib import Path
import numpy as np
from mpi4py import MPI
import fastoptim as fo
from fastoptim.mpi import Sharded

rank, folder = MPI.COMM_WORLD.rank, Path(sys.argv[1])


def report(event):
    (folder / f"{event}-{rank}.new").write_text(str(os.getpid()))
    (folder / f"{event}-{rank}.new").rename(folder / f"{event}-{rank}")


report("begun")
params = {"W": np.zeros((300, 301)), "b": np.zeros(7, np.float32)}
opt = Sharded(fo.Momentum(lr=1.0, momentum=1.0, clip_norm=1e9))
if (folder / "checkpoint").exists():
    opt.load(folder / "checkpoint", params)
else:
    opt.save(folder / "checkpoint", params)
while True:
    opt.update(params, {key: np.full_like(p, -1.0) for key, p in params.items()})
    opt.save(folder / "checkpoint", params)
    report("saved")
"""
"""With gradients of -1 and no loss of momentum, each velocity is the number of the step, and each parameter its sum."""


def check_file(path):
    """Return the number of steps of a file, after checking every number in it."""
    params = {"W": np.zeros((300, 301)), "b": np.zeros(7, np.float32)}
    opt = fo.load(path, params)
    steps = opt.iter
    assert all(np.all(array == steps * (steps + 1) / 2) for array in params.values()), f"a mixture of steps: {opt}"
    assert steps == 0 or all(np.all(array == steps) for array in opt.v.values()), f"a mixture of steps: {opt}"
    return steps


def kill_once(folder, n_ranks, event, before):
    """Start ranks that continue from a file, kill one after an event, and return the step of the file they left."""
    for path in [*folder.glob("begun-*"), *folder.glob("saved-*")]:
        path.unlink()
    argv, pipes = (
        command(n_ranks, folder / "train.py", folder),
        {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
    )
    process = subprocess.Popen(argv, env=environment(), text=True, **pipes)
    try:
        begin, pids = time.monotonic(), []
        while len(pids) < n_ranks:
            assert time.monotonic() < begin + PATIENCE_S, "the ranks do not start"
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
            pids = [int(path.read_text()) for path in folder.glob(f"{event}-[0-9]")]
        time.sleep(random.uniform(0, 0.3))
        os.kill(random.choice(pids), signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode != 0, "it ended as if nothing had happened"
        for pid in pids:
            while is_running(pid):
                assert time.monotonic() < begin + 2 * PATIENCE_S, f"rank of process {pid} is still there"
                time.sleep(0.01)
    finally:
        process.kill()
    if not (folder / "checkpoint").exists():
        return before
    steps = check_file(folder / "checkpoint")
    assert steps >= before + (event == "saved")
    return steps


def is_running(pid):
    try:
        # A process that has ended stays until its parent asks.
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main(kills):
    random.seed(0)
    steps, unfinished = 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.py").write_text(TRAIN, encoding="utf-8")
        for k in range(kills):
            steps = kill_once(folder, 2 + k % 3, "begun" if k % 4 == 1 else "saved", steps)
            for left in folder.glob(".checkpoint.*"):
                unfinished += 1
                left.unlink()
    print(f"{kills} kills, {unfinished} of them in the middle of a file, {steps} steps: all ended, the file was whole")


if __name__ == "__main__":
    main(int(sys.argv[1]))
