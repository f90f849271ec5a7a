"""The exponential of the kernels is that of NumPy, within a few units in the last place, for numbers of every kind."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastoptim.kernels.exponential import exponential
from fastoptim.kernels.jit import DISABLED, jit

pytestmark = pytest.mark.skipif(DISABLED, reason="needs compiled code")


@jit
def exponentials(x, out):
    for i in range(x.size):
        out[i] = exponential(x.dtype.type, x[i])


def compiled(x):
    out = np.empty_like(x)
    exponentials(x, out)
    return out


@pytest.mark.parametrize(("dtype", "reference"), [(np.float32, np.float64), (np.float64, np.longdouble)])
def test_within_units_in_the_last_place(dtype, reference):
    low, high = np.log(np.finfo(dtype).tiny), np.log(np.finfo(dtype).max)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(low, high, 100_000), rng.standard_normal(100_000) * 1e-3, [0, -0.0]]).astype(dtype)
    expected = np.exp(x.astype(reference))
    error = abs(compiled(x) - expected) / np.spacing(expected.astype(dtype))
    assert error.max() < 4
    assert_array_equal(compiled(x[-2:]), 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_beyond_the_normal_numbers(dtype):
    info = np.finfo(dtype)
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, np.log(info.max) + 1, 2 * np.log(info.tiny)], dtype)
    assert_array_equal(compiled(x), [np.nan, np.inf, 0, np.inf, 0, np.inf, 0])
    # Subnormal results are as near as their spacing allows.
    x = np.linspace(np.log(info.smallest_subnormal), np.log(info.tiny), 1000).astype(dtype)
    assert abs(compiled(x) - np.exp(x.astype(np.longdouble))).max() <= 4 * float(info.smallest_subnormal)
