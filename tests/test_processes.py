"""Updates in threads and other processes, and during signals: same results, no crash, no hang, no side effects.

Each script runs in a separate process, so that a crash or a hang does not stop the tests.
"""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

import script

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

# Code shared by most scripts: functions that train and return the bytes of the result.
TRAIN = """
    import os, sys, threading, time
    import numpy as np
    import fastoptim as fo

    class Sign(fo.Optimizer):
        def scalars(self): return (0.1,)

        @staticmethod
        def rule(p, g, lr): return p - lr * np.sign(g)

    RULES = [fo.SGD, fo.Momentum, fo.Nesterov, fo.AdaGrad, fo.RMSprop, fo.Adam, Sign]

    def train(seed=0, steps=20, parts=None, size=30_000):
        rng = np.random.default_rng(seed)
        params = {"w": rng.standard_normal(size, np.float32), "b": rng.standard_normal((3, 5))}
        opt = RULES[seed % len(RULES)]()
        for _ in range(steps):
            grads = {"w": rng.standard_normal(size, np.float32), "b": rng.standard_normal((3, 5))}
            if parts is None:
                opt.update(params, grads)
            else:
                with fo.num_threads(parts):
                    opt.update(params, grads)
        return params["w"].tobytes() + params["b"].tobytes()

    def train_network(steps=3):
        net, opt, x = fo.MultiLayerNet(64, [100], 10, seed=0), fo.Adam(), np.ones((200, 64), np.float32)
        for _ in range(steps):
            opt.update(net.params, net.gradient(x, np.arange(200) % 10))
        return net.params.flat.tobytes()
"""

LAYERS = ["omp", "workqueue", "tbb"]


