"""Throw exceptions into threads that update: nothing hangs, and each step is done or not done."""

import ctypes
import random
import sys
import threading
import time

from counting import WAYS, Count, assert_steps, ones


class Thrown(BaseException):
    """What is thrown into a thread."""


def exceptions(count, seed=0):
    """Throw ``count`` exceptions at random moments into threads that update one optimizer.

    Each kind of arrays is compiled before: Numba may be unable to compile after an exception in a compilation.
    """
    rng = random.Random(seed)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for make, dtypes in WAYS.values():
            params = make()
            Count().update(params, ones(params, dtypes))
        for _ in range(count):
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
