"""Group *comparison*: the notes' five trainings, warm in one process, and cold in new ones with nothing compiled."""

import subprocess
import sys
from time import perf_counter, sleep

import numpy as np
import pytest

from .conftest import CLOCK
from .frameworks import COMPILED
from .peers import CEILING
from .processes import environment
from .timing import blaming, without_gc
from .trainings import TRAININGS, data, missing

pytestmark = pytest.mark.benchmark(timer=CLOCK)

WARM_ONLY = {CEILING, COMPILED}
"""torch.compile takes half a minute before the first iteration."""

PAUSE = 0.1
"""Seconds between two trainings, long enough for the threads of every library to sleep."""


@pytest.fixture(scope="session")
def end_losses():
    return {library: {} for library in TRAININGS}


def _agree(library, losses, refs):
    """Check that the losses of a library agree with the notes': the first ones to a hundredth, the last ones roughly.

    AdaGrad and RMSprop divide the first gradients by their own size: the first step moves every weight equally far, in
    a direction that rounding decides where a gradient is nearly zero. The trainings of two libraries diverge at once,
    so these must only have learnt: the loss of a network that knows nothing is 2.3.
    """
    for name, ref in refs.items() if library != CEILING else ():
        curve, tail = losses[name], len(ref) // 3
        if name in ("AdaGrad", "RMSprop"):
            assert curve[-tail:].mean() < 1, name
        else:
            np.testing.assert_allclose(curve[:5], ref[:5], rtol=1e-2, err_msg=name)
            np.testing.assert_allclose(curve[-tail:].mean(), ref[-tail:].mean(), rtol=0.1, err_msg=name)


def _warm(libraries, iterations, rounds, end_losses):
    # The first training of each library is the warm-up, and its losses are compared.
    curves = {}
    for name in libraries:
        with blaming(name):
            curves[name] = TRAININGS[name](data(), iterations)
            _agree(name, curves[name], curves["NumPy"])
    for name, losses in curves.items():
        end_losses[name].update({rule: float(np.mean(curve[-100:])) for rule, curve in losses.items()})
    samples = {name: [] for name in libraries}
    for _ in range(rounds):
        for name in libraries:
            sleep(PAUSE)
            with blaming(name), without_gc():
                start = perf_counter()
                TRAININGS[name](data(), iterations)
                samples[name].append(perf_counter() - start)
    return samples


def _cold(libraries, iterations, rounds):
    samples = {name: [] for name in libraries}
    for _ in range(rounds):
        for name in libraries:
            with blaming(name), environment(empty=True) as env:
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
    if quick and (start == "cold" or library == COMPILED):
        pytest.skip("not in the quick run")
    if start == "cold" and library in WARM_ONLY:
        pytest.skip(f"{library} is measured warm only")
    # The notes' training comes first, because the losses of the others are compared with its.
    libraries = sorted((name for name in TRAININGS if missing(name) is None), key=lambda name: name != "NumPy")
    left_out = {COMPILED} if quick else WARM_ONLY if start == "cold" else set()

    def measure(names):
        if start == "cold":
            return _cold(names, iterations, rounds=2)
        return _warm(names, iterations, 3 if quick else 7, end_losses)

    report(
        *("comparison", start, library),
        libraries=[name for name in libraries if name not in left_out],
        measure=measure,
        iterations=iterations,
        data=data().title,
        # The dict is filled during the measurement.
        loss=end_losses[library],
    )
