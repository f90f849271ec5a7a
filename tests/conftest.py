import signal

import pytest
from numba.core.ccallback import CFunc
from numba.core.dispatcher import Dispatcher

import fastoptim as fo
import naive
from fastoptim.family import FAMILY
from fastoptim.kernels import launch


@pytest.fixture(params=FAMILY)
def pair(request):
    """A function that makes the oracle's and the library's optimizer, for each line of the table."""
    return lambda **hyper: tuple(getattr(module, request.param)(**hyper) for module in (naive, fo))


@pytest.fixture
def compiled(monkeypatch):
    """A list of all functions that Numba compiles, or loads from its cache, during the test."""
    seen = []

    def watch(cls):
        compile_ = cls.compile

        def watched(self, *signature):
            # Numba also calls this for signatures that a dispatcher has already; only new ones are compiled.
            if cls is CFunc or signature[0] not in self.overloads:
                seen.append((self, *signature))
            return compile_(self, *signature)

        monkeypatch.setattr(cls, "compile", watched)

    watch(Dispatcher)
    watch(CFunc)
    return seen


@pytest.fixture
def launches(monkeypatch):
    """A list of (total, parallel?) for every kernel that runs during the test."""
    seen = []
    serial, parallel = launch._run, launch._run_parallel
    monkeypatch.setattr(launch, "_run", lambda *args: (seen.append((args[2], False)), serial(*args)))
    monkeypatch.setattr(launch, "_run_parallel", lambda *args: (seen.append((args[2], True)), parallel(*args)))
    return seen


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Shells start background jobs with Ctrl-C ignored, which the tests' child processes would inherit."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
