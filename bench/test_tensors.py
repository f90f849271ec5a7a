"""Group *tensors*: a step of our optimizer for torch."""

import pytest

from .conftest import CLOCK
from .timing import race

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def test_tensors(case, library, benchmark, report, pacing):
    if reason := case.absent(library):
        pytest.skip(reason)
    if benchmark.disabled:
        benchmark.pedantic(case.shrunk().contestants([library])[library].step)
        return
    report(
        *("tensors", case.id, library),
        libraries=[name for name in case.make if case.absent(name) is None],
        measure=lambda names: race(case.contestants(names), pacing, case.threads),
    )
