"""Group *masked*: products that skip zeros."""

import numpy as np
import pytest

from fastoptim.kernels.masked import product_address

from .conftest import CLOCK
from .masked import BLAS, KINDS, contestants, name
from .peers import CEILING, OURS
from .timing import race

pytestmark = pytest.mark.benchmark(timer=CLOCK)


@pytest.mark.skipif(not product_address(np.float32), reason="BLAS computes all products on this processor")
@pytest.mark.parametrize("library", [OURS, BLAS, CEILING])
@pytest.mark.parametrize("kind", KINDS)
def test_masked(kind, library, benchmark, report, pacing):
    if benchmark.disabled:
        benchmark.pedantic(contestants(kind, (10, 20, 30))[library].step)
        return
    ready = contestants(kind)
    report(
        *("masked", name(kind), library),
        libraries=ready,
        measure=lambda names: race({name: ready[name] for name in names}, pacing, 1),
    )
