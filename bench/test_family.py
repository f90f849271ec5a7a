"""Group *family*: compositions, every rule at its memory's speed, and torch's and optax's rules."""

import pytest

from .conftest import CLOCK
from .timing import race

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def test_family(case, library, benchmark, report, pacing):
    if reason := case.absent(library):
        pytest.skip(reason)
    if benchmark.disabled:
        benchmark.pedantic(case.shrunk().contestants([library])[library].step)
        return
    report(
        *("family", case.id, library),
        libraries=[name for name in case.make if case.absent(name) is None],
        measure=lambda names: race(
            case.contestants(names), pacing.after_blas() if case.uses_blas else pacing, case.threads
        ),
    )
