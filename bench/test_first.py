"""Group *first*: the first update by each built-in rule in a new process, without the imports."""

import pytest

from fastoptim.family import FAMILY

from .conftest import CLOCK
from .processes import EMPTY, FULL, environment, first_update, seconds

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def _measure(rule, rounds):
    samples = {EMPTY: [], FULL: []}
    for _ in range(rounds):
        # The second process finds what the first one compiled.
        with environment(empty=True) as env:
            for each in samples.values():
                each.append(seconds(first_update(rule), env))
    return samples


@pytest.mark.parametrize("library", [EMPTY, FULL])
@pytest.mark.parametrize("rule", FAMILY)
def test_first(rule, library, benchmark, report, quick):
    if benchmark.disabled:
        if rule != "SGD":
            pytest.skip("one rule stands for all")
        with environment(empty=False) as env:
            benchmark.pedantic(seconds, (first_update(rule), env))
        return
    if quick:
        pytest.skip("not in the quick run")
    report("first", rule, library, libraries=[EMPTY, FULL], measure=lambda _: _measure(rule, rounds=1))
