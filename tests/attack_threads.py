"""Throw exceptions into threads that update and compile: nothing hangs, and each step is done or not done."""

import ctypes
import random
import sys
import threading
import time

import numpy as np

import fastoptim as fo
from counting import WAYS, Count, assert_steps, ones


class Thrown(BaseException):
    """What is thrown into a thread."""


def new_rule(number):
    """Return an optimizer that has to be compiled."""
    names = {"fo": fo}
    exec(
        "class Rule(fo.Optimizer):\n"
        "    def scalars(self): return ()\n"
        "    @staticmethod\n"
        f"    def rule(p, g): return p - g * {number}",
        names,
    )
    return names["Rule"]()


def exceptions(count, seed=0, compile_every=50):
    """Throw ``count`` exceptions at random moments into threads that update one optimizer, or compile a new rule."""
    rng = random.Random(seed)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for k in range(count):
            if k % compile_every == 0:
                _throw(new_rule(rng.random()), {"a": np.zeros(3)}, {"a": np.ones(3)}, rng.random() * 0.3, n_threads=1)
                continue
            make, dtypes = WAYS[rng.choice(sorted(WAYS))]
            params, opt = make(), Count()
            grads = ones(params, dtypes)
            _throw(opt, params, grads, rng.random() * 1e-3, n_threads=2)
            opt.update(params, grads)
            assert_steps(opt, params, opt.iter)
    finally:
        sys.setswitchinterval(interval)


def _throw(opt, params, grads, delay, n_threads):
    stop = threading.Event()

    def work():
        try:
            while not stop.is_set():
                opt.update(params, grads)
        except Thrown:
            pass

    threads = [threading.Thread(target=work, daemon=True) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    time.sleep(delay)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threads[0].ident), ctypes.py_object(Thrown))
    time.sleep(1e-4)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread waits for ever"


if __name__ == "__main__":
    exceptions(int(sys.argv[1]))
