"""The engine from below: what it reads of arrays, how it cuts its work, and what it leaves as it was."""

import ctypes
import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
from fastoptim import plan, spans
from fastoptim.kernels import launch, ndarray, rules
from fastoptim.kernels.fuse import fuse
from fastoptim.kernels.jit import DISABLED
from fastoptim.kernels.ndarray import SLOTS, START, VALUE, G, P


@pytest.fixture
def launches(monkeypatch):
    """A list of (total, parallel?) that grows with every kernel that runs."""
    seen = []
    serial, parallel = launch._run, launch._run_parallel
    monkeypatch.setattr(launch, "_run", lambda *args: (seen.append((args[2], False)), serial(*args)))
    monkeypatch.setattr(launch, "_run_parallel", lambda *args: (seen.append((args[2], True)), parallel(*args)))
    return seen


def arrays(n_arrays=10, size=7, dtype=np.float32):
    rng = np.random.default_rng(0)
    return {k: rng.standard_normal(size).astype(dtype) for k in range(n_arrays)}


def test_an_update_of_flat_dicts_is_one_kernel_call(launches):
    params, grads = fo.flatten(arrays()), fo.flatten(arrays())
    opt = fo.Adam()
    for _ in range(3):
        launches.clear()
        opt.update(params, grads)
        assert launches == [(70, False)]
    first, grads = opt._plan, fo.flatten(arrays())
    opt.update(params, grads)
    assert opt._plan is not first  # Another layout object is compared once; then it is known.
    first = opt._plan
    assert grads.layout is not params.layout
    for layout in (grads.layout, params.layout):
        opt.update(params, type(grads)(layout, {grads.flat.dtype: grads.flat + 1}))
    assert opt._plan is first


@pytest.mark.compiled
def test_an_update_of_flat_dicts_allocates_nothing():
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
    # What stays is the step count and what the choice of threads remembers; what goes, some numbers and tuples.
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
def test_fresh_gradients_need_no_new_plan(on_nonfinite):
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
def test_what_the_plan_no_longer_fits_is_noticed(change):
    """A gradient that only lies otherwise in memory is copied; anything else, and any other parameter, is refused."""
    params, grads = arrays(2), arrays(2)
    opt = fo.SGD()
    opt.update(params, grads)
    first = opt._plan
    assert first.renew(params, grads)
    other = change(grads[1])
    fits = (other.dtype, other.shape) == (np.dtype(np.float32), (7,))
    held = first.renew(params, {**grads, 1: other})
    assert bool(held) is fits
    if fits:
        assert_array_equal(held[1][1], other)
    assert not first.renew({**params, 1: change(params[1])}, grads)


@pytest.mark.parametrize("attribute", ["strides", "shape", "dtype"])
@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
def test_a_parameter_altered_in_place_is_noticed(attribute):
    """Neither its flags nor its size nor its address tell: only a view from before does."""
    buffer = np.zeros(10_000, np.float32)
    w = np.ndarray((20, 20, 20), np.float32, buffer, 0, (4 * 20, 4 * 20 * 20, 4))
    opt = fo.SGD()
    opt.update({"w": w}, {"w": np.zeros_like(w)})
    first = opt._plan
    assert first.renew({"w": w}, {"w": np.zeros_like(w)})
    other = {"strides": (0, 80, 4), "shape": (20, 400), "dtype": np.int32}[attribute]
    try:
        setattr(w, attribute, other)
    except (AttributeError, ValueError):
        pytest.skip(f"this NumPy does not set {attribute} so")
    assert not first.renew({"w": w}, {"w": np.ndarray(w.shape, np.float32, buffer.copy(), 0, w.strides)})


@pytest.mark.parametrize("stranger", [None, 1.5, [1.0] * 7, "text", np.float32(1), np.ma.ones(7, np.float32), object()])
def test_an_object_that_is_no_array_is_never_read_as_one(stranger):
    params, grads = arrays(2), arrays(2)
    opt = fo.SGD()
    opt.update(params, grads)
    assert not opt._plan.renew(params, {**grads, 1: stranger})


