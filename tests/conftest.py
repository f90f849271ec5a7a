import ctypes
import signal

import pytest
from numba.core.ccallback import CFunc
from numba.core.dispatcher import Dispatcher

import fastoptim as fo
import naive
from fastoptim import threads
from fastoptim.kernels import table


@pytest.fixture(params=naive.RULES)
def pair(request):
    """The oracle's and the library's optimizer of one rule, once for each of the six."""
    return lambda **hyper: tuple(getattr(module, request.param)(**hyper) for module in (naive, fo))


@pytest.fixture
def compiled(monkeypatch):
    """A list that grows with every function that Numba compiles, or loads from its cache, from here on."""
    seen = []

    def watch(cls):
        compile_ = cls.compile

        def watched(self, *signature):
            # Numba also asks dispatchers for signatures they have; only a new one costs anything.
            if cls is CFunc or signature[0] not in self.overloads:
                seen.append((self, *signature))
            return compile_(self, *signature)

        monkeypatch.setattr(cls, "compile", watched)

    watch(Dispatcher)
    watch(CFunc)
    return seen


@pytest.fixture
def launches(monkeypatch):
    """A list of (total, parallel?) that grows with every kernel that runs."""
    seen = []
    serial, threaded = threads.run, threads.run_parallel

    def totals(program):
        count = ctypes.c_int64.from_address(program + 8 * table.COUNT).value
        return [ctypes.c_int64.from_address(program + 8 * (table.SEGMENTS + 3 * k + 2)).value for k in range(count)]

    def watch(name, run, is_parallel):
        def watched(program, *args):
            seen.extend((total, is_parallel) for total in totals(program))
            run(program, *args)

        monkeypatch.setattr(threads, name, watched)

    watch("run", serial, False)
    watch("run_parallel", threaded, True)
    return seen


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Whoever runs the tests in the background of a shell has them ignore Ctrl-C, and their processes with them."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
