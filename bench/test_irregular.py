"""Groups *strided*, *mixed*, *float16*, *floats*, *shared*, *rebound*, *overlapping*: one update."""

from time import perf_counter, thread_time

import pytest

from .conftest import CLOCK
from .irregular import contestants
from .timing import race

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def test_irregular_update(case, library, benchmark, report, pacing):
    if benchmark.disabled:
        benchmark.pedantic(contestants(case.shrunk())[library].step)
        return
    pacing, clock = (pacing, perf_counter) if case.parallel else (pacing.for_cpu_time(), thread_time)
    report(case.group, case.id, library, lambda: race(contestants(case), pacing, clock), parallel=case.parallel)
