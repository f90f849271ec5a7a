"""Kernels are cut into chunks and run on one thread or several; the autotuner finds which is faster."""

import itertools
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
import script
from fastoptim import threads
from fastoptim.kernels import parallel


@pytest.mark.parametrize("total", [1, 63, 64, 65, 1000, 70_000])
@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
def test_chunks_cover_the_range_once(total, parts, monkeypatch):
    monkeypatch.setattr(threads, "_PARALLEL_FROM", 0)
    rng = np.random.default_rng(0)
    params = {key: rng.standard_normal(total) for key in range(3)}
    ref = {key: a - np.ones(total) for key, a in params.items()}
    with fo.num_threads(parts):
        fo.SGD(lr=1.0).update(params, {key: np.ones(total) for key in params})
    for key, a in ref.items():
        assert_array_equal(params[key], a)


def test_num_threads_applies_to_one_thread_inside_its_block(launches, monkeypatch):
    # One thread may enter every layer of Numba, also workqueue.
    monkeypatch.setattr(threads, "has_safe_threads", lambda: True)
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
            thread = threading.Thread(target=lambda: other.append(threads._setting.parts))
            thread.start()
            thread.join()
            assert other == [None]
        assert not is_parallel()
    assert threads._setting.parts is None


def test_num_threads_takes_numpy_integers(launches, monkeypatch):
    # One thread may enter every layer of Numba, also workqueue.
    monkeypatch.setattr(threads, "has_safe_threads", lambda: True)
    params, grads = {"w": np.ones(20_000)}, {"w": np.ones(20_000)}
    with fo.num_threads(np.int64(2)):
        fo.SGD().update(params, grads)
    assert launches[-1][1]


@pytest.mark.parametrize("n", [1_000, 10**15, 10**30])
def test_large_numbers_of_threads(n):
    params, grads = {"w": np.ones(20_000)}, {"w": np.ones(20_000)}
    with fo.num_threads(n):
        fo.SGD(lr=1.0).update(params, grads)
    assert_array_equal(params["w"], 0)


@pytest.mark.parametrize("n", [0, -1, 1.0, "2", None, True])
def test_invalid_number_of_threads_is_an_error(n):
    with pytest.raises(ValueError, match="number of threads must be an integer >= 1"), fo.num_threads(n):
        pass
    assert threads._setting.parts is None


@pytest.fixture
def simulated(monkeypatch):
    """A simulated clock: the times of serial and parallel runs, the wake-up times of threads, and a count of runs."""
    world = SimpleNamespace(clock=0.0, cost={False: 1e-4, True: 2e-4}, waking=[], since_serial=0, parallel=0)

    def run(parallel):
        # The first parallel runs after a serial one wake the threads.
        world.clock += world.cost[parallel]
        if parallel and world.since_serial < len(world.waking):
            world.clock += world.waking[world.since_serial]
        world.since_serial = world.since_serial + 1 if parallel else 0
        world.parallel += parallel

    monkeypatch.setattr(threads, "perf_counter", lambda: world.clock)
    monkeypatch.setattr(threads, "has_safe_threads", lambda: True)
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: 2)
    monkeypatch.setattr(threads, "run", lambda *_: run(False))
    monkeypatch.setattr(threads, "run_parallel", lambda *_: run(True))
    work = threads.Autotuner([(0, 0, 0, 10**6)])

    def share_of_parallel_runs(of=200):
        world.parallel = 0
        for _ in range(of):
            work.run()
        return world.parallel / of

    world.share_of_parallel_runs = share_of_parallel_runs
    return world


def test_autotuner_keeps_one_thread_if_it_is_faster(simulated):
    simulated.share_of_parallel_runs()
    assert simulated.share_of_parallel_runs() < 0.05


@pytest.mark.parametrize("waking", [[1e-2], [2e-4, 2e-4]])
def test_autotuner_finds_the_faster_way_and_leaves_it_when_it_slows_down(waking, simulated):
    simulated.cost[True], simulated.waking = 0.5e-4, waking
    simulated.share_of_parallel_runs()
    assert simulated.share_of_parallel_runs() > 0.95
    simulated.cost[True], simulated.waking = 1e-2, []
    assert simulated.share_of_parallel_runs() < 0.05
    simulated.cost[True] = 0.5e-4
    simulated.share_of_parallel_runs(of=4_000)
    assert simulated.share_of_parallel_runs() > 0.9


def test_autotuner_soon_tries_again_after_a_change(simulated):
    simulated.cost[True] = 0.5e-4
    simulated.share_of_parallel_runs(of=10_000)
    simulated.cost[True] = 1.5e-4
    simulated.share_of_parallel_runs(of=10_000)
    assert simulated.share_of_parallel_runs() < 0.05
    simulated.cost[True] = 0.5e-4
    simulated.share_of_parallel_runs(of=1_500)
    assert simulated.share_of_parallel_runs() > 0.95


def test_pauses_that_let_threads_sleep_start_no_trial(simulated):
    simulated.cost[True], simulated.waking = 0.5e-4, [2e-4, 2e-4]
    simulated.share_of_parallel_runs(of=5_000)
    shares = []
    for _ in range(200):
        simulated.since_serial = 0
        shares.append(simulated.share_of_parallel_runs(of=20))
    assert np.mean(shares) > 0.95


@pytest.mark.parametrize("waking", [[1e-3, 1e-3], [2e-4, 2e-4, 2e-4]])
def test_wake_up_time_does_not_decide_a_trial(waking, simulated):
    simulated.cost[True], simulated.waking = 0.5e-4, waking
    simulated.share_of_parallel_runs(of=50)
    assert simulated.share_of_parallel_runs() > 0.8


def test_autotuner_tries_again_after_the_machine_stood_still(simulated):
    simulated.waking = [600]
    simulated.share_of_parallel_runs(of=50)
    assert simulated.share_of_parallel_runs(of=60_000) > 0


def test_trials_take_at_most_two_percent_of_the_time(simulated):
    simulated.cost[True] = 1e-2
    simulated.share_of_parallel_runs()
    parallel = simulated.share_of_parallel_runs(of=100_000)
    assert 0 < parallel * simulated.cost[True] < 0.02 * (1 - parallel) * simulated.cost[False]


@pytest.mark.parametrize("cost", [1e-3, 1e-1])
def test_long_runs_need_few_trials(cost, simulated):
    simulated.cost = {False: 1.1 * cost, True: cost}
    assert simulated.share_of_parallel_runs() > 0.9


@pytest.mark.parametrize("total", [2**31, 2**33 + 1, 2**40 + 65])
@pytest.mark.parametrize("parts", [2, 7])
def test_chunks_of_more_than_two_to_the_31st_elements(total, parts, monkeypatch):
    seen = []
    monkeypatch.setattr(parallel, "call", lambda _kernel, _rows, start, stop: seen.append((start, stop)))
    monkeypatch.setattr(parallel, "prange", range)
    monkeypatch.setattr(parallel, "_call", lambda *_: (0, 0, 64, 64 + total))
    monkeypatch.setattr(parallel, "word", lambda *_: 1)
    monkeypatch.setattr(parallel, "set_word", lambda *_: None)
    getattr(parallel.run_parallel, "py_func", parallel.run_parallel)(0, parts, 1)
    assert (seen[0][0], seen[-1][1], len(seen)) == (64, 64 + total, parts)
    assert all(a[1] == b[0] and a[0] < a[1] for a, b in itertools.pairwise(seen))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_updates_serially(tmp_path):
    """GNU OpenMP ends a forked child that enters a parallel region, so the child must not enter one."""
    source = """
        import os
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
    assert script.run(source, tmp_path) == "7"
