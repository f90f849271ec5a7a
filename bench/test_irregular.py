"""Groups *strided*, *mixed*, *float16*, *floats*, *shared*, *rebound*, *overlapping*: one update."""

import pytest

from .conftest import CLOCK
from .irregular import OPTIMIZERS, contestants
from .timing import race

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def test_irregular_update(case, library, benchmark, report, pacing):
    if benchmark.disabled:
        benchmark.pedantic(contestants(case.shrunk())[library].step)
        return
    threads = None if case.parallel else 1
    report(
        *(case.group, case.id, library),
        libraries=OPTIMIZERS,
        measure=lambda names: race(contestants(case, names), pacing, threads),
    )