@pytest.mark.parametrize("renewed", [False, True])
@pytest.mark.parametrize("p_order", ["C", "F", "strided"])
@pytest.mark.parametrize("g_order", ["C", "F", "strided"])
def test_copies_live_until_the_kernel_has_run(p_order, g_order, renewed, monkeypatch):
    """A row holds an address, which keeps nothing alive."""
    buffers = []
    blank = spans.blank

    def watched(like, strides):
        array = blank(like, strides)
        buffers.append(weakref.ref(array.base))
        return array

    def array(order):
        return np.ones((3, 8))[:, ::2] if order == "strided" else np.ones((3, 4), order=order)

    def run(*_args):
        assert all(reference() is not None for reference in buffers)
        ran.append(len(buffers))

    params, opt = {"w": array(p_order)}, fo.Momentum()
    if renewed:
        opt.update(params, {"w": array(g_order)})
    ran = []
    monkeypatch.setattr(plan, "blank", watched)
    monkeypatch.setattr(spans, "blank", watched)
    monkeypatch.setattr(launch, "_run", run)
    opt.update(params, {"w": array(g_order)})
    assert len(ran) == 1
    gc.collect()
    assert not any(reference() is not None for reference in buffers) or p_order == "strided"


@pytest.mark.parametrize("total", [1, 63, 64, 65, 1000, 70_000])
@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
def test_parts_cover_the_range_once(total, parts, monkeypatch):
    if DISABLED and total > 1000:
        pytest.skip("plain Python is too slow for that many elements")
    monkeypatch.setattr(launch, "_PARALLEL_FROM", 0)
    params = arrays(3, total, np.float64)
    ref = {key: a - np.ones(total) for key, a in params.items()}
    with fo.num_threads(parts):
        fo.SGD(lr=1.0).update(params, {key: np.ones(total) for key in params})
    for key, a in ref.items():
        assert_array_equal(params[key], a)


def test_num_threads_belongs_to_a_thread_and_ends_with_its_block(launches):
    size = 20_000
    params, grads, opt = {"w": np.ones(size, np.float32)}, {"w": np.zeros(size, np.float32)}, fo.SGD()

    def is_parallel():
        launches.clear()
        opt.update(params, grads)
        return launches[-1][1]

    with fo.num_threads(1):
        assert not is_parallel()
        with fo.num_threads(2):
            assert is_parallel()
            other = []
            thread = threading.Thread(target=lambda: other.append(launch._setting.parts))
            thread.start()
            thread.join()
            assert other == [None]
        assert not is_parallel()
    assert launch._setting.parts is None


def test_numpys_integers_are_numbers_of_threads(launches):
    params, grads = {"w": np.ones(20_000)}, {"w": np.ones(20_000)}
    with fo.num_threads(np.int64(2)):
        fo.SGD().update(params, grads)
    assert launches[-1][1]


@pytest.mark.parametrize("n", [1_000, 10**15, 10**30])
def test_there_are_no_more_parts_than_blocks(n):
    params, grads = {"w": np.ones(20_000)}, {"w": np.ones(20_000)}
    with fo.num_threads(n):
        fo.SGD(lr=1.0).update(params, grads)
    assert_array_equal(params["w"], 0)


@pytest.mark.parametrize("n", [0, -1, 1.0, "2", None])
def test_numbers_of_threads_that_cannot_be(n):
    with pytest.raises(ValueError, match="whole number from 1 on"), fo.num_threads(n):
        pass
    assert launch._setting.parts is None


