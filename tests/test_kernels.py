"""The engine: which arrays a plan accepts, how many kernels an update calls, and what it allocates."""

import ctypes
import gc
import os
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
from fastoptim.kernels import rules
from fastoptim.kernels.fuse import fuse
from fastoptim.kernels.jit import DISABLED
from fastoptim.kernels.table import NEXT, SLOTS, START, STOP, VALUE, G, P
from script import run

pytestmark = pytest.mark.skipif(DISABLED, reason="needs compiled code")


def arrays(n_arrays=10, size=7, dtype=np.float32):
    rng = np.random.default_rng(0)
    return {k: rng.standard_normal(size).astype(dtype) for k in range(n_arrays)}


def test_update_of_flat_dicts_is_one_kernel_call(launches):
    params, grads = fo.flatten(arrays()), fo.flatten(arrays())
    opt = fo.Adam()
    for _ in range(3):
        launches.clear()
        opt.update(params, grads)
        assert launches == [(70, False)]
    first, grads = opt._plan, fo.flatten(arrays())
    opt.update(params, grads)
    assert opt._plan is first  # Another layout may replace an equal one.
    assert grads.layout is not params.layout
    for layout in (grads.layout, params.layout):
        opt.update(params, type(grads)(layout, {grads.flat.dtype: grads.flat + 1}))
    assert opt._plan is first


def test_update_of_flat_dicts_allocates_nothing():
    params, grads = fo.flatten(arrays(10, 10_000)), fo.flatten(arrays(10, 10_000))
    opt = fo.Adam()

    def update_often():
        for _ in range(1_000):
            opt.update(params, grads)

    update_often()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        update_often()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The step count and the timings of the autotuner remain; each update makes only a few numbers and tuples.
    assert after - before < 2_000
    assert peak - before < 4_000


def test_separate_arrays_are_one_kernel_call_for_each_dtype(launches):
    params = {**arrays(5), **{f"d{k}": a for k, a in arrays(3, 7, np.float64).items()}}
    opt, plans = fo.Adam(), set()
    for _ in range(3):
        launches.clear()
        opt.update(params, {key: a.copy() for key, a in params.items()})
        assert sorted(launches) == [(21, False), (35, False)]
        plans.add(opt._plan)
    assert len(plans) == 1


@pytest.mark.parametrize("on_nonfinite", ["ignore", "raise"])
def test_new_gradients_reuse_the_plan(on_nonfinite):
    opt, params = fo.Adam(on_nonfinite=on_nonfinite), arrays()
    opt.update(params, arrays())
    first = opt._plan
    for _ in range(3):
        opt.update(params, arrays())
    assert opt._plan is first


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.copy(),
        lambda a: a.astype(np.float64),
        lambda a: a.reshape(1, -1),
        lambda a: np.repeat(a, 2)[::2],
        lambda a: a[::-1],
        lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype),
        lambda a: a.astype(">f4"),
        lambda a: a[:6],
    ],
)
def test_bind_accepts_only_arrays_of_the_same_form(change):
    """The plan may be bound to a copy, but not to an array of another dtype, shape, stride or alignment."""
    params, grads = arrays(2), arrays(2)
    opt = fo.SGD()
    opt.update(params, grads)
    first = opt._plan
    assert first.bind(params, grads)
    other = change(grads[1])
    fits = (other.dtype, other.shape, other.strides) == (np.dtype(np.float32), (7,), (4,)) and other.flags.aligned
    assert bool(first.bind(params, {**grads, 1: other})) is fits
    assert bool(first.rebind({**params, 1: change(params[1])}, grads, may_move=True)) is fits


@pytest.mark.parametrize("attribute", ["strides", "shape", "dtype"])
@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
def test_bind_refuses_a_parameter_altered_in_place(attribute):
    """The address stays the same, so `bind` must compare dtype, shape and strides."""
    buffer = np.zeros(10_000, np.float32)
    w = np.ndarray((20, 20, 20), np.float32, buffer, 0, (4 * 20, 4 * 20 * 20, 4))
    opt = fo.SGD()
    opt.update({"w": w}, {"w": np.zeros_like(w)})
    first = opt._plan
    assert first.bind({"w": w}, {"w": np.zeros_like(w)})
    other = {"strides": (0, 80, 4), "shape": (20, 400), "dtype": np.int32}[attribute]
    try:
        setattr(w, attribute, other)
    except (AttributeError, ValueError):
        pytest.skip(f"this NumPy does not set {attribute} so")
    assert not first.bind({"w": w}, {"w": np.ndarray(w.shape, np.float32, buffer.copy(), 0, w.strides)})


