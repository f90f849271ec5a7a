"""Group *estimators*: fits of the estimators for scikit-learn."""

import pytest

from . import estimators
from .conftest import CLOCK
from .timing import race

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def test_estimators(case, library, benchmark, report, pacing):
    if benchmark.disabled:
        benchmark.pedantic(case.shrunk().contestants((library,))[library].step)
        return
    report(
        *("estimators", case.id, library),
        libraries=estimators.LIBRARIES,
        measure=lambda names: race(case.contestants(tuple(names)), pacing, case.net.threads),
    )
