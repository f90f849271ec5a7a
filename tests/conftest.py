import ctypes
import gc
import os
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
    serial, threaded, short = threads.run, threads.run_parallel, threads.run_short

    def totals(program):
        count = ctypes.c_int64.from_address(program + 8 * table.COUNT).value
        words = (ctypes.c_int64 * (table.CALLS + 4 * count)).from_address(program)
        return [words[k + 3] - words[k + 2] for k in range(table.CALLS, len(words), 4)]

    def watch(name, run, is_parallel):
        def watched(program, *args):
            seen.extend((total, is_parallel) for total in totals(program))
            run(program, *args)

        monkeypatch.setattr(threads, name, watched)

    watch("run", serial, False)
    watch("run_parallel", threaded, True)

    def method_of(program):
        run = short(program)

        def watched():
            seen.extend((total, False) for total in totals(program.ctypes.data))
            run()

        return watched

    monkeypatch.setattr(threads, "run_short", method_of)
    return seen


def pytest_collection_finish():
    """Keep the collector of cycles from all that lives until the end, which takes a fifth of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Shells start background jobs with Ctrl-C ignored, which the tests' child processes would inherit."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def quick_digits(tmp_path_factory, monkeypatch):
    """Let processes load random images in place of the digits of scikit-learn, whose import takes a second."""
    package = tmp_path_factory.mktemp("packages") / "sklearn"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "datasets.py").write_text(
        "import numpy as np\n\n"
        "def load_digits(return_X_y):\n"
        "    return np.random.default_rng(0).integers(0, 17, (1797, 64)).astype(float), np.arange(1797) % 10\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
