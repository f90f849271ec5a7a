"""Updates give the same bits for any chunks, layout, process, number of threads and state of the cache."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastoptim as fo
import naive
import script
from fastoptim.kernels import table as row
from fastoptim.kernels.fuse import fuse
from naive import assert_bits, draw

SIZES = (1, 150, 0, 64, 33)


class Softsign(fo.Optimizer):
    slots = ("m",)

    def scalars(self):
        return 0.1, 0.9

    @staticmethod
    def rule(p, g, m, lr, beta):
        m = beta * m + (1 - beta) * g
        return p - lr * m / (1 + np.abs(m)), m


RULES = [*naive.RULES, "Softsign"]


def optimizer(name):
    return Softsign() if name == "Softsign" else getattr(fo, name)()


def update_in_chunks(opt, dtype, cuts):
    """Run the kernel of an optimizer over some arrays in chunks; return everything that it wrote."""
    rng = np.random.default_rng(0)
    arrays = [[abs(draw(rng, size, dtype)) for size in SIZES] for _ in range(2 + len(opt.slots))]
    opt.iter = 3
    scalars = np.array(opt.scalars())
    table = np.zeros((len(SIZES) + 1, row.SLOTS + len(opt.slots)), np.intp)
    table[1:, row.START] = table[:-1, row.STOP] = np.cumsum(SIZES)
    table[:, row.NEXT] = table.ctypes.data + table.strides[0] * np.arange(1, len(SIZES) + 2)
    table[:, row.VALUE] = scalars.ctypes.data
    table[:-1, row.P :] = np.transpose([[array.ctypes.data for array in column] for column in arrays])
    kernel = fuse(opt.rule, (dtype,) * (2 + len(opt.slots)))
    run = kernel.ctypes
    ends = [0, *cuts, sum(SIZES)]
    # The last chunk runs first, because the order must not matter either.
    for start, stop in reversed(list(pairwise(ends))):
        run(table.ctypes.data, start, stop)
    return np.concatenate([array for column in arrays for array in column])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_chunks_give_the_same_bits(name, dtype):
    whole = update_in_chunks(optimizer(name), dtype, [])

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.integers(0, sum(SIZES)), max_size=9).map(sorted))
    def check(cuts):
        assert_bits(whole, update_in_chunks(optimizer(name), dtype, cuts), cuts)

    check()


@pytest.mark.parametrize("name", RULES)
def test_any_layout_gives_the_same_bits(name):
    """All pairs of C order, Fortran order, strided, reversed and flat arrays as parameters and gradients."""
    # In float64, test_values.py compares all layouts with NumPy, so those kernels are there. To compile the others of
    # these three takes seconds each.
    dtype = np.float32 if name in ("SGD", "Adam", "Softsign") else np.float64
    layouts = [
        np.ascontiguousarray,
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
        lambda a: fo.flatten({"w": a})["w"],
    ]
    results = []
    for p_layout in layouts:
        for g_layout in layouts:
            rng, opt = np.random.default_rng(1), optimizer(name)
            params = {"w": p_layout(draw(rng, (37, 11), dtype))}
            for _ in range(3):
                opt.update(params, {"w": g_layout(draw(rng, (37, 11), dtype))})
            results.append(np.concatenate([params["w"], *(getattr(opt, slot)["w"] for slot in opt.slots)]))
    rng, opt = np.random.default_rng(1), optimizer(name)
    params = fo.flatten({"w": draw(rng, (37, 11), dtype)})
    for _ in range(3):
        opt.update(params, fo.flatten({"w": draw(rng, (37, 11), dtype)}))
    results.append(np.concatenate([params["w"], *(getattr(opt, slot)["w"] for slot in opt.slots)]))
    for result in results:
        assert_bits(results[0], result)


def test_any_process_gives_the_same_bits(tmp_path):
    """Processes differ in the cache, empty or filled, the number of threads and the threading layer."""
    pytest.importorskip("threadpoolctl")
    source = """
        import contextlib, hashlib, sys
        import numba
        import numpy as np
        from threadpoolctl import threadpool_limits
        import fastoptim as fo
        from fastoptim.family import NOTES_FIVE

        class Softsign(fo.Optimizer):
            slots = ("m",)
            def scalars(self): return 0.1, 0.9

            @staticmethod
            def rule(p, g, m, lr, beta):
                m = beta * m + (1 - beta) * g
                return p - lr * m / (1 + np.abs(m)), m

        # Load the BLAS first: a limit has no effect on a library that is loaded later.
        fo.MultiLayerNet
        digest = hashlib.sha256()
        numba.set_num_threads(int(sys.argv[1]))
        with fo.num_threads(int(sys.argv[2])) if len(sys.argv) > 2 else contextlib.nullcontext():
            for cls in *(getattr(fo, name) for name in NOTES_FIVE), Softsign:
                for dtype in np.float32, np.float64:
                    rng, opt = np.random.default_rng(0), cls()
                    params = {"w": rng.standard_normal(40_001).astype(dtype)}
                    for _ in range(5):
                        opt.update(params, {"w": rng.standard_normal(40_001).astype(dtype)})
                    digest.update(params["w"])
                    for slot in opt.slots:
                        digest.update(getattr(opt, slot)["w"])
        for blas in 1, 2:
            with threadpool_limits(blas, "blas"):
                net = fo.MultiLayerNet(500, [90, 90], 10, weight_decay_lambda=0.1, seed=0)
                x = np.random.default_rng(0).standard_normal((70, 500))
                for _ in range(3):
                    digest.update(repr(net.loss(x, np.arange(70) % 10)).encode())
                    digest.update(net.predict(x))
                    digest.update(net.gradient(x, np.arange(70) % 10).flat)
        print(digest.hexdigest())
    """
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    runs = [
        (["1"], {"NUMBA_NUM_THREADS": "1"}),
        (["1", "3"], {"NUMBA_NUM_THREADS": "2"}),
        (["3", "7"], {"NUMBA_NUM_THREADS": "3"}),
        (["2", "2"], {"NUMBA_NUM_THREADS": "2", "NUMBA_THREADING_LAYER": "workqueue"}),
    ]
    assert len({script.run(source, tmp_path, *arguments, **cache, **names) for arguments, names in runs}) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(64, [100, 100], 10), (7, [], 3), (300, [3, 40], 2)])
@pytest.mark.parametrize("rows", [1, 2, 25])
def test_any_number_of_blas_threads_gives_the_same_bits_for_small_products(dtype, sizes, rows):
    """OpenBLAS uses one thread for up to 2**18 multiplications; for larger products see `MultiLayerNet`."""
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    net = fo.MultiLayerNet(*sizes, dtype=dtype, weight_decay_lambda=0.1, seed=0)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((rows, sizes[0])), rng.integers(0, sizes[-1], rows)
    results = []
    for threads in 1, 2, 1:
        with limits(threads, "blas"):
            results.append([net.predict(x), net.loss(x, t), net.gradient(x, t).flat])
    for result in results:
        for one, other in zip(results[0], result, strict=True):
            assert_bits(one, other)
