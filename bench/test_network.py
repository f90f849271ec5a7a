"""Group *network*: `gradient`, `loss` and `predict` on one batch."""

import pytest

from .conftest import CLOCK
from .networks import NETWORKS, contestants
from .timing import race

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def test_network(case, library, benchmark, report, pacing):
    if reason := NETWORKS[library].absent:
        pytest.skip(reason)
    if benchmark.disabled:
        benchmark.pedantic(contestants(case.shrunk(), [library])[library].step)
        return

    report(
        *("network", case.id, library),
        libraries=[name for name, peer in NETWORKS.items() if peer.takes(case) and peer.absent is None],
        measure=lambda names: race(contestants(case, names), pacing.after_blas(), case.threads),
    )
