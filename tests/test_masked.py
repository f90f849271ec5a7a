"""Products that skip zeros are chains of fused multiply-adds, to the bit; networks that use them agree with NumPy."""

from fractions import Fraction
from itertools import pairwise

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.testing import assert_allclose, assert_array_equal

import fastoptim as fo
import naive
from fastoptim import threads
from fastoptim.kernels import layers, masked
from fastoptim.kernels.jit import DISABLED, HAS_FMA
from fastoptim.kernels.masks import fill_masks
from fastoptim.network import runner
from naive import assert_bits

pytestmark = pytest.mark.skipif(DISABLED, reason="needs compiled code")
chosen = pytest.mark.skipif(
    not HAS_FMA, reason="networks skip zeros only where the processor multiplies and adds at once"
)
DTYPES = np.float32, np.float64


@intrinsic
def fma(_typing, a, _b, _c):
    def codegen(_context, builder, _signature, args):
        kind = ir.FunctionType(args[0].type, [args[0].type] * 3)
        name = f"llvm.fma.f{a.bitwidth}"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return a(a, a, a), codegen


@numba.njit
def chains(x, b, out):
    """Multiply one element after the other, in the order of the columns of x, without its zeros."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = out.dtype.type(0)
            for k in range(x.shape[1]):
                if x[i, k] != 0:
                    total = fma(x[i, k], b[k, j], total)
            out[i, j] = total


def chained(x, b):
    out = np.empty((x.shape[0], b.shape[1]), b.dtype)
    # Steps of any size, so that one compilation serves all layouts.
    chains(*(np.lib.stride_tricks.as_strided(a, a.shape, a.strides) for a in (x, b)), out)
    return out


def multiply(dtype, shape, left, words, right, out, adds=False):
    """Compute rows of a product, or add them; a matrix is its address and two steps."""
    start, stop, inner, columns = shape
    row = np.array([inner, columns, *left, *words, *right, out, adds], np.intp)
    masked.product(np.dtype(dtype)).ctypes(row.ctypes.data, start, stop)


@numba.njit
def fill(x, masks):
    return fill_masks(x, masks)


def guarded(shape, dtype, pad=0):
    """An array inside of a larger buffer of NaN, with gaps between its rows, and the buffer."""
    rows, width = shape
    buffer = np.full(64 + rows * (width + pad) + 64, np.nan, dtype)
    return buffer[64 : len(buffer) - 64].reshape(rows, width + pad)[:, :width], buffer


def random_left(rng, shape, dtype, density):
    array, _ = guarded(shape, dtype)
    array[:] = rng.standard_normal(shape) * (rng.random(shape) < density)
    masks = np.full((shape[0] + 2, (shape[1] + 63) // 64), 2**64 - 1, np.uint64)
    assert fill(array, masks[1:-1]) == np.count_nonzero(array)
    assert (masks[[0, -1]] == 2**64 - 1).all()
    return array, masks[1:-1]


def check_product(rng, dtype, rows, inner, columns, density, x_is_transposed, b_is_transposed, pad):
    size = np.dtype(dtype).itemsize
    x, masks = random_left(rng, (inner, rows) if x_is_transposed else (rows, inner), dtype, density)
    b, _ = guarded((columns, inner) if b_is_transposed else (inner, columns), dtype, pad)
    b[:] = rng.standard_normal(b.shape)
    out, buffer = guarded((rows, columns), dtype)
    left, right = x.T if x_is_transposed else x, b.T if b_is_transposed else b
    # The strides of an axis of length 1 are arbitrary in NumPy.
    row = x.shape[1] * size
    left_steps = (size, row) if x_is_transposed else (row, size)
    row = (b.shape[1] + pad) * size
    right_steps = (size, row) if b_is_transposed else (row, size)
    expected = chained(left, right)
    is_zero = x == 0
    # Parts begin at multiples of 64 rows, and the last one is computed first. At last, no element is skipped.
    cuts = sorted({0, *(64 * rng.integers(0, rows // 64 + 1, 2)), rows})
    for ends, address in (cuts, masks.ctypes.data), ([0, rows], masks.ctypes.data), (cuts, 0):
        buffer[:] = np.nan
        # An element is skipped wherever its bit is not set, unless the right matrix is not finite, as its guards are.
        x[is_zero] = 7 if address else 0
        for start, stop in reversed(list(pairwise(ends))):
            multiply(
                dtype,
                (start, stop, inner, columns),
                (x.ctypes.data, *left_steps),
                (address, masks.shape[1], x_is_transposed),
                (b.ctypes.data, *right_steps),
                out.ctypes.data,
            )
        assert_bits(expected, out)
        assert np.isnan(buffer[:64]).all()
        assert np.isnan(buffer[len(buffer) - 64 :]).all()


def lengths(rng, count, low, high):
    return np.exp(rng.uniform(np.log(max(low, 0.5)), np.log(high + 1), count)).astype(int).clip(low, high)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_chains_of_multiply_adds(dtype):
    """On random shapes, densities and steps, with guards around every buffer."""
    rng = np.random.default_rng(0)
    shapes = zip(lengths(rng, 300, 0, 300), lengths(rng, 300, 1, 300), lengths(rng, 300, 1, 300), strict=True)
    for n, (rows, inner, columns) in enumerate(shapes):
        density = rng.choice([0, 0.05, 0.2, 0.5, 0.9, 1])
        check_product(rng, dtype, rows, inner, columns, density, n % 2 == 1, n % 4 > 1, int(rng.integers(0, 20)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_width(dtype):
    rng = np.random.default_rng(1)
    for columns in range(1, 301):
        check_product(rng, dtype, 3, 67, columns, 0.5, columns % 3 == 0, columns % 2 == 0, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_chains_round_once(dtype):
    """The oracle itself, with fractions."""
    rng = np.random.default_rng(2)
    x, b = rng.standard_normal((1, 9)).astype(dtype), rng.standard_normal((9, 20)).astype(dtype)
    for j, found in enumerate(chained(x, b)[0]):
        total = dtype(0)
        for k in range(9):
            exact = Fraction(float(x[0, k])) * Fraction(float(b[k, j])) + Fraction(float(total))
            near = dtype(float(exact))
            choices = near, np.nextafter(near, dtype(-np.inf)), np.nextafter(near, dtype(np.inf))
            total = min(choices, key=lambda value: abs(Fraction(float(value)) - exact))
        assert found == total


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks(dtype):
    """Of every width, with every kind of number."""
    rng = np.random.default_rng(3)
    values = np.array([0, -0.0, 1, -1, np.nan, np.inf, -np.inf, np.finfo(dtype).smallest_subnormal], dtype)
    for width in range(1, 301):
        x = rng.choice(values, (3, width))
        masks = np.full((3, (width + 63) // 64), 2**64 - 1, np.uint64)
        assert fill(x, masks) == np.count_nonzero(x)
        bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")
        assert_array_equal(bits[:, :width], x != 0)
        assert not bits[:, width:].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_that_is_added_continues_the_chains(dtype):
    """Of any width: what two products of half the rows add up to is the product of all rows."""
    rng, size = np.random.default_rng(9), np.dtype(dtype).itemsize
    for columns in [*range(1, 130), 300]:
        inner, rows = int(rng.integers(2, 150)), int(rng.integers(1, 150))
        x, masks = random_left(rng, (inner, rows), dtype, rng.choice([0.05, 0.3, 1]))
        b = rng.standard_normal((inner, columns)).astype(dtype)
        out, buffer = guarded((rows, columns), dtype)
        half = int(rng.integers(1, inner))
        for first, last in (0, half), (half, inner):
            words = (masks[first:].ctypes.data if columns % 3 else 0), masks.shape[1], True
            left, right = (x[first:].ctypes.data, size, rows * size), (b[first:].ctypes.data, columns * size, size)
            multiply(dtype, (0, rows, last - first, columns), left, words, right, out.ctypes.data, first > 0)
        assert_bits(chained(x.T, b), out)
        assert np.isnan(buffer[:64]).all()
        assert np.isnan(buffer[len(buffer) - 64 :]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_element_that_is_not_finite_is_not_skipped(value):
    """At any place in the right matrix, also where the left one is zero."""
    rng = np.random.default_rng(4)
    for dtype in DTYPES:
        size = np.dtype(dtype).itemsize
        for columns, transposed in (3, False), (3, True), (16, False), (113, False), (40, True):
            b = rng.standard_normal((70, columns)).astype(dtype)
            steps = (size, 70 * size) if transposed else (columns * size, size)
            masks, x, out = np.zeros((5, 2), np.uint64), np.zeros((5, 70), dtype), np.empty((5, columns), dtype)
            for place in 0, 15, b.size // 2, b.size - 1:
                for element in dtype(1), dtype(value):
                    b.reshape(-1)[place] = element
                    right, left = (b.ctypes.data, *steps), (x.ctypes.data, 70 * size, size)
                    words = masks.ctypes.data, 2, False
                    multiply(dtype, (0, 5, 70, columns), left, words, right, out.ctypes.data)
                    is_nan = np.zeros((5, columns), bool)
                    is_nan[:, place // 70 if transposed else place % columns] = not np.isfinite(element)
                    assert_array_equal(np.isnan(out), is_nan)
                    assert not out[~is_nan].any()
                b.reshape(-1)[place] = 1


# Networks whose layers are wide enough to be skipped in.

SIZES = 70, [33, 150, 20], 17


def sparse(rng, shape, density):
    return rng.standard_normal(shape) * (rng.random(shape) < density)


def nets(activation="relu", sizes=SIZES, decay=0.0, dtype=np.float64):
    np.random.seed(0)
    ref = naive.MultiLayerNet(*sizes, activation=activation, weight_decay_lambda=decay)
    net = fo.MultiLayerNet(*sizes, activation=activation, weight_decay_lambda=decay, dtype=dtype, seed=0)
    for key in ref.params:
        if key.startswith("b"):
            ref.params[key] += 0.1
            net.params[key] += 0.1
    return ref, net


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("density", [0, 0.05, 0.2, 0.6, 1])
def test_networks_agree_with_numpy(activation, density):
    rng = np.random.default_rng(5)
    ref, net = nets(activation, decay=0.1)
    for rows in 1, 7, 8, 16, 64, 65, 150:
        x, t = sparse(rng, (rows, 70), density), rng.integers(0, 17, rows)
        assert_allclose(net.predict(x), ref.predict(x), rtol=0, atol=1e-10)
        assert_allclose(net.loss(x, t), ref.loss(x, t), rtol=0, atol=1e-10)
        for key, g in ref.gradient(x, t).items():
            assert_allclose(net.gradient(x, t)[key], g, rtol=0, atol=1e-10, err_msg=key)


@chosen
@pytest.mark.parametrize("dtype", DTYPES)
def test_networks_skip_zeros(dtype):
    """Their scores have the bits of the chains."""
    rng = np.random.default_rng(6)
    _, net = nets(dtype=dtype)
    x = sparse(rng, (40, 70), 0.2).astype(dtype)
    a = x
    for k in range(1, 5):
        a = chained(a, net.params[f"W{k}"]) + net.params[f"b{k}"]
        if k < 4:
            a = np.maximum(a, 0)
            assert (a != 0).mean() < 0.7
    assert_bits(a, net.predict(x))
    # The rows do not depend on one another.
    assert_bits(a[:20], net.predict(x[:20]))


def gradient(ref, x, t):
    """The gradient in NumPy, where an output of zero ends the path of a gradient even if that is NaN."""
    *signals, scores = ref.forward(x)
    d = ref.softmax(scores)
    d[np.arange(len(d)), t] -= 1
    d /= len(d)
    grads = {}
    for i in range(ref.depth, 0, -1):
        a = signals[i - 1]
        grads[f"W{i}"], grads[f"b{i}"] = a.T @ d, d.sum(axis=0)
        d = np.where(a <= 0, 0, d @ ref.params[f"W{i}"].T)
    return grads


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "W1", "W3", "b2", "W4"])
def test_what_is_not_finite_spreads_as_in_numpy(where, value, dtype):
    rng = np.random.default_rng(7)
    ref, net = nets(dtype=dtype)
    x, t = sparse(rng, (40, 70), 0.2), rng.integers(0, 17, 40)
    # NumPy multiplies zeros with it, too.
    x[:, 3] = 0
    if where == "x":
        x[5, 7] = value
    else:
        for params in ref.params, net.params:
            params[where].reshape(-1)[3 * params[where].shape[-1] if where == "W1" else 2] = value
    with np.errstate(all="ignore"):
        expected = {"scores": ref.predict(x), "loss": ref.loss(x, t)} | gradient(ref, x, t)
        found = {"scores": net.predict(x), "loss": net.loss(x, t)} | dict(net.gradient(x, t))
    assert not all(np.isfinite(a).all() for a in [*expected.values(), ref.params["b2"]])
    for key, a in expected.items():
        for kind in np.isnan, np.isposinf, np.isneginf:
            assert_array_equal(kind(found[key]), kind(a), err_msg=key)


@chosen
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("density", [0.2, 1])
def test_any_number_of_threads_gives_the_same_bits(dtype, activation, density):
    """Of products that several threads share, and of those of BLAS, which computes none for 8 samples or more."""
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    rng = np.random.default_rng(8)
    net = fo.MultiLayerNet(784, [100, 90], 10, activation, weight_decay_lambda=0.1, dtype=dtype, seed=0)
    for rows in 8, 16, 130:
        x, t = sparse(rng, (rows, 784), density).astype(dtype), rng.integers(0, 10, rows)
        results = []
        for n in 1, 2, 3, 7:
            with limits(n, "blas"), fo.num_threads(n):
                results.append([net.predict(x), net.loss(x, t), net.gradient(x, t).flat])
        for result in results:
            for one, other in zip(results[0], result, strict=True):
                assert_bits(one, other)


@chosen
def test_threads_share_the_samples(monkeypatch):
    """As many as `num_threads` says, if the batch is large enough."""
    parts = []
    run = threads.run_parallel
    monkeypatch.setattr(threads, "run_parallel", lambda *args: (parts.append(args[1]), run(*args)))
    net = fo.MultiLayerNet(300, [100], 10, seed=0)
    x, t = np.ones((100, 300), np.float32), np.zeros(100, int)
    for n in 1, 3:
        with fo.num_threads(n):
            net.gradient(x, t)
            # Small batches are not worth it.
            net.gradient(x[:20], t[:20])
    assert parts in ([3], [1, 3]), "the first run of a thread also loads the loop"
    for rows in range(80, 120):
        net.predict(np.ones((rows, 300), np.float32))
    (memory,) = net._runner._spare
    assert len(memory.programs) <= 16


@chosen
@pytest.mark.parametrize(("rows", "is_normalized", "parts"), [(16, False, 1), (64, True, 1), (65, True, 3)])
def test_threads_share_no_product_of_few_rows(rows, is_normalized, parts):
    """It would not be cut, and a parallel region for it may wait for another thread's core."""
    net = fo.MultiLayerNetExtend(300, [1024], 10, use_batchnorm=is_normalized, seed=0)
    with fo.num_threads(3):
        net.predict(np.ones((rows, 300), np.float32))
    (memory,) = net._runner._spare
    (program,) = memory.programs.values()
    assert (program.words[:, layers.PARTS] == (parts if threads.has_safe_threads() else 1)).all()


