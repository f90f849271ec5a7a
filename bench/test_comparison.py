"""Group *comparison*: the main job of the notes, warm in one process; cold, from the start of one, nothing compiled."""

import subprocess
import sys
from time import perf_counter, sleep

import numpy as np
import pytest

from .conftest import CLOCK
from .peers import CEILING
from .processes import environment
from .timing import without_gc
from .trainings import TRAININGS, data, missing

pytestmark = pytest.mark.benchmark(timer=CLOCK)

PAUSE = 0.1
"""Seconds between two trainings: enough for the threads of any library to go to sleep."""


@pytest.fixture(scope="session")
def end_losses():
    return {library: {} for library in TRAININGS}


def _agree(curves):
    """The libraries must tell the same story: the first losses to a hundredth, the last ones roughly.

    RMSprop is different: its first step moves every weight by 0.1, whose sign is a matter of rounding where a gradient
    is nearly zero. From then on no two libraries go the same way, and only the end can be compared.
    """
    for library, losses in curves.items():
        for name, ref in curves["NumPy"].items() if library != CEILING else ():
            tail = len(ref) // 3
            ends, rough = (losses[name][-tail:].mean(), ref[-tail:].mean()), 0.5 if name == "RMSprop" else 0.1
            np.testing.assert_allclose(*ends, rtol=rough, err_msg=f"{library} {name}")
            if name != "RMSprop":
                np.testing.assert_allclose(losses[name][:5], ref[:5], rtol=1e-2, err_msg=f"{library} {name}")


def _warm(libraries, iterations, rounds, end_losses):
    # The first training of each is the warm-up, and the one whose losses are looked at.
    curves = {name: TRAININGS[name](data(), iterations) for name in libraries}
    _agree(curves)
    for name, losses in curves.items():
        end_losses[name].update({rule: float(np.mean(curve[-100:])) for rule, curve in losses.items()})
    samples = {name: [] for name in libraries}
    for _ in range(rounds):
        for name in libraries:
            sleep(PAUSE)
            with without_gc():
                start = perf_counter()
                TRAININGS[name](data(), iterations)
                samples[name].append(perf_counter() - start)
    return samples


def _cold(libraries, iterations, rounds):
    samples = {name: [] for name in libraries}
    for _ in range(rounds):
        for name in libraries:
            with environment(empty=True) as env:
                start = perf_counter()
                command = [sys.executable, "-m", "bench.trainings", name, str(iterations)]
                subprocess.run(command, env=env, check=True)
                samples[name].append(perf_counter() - start)
    return samples


@pytest.mark.parametrize("library", TRAININGS)
@pytest.mark.parametrize("start", ["warm", "cold"])
def test_comparison(start, library, benchmark, report, end_losses, iterations, quick):
    if reason := missing(library):
        pytest.skip(reason)
    if benchmark.disabled:
        losses = benchmark.pedantic(TRAININGS[library], (data("digits"), 5))
        assert all(np.isfinite(curve).all() and len(curve) == 5 for curve in losses.values())
        return
    if start == "cold" and (quick or library == CEILING):
        pytest.skip("not in the quick run" if quick else "the ceiling is warm")
    rounds = 5 if start == "warm" and not quick else 3

    def measure():
        libraries = [name for name in TRAININGS if missing(name) is None]
        if start == "warm":
            return _warm(libraries, iterations, rounds, end_losses)
        return _cold([name for name in libraries if name != CEILING], iterations, rounds)

    # The measurement fills this in, beside the time.
    loss = end_losses[library]
    report("comparison", start, library, measure, iterations=iterations, data=data().title, loss=loss)