@pytest.fixture
def simulated(monkeypatch):
    """What a run takes, alone and in parallel, what the first ones take more, and how many runs are parallel."""
    world = SimpleNamespace(clock=0.0, cost={False: 1e-4, True: 2e-4}, waking=[], since_serial=0, parallel=0)

    def run(parallel):
        # The first parallel runs after a serial one wake the threads.
        world.clock += world.cost[parallel]
        if parallel and world.since_serial < len(world.waking):
            world.clock += world.waking[world.since_serial]
        world.since_serial = world.since_serial + 1 if parallel else 0
        world.parallel += parallel

    monkeypatch.setattr(launch, "perf_counter", lambda: world.clock)
    monkeypatch.setattr(launch, "_has_safe_threads", lambda: True)
    monkeypatch.setattr(launch.numba, "get_num_threads", lambda: 2)
    monkeypatch.setattr(launch, "_run", lambda *_: run(False))
    monkeypatch.setattr(launch, "_run_parallel", lambda *_: run(True))
    work = launch.Launch(0, 0, 10**6)

    def share_of_parallel_runs(of=200):
        world.parallel = 0
        for _ in range(of):
            work.run()
        return world.parallel / of

    world.share_of_parallel_runs = share_of_parallel_runs
    return world


def test_one_thread_is_kept_where_it_is_faster(simulated):
    simulated.share_of_parallel_runs()
    assert simulated.share_of_parallel_runs() < 0.05


@pytest.mark.parametrize("waking", [[1e-2], [2e-4, 2e-4]])
def test_the_faster_way_is_found_and_left_when_it_slows_down(waking, simulated):
    simulated.cost[True], simulated.waking = 0.5e-4, waking
    simulated.share_of_parallel_runs()
    assert simulated.share_of_parallel_runs() > 0.95
    simulated.cost[True], simulated.waking = 1e-2, []
    assert simulated.share_of_parallel_runs() < 0.05
    simulated.cost[True] = 0.5e-4
    simulated.share_of_parallel_runs(of=4_000)
    assert simulated.share_of_parallel_runs() > 0.9


def test_a_way_that_was_slower_for_a_while_is_soon_tried_again(simulated):
    simulated.cost[True] = 0.5e-4
    simulated.share_of_parallel_runs(of=10_000)
    simulated.cost[True] = 1.5e-4
    simulated.share_of_parallel_runs(of=10_000)
    assert simulated.share_of_parallel_runs() < 0.05
    simulated.cost[True] = 0.5e-4
    simulated.share_of_parallel_runs(of=1_500)
    assert simulated.share_of_parallel_runs() > 0.95


def test_pauses_in_which_threads_fall_asleep_are_no_reason_to_try(simulated):
    simulated.cost[True], simulated.waking = 0.5e-4, [2e-4, 2e-4]
    simulated.share_of_parallel_runs(of=5_000)
    shares = []
    for _ in range(200):
        simulated.since_serial = 0
        shares.append(simulated.share_of_parallel_runs(of=20))
    assert np.mean(shares) > 0.95


@pytest.mark.parametrize("waking", [[1e-3, 1e-3], [2e-4, 2e-4, 2e-4]])
def test_waking_does_not_decide_a_trial(waking, simulated):
    simulated.cost[True], simulated.waking = 0.5e-4, waking
    simulated.share_of_parallel_runs(of=50)
    assert simulated.share_of_parallel_runs() > 0.8


def test_a_machine_that_stood_still_is_tried_again(simulated):
    simulated.waking = [600]
    simulated.share_of_parallel_runs(of=50)
    assert simulated.share_of_parallel_runs(of=60_000) > 0


def test_what_a_trial_costs_is_made_up_for_before_the_next(simulated):
    simulated.cost[True] = 1e-2
    simulated.share_of_parallel_runs()
    parallel = simulated.share_of_parallel_runs(of=100_000)
    assert 0 < parallel * simulated.cost[True] < 0.02 * (1 - parallel) * simulated.cost[False]


@pytest.mark.parametrize("cost", [1e-3, 1e-1])
def test_few_of_long_runs_are_spent_on_trying(cost, simulated):
    simulated.cost = {False: 1.1 * cost, True: cost}
    assert simulated.share_of_parallel_runs() > 0.9