@chosen
def test_threads_share_the_weights_by_their_work(monkeypatch):
    """Half of the range has all rows of sparse inputs, and fewer than half of those of denser ones."""
    rng = np.random.default_rng(11)
    net = fo.MultiLayerNet(640, [640, 640], 10, seed=0)
    x, t = sparse(rng, (64, 640), 0.1), rng.integers(0, 10, 64)
    run, run_program, rows = runner.Runner.run, runner._Program.run, []

    def spy(self, *args, out, **options):
        def run_half(program):
            run_program(program)
            out.fill(np.nan)
            function, words, start, stop = program._calls[1]
            threads.Autotuner([(function.address, words, start, stop // 2)]).run()
            for inputs, outputs, begin, *_ in self._table:
                done = np.isfinite(out[begin : begin + inputs * outputs].reshape(inputs, outputs))
                assert_array_equal(done, done[:, :1].repeat(outputs, 1))
                rows.append(done[:, 0].sum())

        monkeypatch.setattr(runner._Program, "run", run_half)
        run(self, *args, out=out, **options)

    monkeypatch.setattr(runner.Runner, "run", spy)
    net.gradient(x, t)
    assert rows[0] == 640
    assert 64 <= rows[1] <= 256, "the two layers have 20 units of work, and those of the second take thrice as long"
    assert rows[2] == 0


@chosen
@pytest.mark.parametrize("options", [{}, {"use_dropout": True}, {"use_batchnorm": True}], ids=str)
def test_any_part_of_a_batch_in_memory_gives_the_same_bits(options, monkeypatch):
    """A large batch goes through the network some samples at a time."""
    rng = np.random.default_rng(10)
    x, t = sparse(rng, (300, 70), 0.3), rng.integers(0, 17, 300)
    results = []
    for at_a_time in 16, 112, 192, 1000:
        monkeypatch.setattr(runner, "_AT_A_TIME", at_a_time)
        for n in 1, 3:
            net = fo.MultiLayerNetExtend(*SIZES, weight_decay_lambda=0.1, seed=0, **options)
            np.random.seed(0)
            with fo.num_threads(n):
                results.append([net.predict(x), net.loss(x, t), net.gradient(x, t).flat])
    for result in results:
        for one, other in zip(results[0], result, strict=True):
            assert_bits(one, other)
