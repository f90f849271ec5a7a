"""Group *extended*: the textbook's steps with batch normalization and dropout."""

import pytest

from . import extended
from .conftest import CLOCK
from .timing import race

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def test_extended(case, library, benchmark, report, pacing):
    if benchmark.disabled:
        benchmark.pedantic(case.shrunk().contestants((library,))[library].step)
        return
    report(
        *("extended", case.id, library),
        libraries=extended.LIBRARIES,
        measure=lambda names: race(case.contestants(tuple(names)), pacing, case.net.threads),
    )