@pytest.mark.compiled
def test_loops_are_vectorized(tmp_path):
    """With square roots and divisions by scalars alone the kernel would be several times slower."""
    source = """
        import numpy as np, platform, sys
        from fastoptim.kernels import rules
        from fastoptim.kernels.fuse import fuse
        assembly = fuse(rules.adam, 2, np.float32)._library.get_asm_str()
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


@pytest.mark.compiled
def test_vanishing_moments_become_zero_and_the_processor_is_left_as_it_was():
    smallest = np.float32(np.finfo(np.float32).tiny)
    with fo.num_threads(2):
        opt, params = fo.Momentum(), {"w": np.zeros(100_000, np.float32)}
        opt.update(params, {"w": np.zeros(100_000, np.float32)})
        opt.v["w"][:] = smallest
        opt.update(params, {"w": np.zeros(100_000, np.float32)})
    assert_array_equal(opt.v["w"], 0)
    assert ctypes.c_float(float(smallest)).value / 2 != 0
    assert (np.full(4, smallest) / np.float32(2) != 0).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.compiled
def test_a_forked_child_updates_serially():
    """GNU OpenMP ends a child that enters a parallel region; the child must come back with a result."""
    source = """
        import os, warnings
        import numpy as np
        import fastoptim as fo

        params, grads = {"w": np.zeros(100_000)}, {"w": np.ones(100_000)}
        opt = fo.SGD(lr=1.0)
        with fo.num_threads(2):
            opt.update(params, grads)
            pid = os.fork()
            if pid == 0:
                opt.update(params, grads)
                os._exit(7 if (params["w"] == -2).all() else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "7"


def test_a_kernel_is_made_once():
    assert fuse(rules.sgd, 0, np.float64) is fuse(rules.sgd, 0, np.float64)
    assert fuse(rules.sgd, 0, np.float64) is not fuse(rules.sgd, 0, np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elements_past_two_to_the_31st(dtype):
    """Counted through all rows, an element may have any number; here the rows before are only said to be there."""
    far = 2**33 - 3
    table = np.zeros((4, SLOTS), np.intp)
    table[:, START] = [0, far, far + 5, far + 12]
    scalars, p, g = np.array([0.5]), np.ones(12, dtype), np.arange(12, dtype=dtype)
    table[:, VALUE] = scalars.ctypes.data
    for k, offset in ((1, 0), (2, 5)):
        table[k, P], table[k, G] = (a.ctypes.data + offset * a.itemsize for a in (p, g))
    kernel = fuse(rules.sgd, 0, dtype).address
    call = kernel if DISABLED else ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(kernel)
    for start, stop in ((far + 1, far + 4), (far + 4, far + 11)):
        call(table.ctypes.data, start, stop)
    ref = np.ones(12, dtype)
    ref[1:11] -= dtype(0.5) * g[1:11]
    assert_array_equal(p, ref)


@pytest.mark.parametrize("total", [2**31, 2**33 + 1, 2**40 + 65])
@pytest.mark.parametrize("parts", [2, 7])
def test_parts_of_more_than_two_to_the_31st(total, parts, monkeypatch):
    seen = []
    monkeypatch.setattr(launch, "call", lambda _kernel, _rows, start, stop: seen.append((start, stop)))
    monkeypatch.setattr(launch, "_finish", lambda *_: None)
    monkeypatch.setattr(launch, "prange", range)
    getattr(launch._run_parallel, "py_func", launch._run_parallel)(0, 0, total, parts)
    assert (seen[0][0], seen[-1][1], len(seen)) == (0, total, parts)
    assert all(a[1] == b[0] and a[0] < a[1] for a, b in itertools.pairwise(seen))


def test_a_renewal_that_fails_reads_the_arrays_once(monkeypatch):
    """A second look is worth its while only if something was copied."""
    params, grads, opt = arrays(2), arrays(2), fo.SGD()
    refreshes = []
    refresh = ndarray.refresh
    monkeypatch.setattr(ndarray, "refresh", lambda *args: (refreshes.append(1), refresh(*args))[1])
    opt.update(params, grads)
    renew = opt._plan.renew
    for other, times in ((grads, 1), ({**grads, 1: np.repeat(grads[1], 2)[::2]}, 2), ({**grads, 1: grads[1][:6]}, 1)):
        refreshes.clear()
        renew(params, other)
        assert len(refreshes) == times
