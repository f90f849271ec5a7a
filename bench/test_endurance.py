"""Group *endurance*: 20,000 steps, with zero gradients from the fourth step on.

The moments then decay to subnormal numbers, on which processors are tens of times slower. Each sample is the median
step of a window of 1,000, so that the slowest sample by the fastest shows whether steps become slower. Everything is
repeated several times and the fastest run of each window counts, which removes the disturbance by other processes.
"""

from statistics import median
from time import perf_counter, sleep

import numpy as np
import pytest

from .cases import NOTES, Update
from .conftest import CLOCK
from .peers import LIBRARIES, OURS, OURS_SERIAL, contestants
from .timing import without_gc

pytestmark = pytest.mark.benchmark(timer=CLOCK)

RULES = ("Adam", "RMSprop", "Momentum", "Nesterov")
RUNS, STEPS, WINDOW, PAUSE = 5, 20_000, 1_000, 0.02


def _window(contestant, steps):
    times = []
    with contestant.limit():
        for _ in range(steps):
            start = perf_counter()
            contestant.step()
            times.append(perf_counter() - start)
    return median(times)


def _run(case, libraries, steps, window):
    ready = contestants(case, libraries)
    for contestant in ready.values():
        contestant.vanish()
    samples = {name: [] for name in libraries}
    with without_gc():
        for _ in range(0, steps, window):
            for name, contestant in ready.items():
                sleep(PAUSE)
                samples[name].append(_window(contestant, window))
    return samples


def _measure(case, libraries, runs, steps=STEPS, window=WINDOW):
    samples = [_run(case, libraries, steps, window) for _ in range(runs)]
    return {name: [min(same) for same in zip(*(run[name] for run in samples), strict=True)] for name in libraries}


def _libraries(rule):
    return (OURS, OURS_SERIAL, "NumPy", "torch" if rule == "RMSprop" else "torch fused")


@pytest.mark.parametrize(("rule", "library"), [(rule, library) for rule in RULES for library in _libraries(rule)])
def test_endurance(rule, library, benchmark, report, quick):
    case = Update(rule, NOTES)
    if reason := LIBRARIES[library].absent:
        pytest.skip(reason)
    if benchmark.disabled:
        samples = benchmark.pedantic(_measure, (case, [library], 2, 20, 10))
        assert np.isfinite(samples[library]).all()
        return
    libraries = [name for name in _libraries(rule) if LIBRARIES[name].absent is None]
    if quick:
        libraries = [name for name in libraries if name in (OURS, OURS_SERIAL)]
        if library not in libraries:
            pytest.skip("not in the quick run")
    runs = 1 if quick else RUNS
    report("endurance", case.id, library, lambda: _measure(case, libraries, runs), steps=STEPS, window=WINDOW)
