"""Kill a process at random moments while it saves in a loop; each time the file must be whole and of the last save.

``python tests/soak_checkpoints.py 200`` kills 200 times.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fastoptim as fo


def optimizer_of(step):
    """Return an optimizer in which every number is the number of the save."""
    opt = fo.Adam(lr=float(step))
    opt.iter = step
    for slot in opt.slots:
        setattr(opt, slot, {"W": np.full((300, 300), float(step)), "b": np.full(7, step, np.float32)})
    return opt


def save_until_killed(path, first, report):
    for step in range(first, sys.maxsize):
        optimizer_of(step).save(path, {"W": np.full((300, 300), float(step))})
        os.write(report, step.to_bytes(8, "little"))


def step_of(path):
    """Return the number of the save that a file is from, after checking every number in it."""
    params = {"W": np.zeros((300, 300))}
    opt = fo.load(path, params)
    arrays = [params["W"], *(array for slot in opt.slots for array in getattr(opt, slot).values())]
    assert all(np.all(array == opt.iter) for array in arrays), f"a mixture of saves: {opt}"
    assert opt.lr == opt.iter
    return opt.iter


def kill_once(path, step):
    """Start a process that saves from the next step on, kill it, and return the step of the file that it left."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            save_until_killed(path, step + 1, theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    time.sleep(random.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it ended by itself"
    assert os.WTERMSIG(status) == signal.SIGKILL
    with os.fdopen(ours, "rb") as stream:
        reported = stream.read()
    saved = int.from_bytes(reported[-8:], "little") if reported else step
    found = step_of(path)
    assert found in (saved, saved + 1), f"saved {saved}, found {found}"
    return found


def main(kills):
    random.seed(0)
    unfinished, step = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adam.safetensors"
        optimizer_of(step).save(path, {"W": np.zeros((300, 300))})
        for _ in range(kills):
            step = kill_once(path, step)
            for left in Path(folder).glob(".*"):
                unfinished += 1
                left.unlink()
            assert [*Path(folder).iterdir()] == [path]
    print(f"{kills} kills, {unfinished} of them in the middle of a file, {step} saves: each time the file was whole")


if __name__ == "__main__":
    main(int(sys.argv[1]))
