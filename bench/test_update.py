"""Group *update*: one step of an optimizer."""

import pytest

from .cases import updates
from .conftest import CLOCK
from .peers import LIBRARIES, contestants, racing
from .timing import race

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def test_update(case, library, benchmark, report, pacing, quick):
    if reason := LIBRARIES[library].absent:
        pytest.skip(reason)
    if benchmark.disabled:
        case = case.shrunk()
        benchmark.pedantic(contestants(case, [library])[library].step)
        return

    names = [name for name in racing(case, quick=quick) if LIBRARIES[name].absent is None]
    judged = case in updates(quick=True, huge=True)
    pace = pacing if quick else pacing.thorough() if judged else pacing.brief()
    report(
        *("update", case.id, library),
        libraries=names,
        measure=lambda names: race(contestants(case, names), pace, case.threads),
    )