@pytest.mark.parametrize("stranger", [None, 1.5, [1.0] * 7, "text", np.float32(1), np.ma.ones(7, np.float32), object()])
def test_bind_refuses_objects_that_are_not_arrays(stranger):
    params, grads = arrays(2), arrays(2)
    opt = fo.SGD()
    opt.update(params, grads)
    assert not opt._plan.bind(params, {**grads, 1: stranger})


def test_loops_are_vectorized(tmp_path):
    """With scalar square roots and divisions the kernel would be several times slower."""
    source = """
        import numpy as np, platform, sys
        from fastoptim.kernels import rules
        from fastoptim.kernels.fuse import fuse
        assembly = fuse(rules.adam, (np.float32,) * 4)._library.get_asm_str()
        sys.stdout.write(assembly)
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(source)]
    assembly = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    packed = ("sqrtps", "divps") if "ldmxcsr" in assembly else ("fsqrt.4s", "fdiv.4s")
    text = assembly.replace("\t", " ").replace("v4f32", "4s")
    assert all(name in text or name.replace(".4s", "") + " v" in text for name in packed)
    assert "fmadd" not in assembly
    assert "fmla" not in assembly


def test_subnormal_moments_are_flushed_only_inside_kernels():
    smallest = np.float32(np.finfo(np.float32).tiny)
    with fo.num_threads(2):
        opt, params = fo.Momentum(), {"w": np.zeros(100_000, np.float32)}
        opt.update(params, {"w": np.zeros(100_000, np.float32)})
        opt.v["w"][:] = smallest
        opt.update(params, {"w": np.zeros(100_000, np.float32)})
    assert_array_equal(opt.v["w"], 0)
    assert ctypes.c_float(float(smallest)).value / 2 != 0
    assert (np.full(4, smallest) / np.float32(2) != 0).all()


def test_subnormals_are_flushed_if_python_names_another_processor(tmp_path):
    """It is i686 under `setarch i686`, and ARM64 for x86 programs on Windows."""
    source = """
        import platform
        platform.machine = lambda: "i686"
        import numpy as np
        import fastoptim as fo

        opt, params, grads = fo.Momentum(), {"w": np.zeros(9)}, {"w": np.zeros(9)}
        opt.update(params, grads)
        opt.v["w"][:] = np.finfo(float).tiny
        opt.update(params, grads)
        print(opt.v["w"].any())
    """
    assert run(source, tmp_path, NUMBA_CACHE_DIR=str(tmp_path)) == "False"


def test_kernels_are_reused():
    kinds = np.float64, np.float64
    assert fuse(rules.sgd, kinds) is fuse(rules.sgd, kinds)
    assert fuse(rules.sgd, kinds) is not fuse(rules.sgd, (np.float32, np.float32))
    assert fuse(rules.sgd, kinds) is not fuse(rules.sgd, kinds, (True, False))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elements_beyond_two_to_the_31st(dtype):
    """Elements are counted through all rows; here the first row only claims to have that many."""
    far = 2**33 - 3
    table = np.zeros((4, SLOTS), np.intp)
    table[:, START] = [0, far, far + 5, far + 12]
    table[:-1, STOP] = table[1:, START]
    table[:, NEXT] = table.ctypes.data + table.strides[0] * np.arange(1, 5)
    scalars, p, g = np.array([0.5]), np.ones(12, dtype), np.arange(12, dtype=dtype)
    table[:, VALUE] = scalars.ctypes.data
    for k, offset in ((1, 0), (2, 5)):
        table[k, P], table[k, G] = (a.ctypes.data + offset * a.itemsize for a in (p, g))
    kernel = fuse(rules.sgd, (dtype, dtype)).address
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(kernel)
    for start, stop in ((far + 1, far + 4), (far + 4, far + 11)):
        call(table.ctypes.data, start, stop)
    ref = np.ones(12, dtype)
    ref[1:11] -= dtype(0.5) * g[1:11]
    assert_array_equal(p, ref)
