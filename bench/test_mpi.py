"""Group *mpi*: a step divided among two ranks."""

import pytest

from .conftest import CLOCK
from .mpi import CASE, REPLICAS, measured, mpiexec, share
from .peers import OURS

pytestmark = pytest.mark.benchmark(timer=CLOCK)


@pytest.mark.skipif(not mpiexec(), reason="mpi4py or mpiexec is not installed")
@pytest.mark.parametrize("library", [OURS, REPLICAS])
def test_mpi(library, benchmark, report, quick):
    rounds = 1 if benchmark.disabled else 9 if quick else 20
    if benchmark.disabled:
        benchmark.pedantic(measured, (rounds,))
        return
    report("mpi", CASE, library, libraries=(OURS, REPLICAS), measure=lambda _: measured(rounds), share=share(rounds))
