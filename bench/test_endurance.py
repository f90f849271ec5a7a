"""Group *endurance*: 20,000 steps, with zero gradients from the fourth step on.

The moments then decay to subnormal numbers, on which processors are tens of times slower. Each sample is the median
step of a window of 1,000, so that the slowest sample by the fastest shows whether steps become slower. Everything runs
on one thread and is timed by its CPU time. Ours is repeated, and of each window the fastest run counts, because a
thread is slower while its core has other work.
"""

from statistics import median
from time import thread_time

import numpy as np
import pytest

from .cases import NOTES, Update
from .conftest import CLOCK
from .peers import LIBRARIES, OURS, contestants
from .timing import blaming, without_gc

pytestmark = pytest.mark.benchmark(timer=CLOCK)

RULES = ("Adam", "RMSprop", "Momentum", "Nesterov")
RUNS, STEPS, WINDOW = 3, 20_000, 1_000


def _window(contestant, steps):
    times = []
    with contestant.limit():
        for _ in range(steps):
            start = thread_time()
            contestant.step()
            times.append(thread_time() - start)
    return median(times)


def _run(case, libraries, steps, window):
    ready = contestants(case, libraries)
    for contestant in ready.values():
        contestant.vanish()
    samples = {name: [] for name in libraries}
    with without_gc():
        for _ in range(0, steps, window):
            for name, contestant in ready.items():
                with blaming(name):
                    samples[name].append(_window(contestant, window))
    return samples


def _measure(case, libraries, runs, steps=STEPS, window=WINDOW):
    samples = _run(case, libraries, steps, window)
    ours = [_run(case, [OURS], steps, window)[OURS] for _ in range(runs - 1)] if OURS in libraries else []
    return samples | {OURS: [min(same) for same in zip(samples[OURS], *ours, strict=True)]} if ours else samples


def _libraries(rule):
    return (OURS, "NumPy", "torch" if rule == "RMSprop" else "torch fused")


@pytest.mark.parametrize(("rule", "library"), [(rule, library) for rule in RULES for library in _libraries(rule)])
def test_endurance(rule, library, benchmark, report, quick):
    case = Update(rule, NOTES, threads=1)
    if reason := LIBRARIES[library].absent:
        pytest.skip(reason)
    if benchmark.disabled:
        samples = benchmark.pedantic(_measure, (case, [library], 2, 20, 10))
        assert np.isfinite(samples[library]).all()
        return
    libraries = [name for name in _libraries(rule) if LIBRARIES[name].absent is None]
    if quick:
        libraries = [OURS]
        if library not in libraries:
            pytest.skip("not in the quick run")
    runs = 1 if quick else RUNS
    report(
        *("endurance", case.id, library),
        libraries=libraries,
        measure=lambda names: _measure(case, names, runs),
        window=WINDOW,
    )