def layer(name):
    """Return the environment of a threading layer of Numba; pip installs TBB outside the loader's search path."""
    library = [str(Path(sys.prefix) / "lib"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"NUMBA_THREADING_LAYER": name, "NUMBA_NUM_THREADS": "2"} | (
        {"LD_LIBRARY_PATH": os.pathsep.join(library)} if name == "tbb" else {}
    )


@pytest.fixture(scope="session", params=LAYERS)
def layer_environment(request, tmp_path_factory):
    """The environment of each threading layer that is installed."""
    source = """
        import numba
        try:
            numba.set_num_threads(1)
        except ValueError:
            print("missing")
    """
    environment = layer(request.param)
    if script.run(source, tmp_path_factory.mktemp("layer"), **environment) == "missing":
        pytest.skip(f"Numba finds no {request.param} here")
    return environment


@pytest.mark.parametrize("parts", [None, 2])
def test_threads_with_separate_models(parts, layer_environment, tmp_path):
    source = f"""{TRAIN}
    from concurrent.futures import ThreadPoolExecutor
    barrier = threading.Barrier(8)

    def work(seed):
        barrier.wait()
        return train(seed, 30, {parts})

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, range(8)))
    assert together == [train(seed, 30, 1) for seed in range(8)]
    import numba
    print(numba.threading_layer(), numba.get_num_threads())
    """
    assert script.run(source, tmp_path, **layer_environment) == f"{layer_environment['NUMBA_THREADING_LAYER']} 2"


def test_missing_threading_layer(tmp_path):
    """Numba raises an error in this case; updates run on one thread instead."""
    source = f"{TRAIN}\n    assert train() == train(parts=2) == train(parts=1)"
    script.run(source, tmp_path, **{**layer("tbb"), "LD_LIBRARY_PATH": None})


def test_no_semaphores(tmp_path):
    """Where /dev/shm cannot be written, Numba warns, which is an error here; updates run on one thread instead."""
    source = f"""{TRAIN}
    import multiprocessing.synchronize

    def fail(*args, **kwargs):
        raise PermissionError("/dev/shm")

    multiprocessing.synchronize.SemLock.__init__ = fail
    assert train(parts=2) == train(parts=1) == train()
    """
    script.run(source, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit threads by other means")
@pytest.mark.parametrize("first", [1, 2])
def test_system_that_allows_no_more_threads(first, tmp_path):
    """GNU OpenMP ends the process in this case; updates run on one thread instead, the first of each Python thread."""
    source = f"""{TRAIN}
    import multiprocessing.synchronize, resource
    import numba.np.ufunc.omppool
    numba.njit(lambda x: x + 1)(1)  # Imports all that a compilation needs.
    results, go_on = [train(parts={first})], threading.Event()

    def work():
        go_on.wait()
        results.append(train(parts=2))

    thread = threading.Thread(target=work)
    thread.start()
    if os.getuid() == 0:
        os.setuid(4242)  # Root has no limit; all files that only root may read have been read.
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    go_on.set()
    thread.join()
    results += [train(), train(parts=2)]
    assert len(results) == 4 and len(set(results)) == 1
    """
    script.run(source, tmp_path, NUMBA_NUM_THREADS="2")


@needs_fork
def test_twenty_forked_children(layer_environment, tmp_path):
    """The parent has made parallel updates and BLAS calls, and other threads continue with both during the forks."""
    source = f"""{TRAIN}
    import multiprocessing
    warm = train(parts=2), train_network()
    stop = threading.Event()

    def go_on(work):
        while not stop.is_set():
            work()

    def child(queue):
        queue.put((train(parts=2), train_network()) == warm)

    threads = [threading.Thread(target=go_on, args=[work]) for work in (lambda: train(5, parts=2), train_network)]
    for thread in threads: thread.start()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=child, args=[queue]) for _ in range(20)]
    for process in children: process.start()
    for process in children: process.join()
    stop.set()
    for thread in threads: thread.join()
    assert [process.exitcode for process in children] == [0] * 20, [process.exitcode for process in children]
    assert all(queue.get() for _ in children)
    assert (train(parts=2), train_network()) == warm
    """
    script.run(source, tmp_path, **layer_environment)


@needs_fork
def test_child_forked_while_another_thread_compiles(tmp_path):
    """The child compiles another rule, for which it needs the compiler lock that the other thread held."""
    source = f"""{TRAIN}
    def update_by_a_new_rule(number):
        names = {{"fo": fo}}
        exec(
            "class Rule(fo.Optimizer):\\n"
            "    def scalars(self): return ()\\n"
            "    @staticmethod\\n"
            f"    def rule(p, g): return p - g * {{number}}", names
        )
        params = dict(w=np.zeros(3))
        names["Rule"]().update(params, dict(w=np.ones(3)))
        assert params["w"][0] == -number

    update_by_a_new_rule(0.5)
    stop = threading.Event()

    def go_on():
        number = 1
        while not stop.is_set():
            update_by_a_new_rule(number := number + 1)

    thread = threading.Thread(target=go_on)
    thread.start()
    for k in range(4):
        time.sleep(0.05)
        if (pid := os.fork()) == 0:
            update_by_a_new_rule(-1 - k)
            os._exit(0)
        end = time.monotonic() + 30
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(pid, 9)
            time.sleep(0.01)
        assert ended[1] == 0, ended
    stop.set()
    thread.join()
    """
    script.run(source, tmp_path, NUMBA_CACHE_DIR=str(tmp_path))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_signal_during_compilation(tmp_path):
    """The handler runs after the compilation; an exception inside would leave Numba or LLVM broken."""
    source = """
    import signal, sys, time
    import numpy as np
    import fastoptim as fo

    def interrupt(*_):
        frame = sys._getframe()
        while frame is not None:
            assert not frame.f_globals["__name__"].startswith(("numba.", "llvmlite.")), frame
            frame = frame.f_back
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    count = 0
    for number in range(12):
        names = {"fo": fo}
        exec(
            "class Rule(fo.Optimizer):\\n"
            "    def scalars(self): return ()\\n"
            "    @staticmethod\\n"
            f"    def rule(p, g): return p - g * {number}", names
        )
        opt, params, grads = names["Rule"](), dict(w=np.zeros(3)), dict(w=np.ones(3))
        try:
            # Half of the signals come while Numba makes its objects, before it compiles them.
            signal.setitimer(signal.ITIMER_REAL, (0.01, 0.001)[number % 2] * (1 + number))
            opt.update(params, grads)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            count += 1
            assert (params["w"] == -number * opt.iter).all()
            opt.update(params, grads)
        assert (params["w"] == -number * opt.iter).all()
    assert count > 5, count
    """
    script.run(source, tmp_path, NUMBA_CACHE_DIR=str(tmp_path))


@needs_fork
def test_fork_waits_only_for_a_limited_time_for_the_compiler_lock(tmp_path):
    """A thread that was interrupted may end without releasing the lock of Numba's compiler."""
    source = f"""{TRAIN}
    from numba.core.compiler_lock import global_compiler_lock
    from fastoptim import concurrency
    expected = train(parts=1)
    concurrency._FORK_TIMEOUT_S = 0.1
    thread = threading.Thread(target=global_compiler_lock.acquire)
    thread.start()
    thread.join()
    if (pid := os.fork()) == 0:
        os._exit(7 if train(parts=1) == expected else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert script.run(source, tmp_path) == "7"


@needs_fork
def test_fork_in_a_thread(tmp_path):
    source = f"""{TRAIN}
    expected = train(), train_network()
    codes = []

    def fork():
        if (pid := os.fork()) == 0:
            os._exit(7 if (train(parts=2), train_network()) == expected else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    threads = [threading.Thread(target=fork) for _ in range(3)]
    for thread in threads: thread.start()
    for _ in range(5):
        assert (train(parts=2), train_network()) == expected
    for thread in threads: thread.join()
    assert codes == [7] * 3, codes
    """
    script.run(source, tmp_path)


@needs_fork
def test_child_of_a_process_that_used_numba_threads_before_the_import(tmp_path):
    source = """
    import multiprocessing
    import numba
    numba.set_num_threads(2)

    @numba.njit(parallel=True, cache=True)
    def total(n):
        result = 0
        for i in numba.prange(n):
            result += i
        return result

    def child(queue):
        import numpy as np
        import fastoptim as fo
        params = {"w": np.zeros(100_000)}
        with fo.num_threads(2):
            fo.SGD(lr=1.0).update(params, {"w": np.ones(100_000)})
        queue.put(params["w"].sum())

    assert total(10) == 45
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=[queue])
    process.start()
    process.join()
    print(process.exitcode, queue.get() if process.exitcode == 0 else None)
    """
    assert script.run(source, tmp_path, NUMBA_CACHE_DIR=str(tmp_path)) == "0 -100000.0"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawn_and_forkserver(method, tmp_path):
    source = f"""{TRAIN}
    import multiprocessing

    def work(seed):
        return train(seed, parts=2), train_network()

    if __name__ == "__main__":
        if {method!r} not in multiprocessing.get_all_start_methods():
            print("missing")
            sys.exit()
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            there = pool.map(work, range(4))
            # To terminate workers in the middle would leave the lock of Numba's thread start taken.
            pool.close()
            pool.join()
        assert there == [work(seed) for seed in range(4)]
    """
    if script.run(source, tmp_path) == "missing":
        pytest.skip(f"this system has no {method}")


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib(backend, tmp_path):
    pytest.importorskip("joblib")
    source = f"""{TRAIN}
    from joblib import Parallel, delayed

    if __name__ == "__main__":
        here = [train(seed) for seed in range(6)]
        assert Parallel(2, {backend!r})(delayed(train)(seed, parts=2) for seed in range(6)) == here
        # Once more, after the workers have used threads.
        assert Parallel(2, {backend!r})(delayed(train)(seed) for seed in range(6)) == here
    """
    script.run(source, tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no timer that signals")
def test_signal_during_kernels(tmp_path):
    """The handler runs between two instructions of Python, and may itself update another optimizer."""
    source = f"""{TRAIN}
    import signal
    # Start Numba's threads first: that imports modules, and a handler cannot import during an import.
    expected = train(parts=2), train_network()
    opt, params, count, busy = fo.Adam(), dict(w=np.zeros(30_000, np.float32)), 0, False

    def handler(*_):
        global busy, count
        if busy:
            return
        busy = True
        with fo.num_threads(2):
            opt.update(params, dict(w=np.ones(30_000, np.float32)))
        count += 1
        busy = False

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert (train(parts=2), train_network()) == expected
    signal.setitimer(signal.ITIMER_REAL, 0)
    alone = dict(w=np.zeros(30_000, np.float32))
    other = fo.Adam()
    for _ in range(count):
        other.update(alone, dict(w=np.ones(30_000, np.float32)))
    assert count > 10, count
    assert alone["w"].tobytes() == params["w"].tobytes()
    """
    script.run(source, tmp_path)


def test_thread_settings_of_other_libraries_are_unchanged(layer_environment, tmp_path):
    """Numba, BLAS, OpenMP and PyTorch keep their numbers of threads, in the thread that updates and in others."""
    pytest.importorskip("threadpoolctl")
    source = f"""{TRAIN}
    import ctypes
    import multiprocessing
    from threadpoolctl import threadpool_info, threadpool_limits
    train_network(1)  # Loads the BLAS.
    try:
        import torch
    except ImportError:
        torch = None
    try:
        from numba.np.ufunc import omppool
        openmp = ctypes.CDLL(omppool.__file__)
        openmp.omp_set_num_threads(7)
    except (ImportError, OSError):
        openmp = None
    if torch is not None:
        torch.set_num_threads(1)

    def others():
        return openmp and (openmp.omp_get_max_threads(), openmp.omp_get_max_active_levels())

    def settings():
        blas = sorted((library["filepath"], library["num_threads"]) for library in threadpool_info())
        return [blas, others(), torch and torch.get_num_threads(), multiprocessing.get_start_method(allow_none=True)]

    def update():
        before = others()
        assert train() == train(parts=2) == train(parts=1)
        assert others() == before, (others(), before)
        train_network()

    with threadpool_limits(1, "blas"):
        before = settings()
        update()
        assert settings() == before, (settings(), before)
    import numba
    assert numba.get_num_threads() == 2
    numba.set_num_threads(1)
    before = settings()
    update()
    thread = threading.Thread(target=update)
    thread.start()
    thread.join()
    assert settings() == before, (settings(), before)
    assert numba.get_num_threads() == 1
    multiprocessing.set_start_method("spawn")
    """
    script.run(source, tmp_path, **layer_environment)


def test_subnormal_arithmetic_is_unchanged_in_every_thread(layer_environment, tmp_path):
    """Checked in the thread that updated, in new threads, and in Numba's, which run other compiled code later."""
    source = f"""{TRAIN}
    import numba

    @numba.njit(parallel=True, cache=True)
    def halves(a):
        for i in numba.prange(a.size):
            a[i] /= 2

    def check():
        train(parts=2, steps=5)
        a = np.full(10_000, np.finfo(np.float32).tiny)
        assert (a / np.float32(2) != 0).all()
        assert (np.full(10_000, 1e-310) + 1e-310 > 1e-310).all()
        return a

    a = check()
    halves(a)
    assert (a != 0).all() and (a < np.finfo(np.float32).tiny).all()
    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print("done")
    """
    assert script.run(source, tmp_path, **layer_environment, NUMBA_CACHE_DIR=str(tmp_path)) == "done"


def test_import_changes_no_global_state(tmp_path):
    """Neither the import nor an update changes environment, signals, warning filters, random states or settings.

    The import starts no threads either; an update may.
    """
    source = """
    import gc, json, locale, os, random, signal, sys, threading, warnings
    import numpy as np

    def world():
        return {
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "path": list(sys.path),
            "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
            "hooks": [sys.excepthook, threading.excepthook, sys.unraisablehook, sys.displayhook, sys.gettrace()],
            # Older versions of SciPy ignore a warning about matrices from their import on.
            "warnings": [[f for f in warnings.filters if "matrix" not in str(f[1])], warnings.showwarning],
            "random": [random.getstate(), repr(np.random.get_state())],
            "NumPy": [np.geterr(), np.geterrcall(), np.get_printoptions()],
            "locale": locale.setlocale(locale.LC_ALL),
            "interpreter": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold()],
            "subnormals": (np.full(9, 1e-310) / 2 != 0).all(),
        }

    def threads():
        native = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else None
        return threading.active_count(), native

    before, threads_before = world(), threads()
    import fastoptim as fo
    after = world()
    changed = [f"{name} by import" for name in before if after[name] != before[name]]
    changed += [f"threads: {threads_before}, {threads()}"] * (threads() != threads_before)
    params = {"w": np.ones(100_000), "b": np.ones(3)}
    for parts in 1, 2:
        with fo.num_threads(parts):
            fo.Adam().update(params, {"w": np.ones(100_000), "b": np.ones(3)})
    net = fo.MultiLayerNet(3, [4], 2, seed=0)
    fo.Adam().update(net.params, net.gradient(np.ones((2, 3)), [0, 1]))
    later = world()
    changed += [f"{name} by an update" for name in before if later[name] != before[name]]
    print(json.dumps(changed))
    """
    assert json.loads(script.run(source, tmp_path)) == []
