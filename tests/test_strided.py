"""Strided arrays: the bits of contiguous ones, and not a byte beside them written."""

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastoptim as fo
from fastoptim import threads
from naive import assert_bits

BLOCK = 512
GUARD = 64
SIZES = [0, 1, 2, 3, 5, 8, 31]
LENGTHS = [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3, 4 * BLOCK]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Short arrays then run on several threads as well."""
    monkeypatch.setattr(threads, "_PARALLEL_FROM", 64)


@st.composite
def layouts(draw, n_axes):
    """The order of the axes in memory; their steps in elements, negative if backwards; bytes before an element."""
    order = draw(st.permutations(range(n_axes)))
    return (
        order,
        draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, -1, -2]), min_size=n_axes, max_size=n_axes)),
        draw(st.sampled_from([0, 0, 0, 1, 3, 4])),
    )


shapes = st.one_of(
    st.lists(st.sampled_from(SIZES), max_size=4),
    st.sampled_from(LENGTHS).map(lambda n: [n]),
    st.tuples(st.sampled_from(LENGTHS), st.sampled_from([1, 2, 3])).map(list),
    st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from(LENGTHS)).map(list),
)


class Laid:
    """A copy of an array in another layout, amid bytes that must stay as they are."""

    def __init__(self, values, layout):
        order, steps, shift = layout
        strides, size, start = [0] * values.ndim, values.itemsize, 0
        for axis in order:
            strides[axis] = size * steps[axis]
            length = max(values.shape[axis], 1)
            start += -strides[axis] * (length - 1) if steps[axis] < 0 else 0
            size *= length * abs(steps[axis])
        self.memory = np.random.default_rng(0).integers(0, 256, size + shift + 2 * GUARD, np.uint8)
        self._form = values.shape, values.dtype
        self._place = GUARD + shift + start, strides
        self.array = np.ndarray(*self._form, self.memory, *self._place)
        self.array[...] = values
        self.before = self.memory.copy()

    def assert_gaps_untouched(self):
        np.ndarray(*self._form, self.before, *self._place)[...] = self.array
        assert_bits(self.before, self.memory, "memory beside the elements")


def numbers(rng, shape, dtype):
    dtype = np.dtype(dtype)
    values = rng.choice([-1, 1], shape) * rng.uniform(0.5, 2, shape)
    return np.asarray(values if dtype.kind == "f" else 9 * abs(values)).astype(dtype)


@pytest.mark.parametrize(
    ("name", "p_kind", "g_kind"),
    [("Adam", "f4", "f4"), ("Adam", "f8", "f8"), ("Momentum", "f4", "f8"), ("AdaGrad", "f4", "i2")],
)
def test_any_layout(name, p_kind, g_kind):
    @settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data):
        shapes_ = data.draw(st.lists(shapes, min_size=1, max_size=3), "shapes")
        rng = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
        plain = {k: numbers(rng, shape, p_kind) for k, shape in enumerate(shapes_)}
        laid = {k: Laid(p, data.draw(layouts(p.ndim))) for k, p in plain.items()}
        params = {k: each.array for k, each in laid.items()}
        optimizers = [getattr(fo, name)(), getattr(fo, name)()]
        count = data.draw(st.sampled_from([None, 1, 2, 3]), "threads")
        for _ in range(3):
            grads = {k: numbers(rng, p.shape, g_kind) for k, p in plain.items()}
            laid_grads = {k: Laid(g, data.draw(layouts(g.ndim))) for k, g in grads.items()}
            optimizers[0].update(plain, grads)
            with nullcontext() if count is None else fo.num_threads(count):
                optimizers[1].update(params, {k: each.array for k, each in laid_grads.items()})
            for k, p in plain.items():
                assert_bits(p, np.array(params[k], order="C"), k)
                laid[k].assert_gaps_untouched()
                assert_bits(laid_grads[k].before, laid_grads[k].memory, "gradient")
                for slot in optimizers[0].slots:
                    one, other = (getattr(opt, slot)[k] for opt in optimizers)
                    assert_bits(one, np.array(other, order="C"), slot)

    run()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("threads_", [1, 2, 3])
def test_blocks(length, threads_):
    """Where a block of the copy ends, and where a part of a thread does."""
    rng = np.random.default_rng(length)
    for columns in 1, 3:
        values = rng.standard_normal((length, columns))
        plain, wide = {"w": values.copy()}, Laid(values, ((1, 0), (2, 3), 0))
        grads = {"w": rng.standard_normal((columns, length)).T}
        optimizers = fo.Adam(), fo.Adam()
        for _ in range(3):
            optimizers[0].update(plain, {"w": grads["w"].copy(order="C")})
            with fo.num_threads(threads_):
                optimizers[1].update({"w": wide.array}, grads)
        assert_bits(plain["w"], np.array(wide.array), "w")
        wide.assert_gaps_untouched()
