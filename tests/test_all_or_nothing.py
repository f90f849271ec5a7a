"""An update happens in full or not at all, whatever comes between: errors, no memory, interruptions, other threads."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
from fastoptim import interpret, parameters, plan, spans
from fastoptim.kernels import launch


class Count(fo.Optimizer):
    """Everything tells the number of steps: the parameters are its negative, the state is it."""

    slots = ("n",)

    def scalars(self):
        return ()

    @staticmethod
    def rule(p, g, n):
        n += g
        p -= g
        return p, n


def strided(dtype=np.float64):
    return np.zeros((6, 4), dtype)[:, ::2]


def interleaved():
    """Arrays of which each lies between the elements of the other: as far as bounds tell, they overlap."""
    both = np.zeros(10)
    return {"a": both[::2], "b": both[1::2]}


# One case for each way in which an update runs: what the parameters are, and of which dtype the gradients.
WAYS = {
    "flat": (lambda: fo.flatten({"a": np.zeros(5), "b": np.zeros(3)}), None),
    "separate": (lambda: {"a": np.zeros(5), "b": np.zeros((2, 3))}, None),
    "two kernels": (lambda: {"a": np.zeros(5), "b": np.zeros(5, np.float32)}, None),
    "copies": (lambda: {"a": strided(), "b": np.zeros(3), "c": strided(np.float32)}, None),
    "interpreted": (lambda: {"a": np.zeros(5, np.float16), "b": 0.0, "c": np.zeros(3)}, None),
    "one after the other": (interleaved, None),
    "mixed": (lambda: {"a": np.zeros(5), "b": np.zeros(5, np.float32), "c": strided()}, {"a": np.float32}),
}


def ones(params, dtypes):
    return {key: np.ones(np.shape(p), (dtypes or {}).get(key, np.asarray(p).dtype)) for key, p in params.items()}


def assert_steps(opt, params, steps):
    assert opt.iter == steps
    for key, p in params.items():
        assert_array_equal(p, -steps, err_msg=key)
    if steps == 0:
        assert opt.n is None
    else:
        for key, n in opt.n.items():
            assert_array_equal(n, steps, err_msg=key)
    assert len(opt._turn) == 1


@pytest.mark.parametrize("on_nonfinite", ["ignore", "raise"])
@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("way", WAYS)
def test_an_error_in_scalars(way, error, steps, on_nonfinite):
    make, dtypes = WAYS[way]
    params, opt = make(), Count()
    opt.on_nonfinite = on_nonfinite
    grads = ones(params, dtypes)
    for _ in range(steps):
        opt.update(params, grads)

    def scalars():
        opt.iter += 10
        raise error

    opt.scalars = scalars
    with pytest.raises(error):
        opt.update(params, grads)
    del opt.scalars
    assert_steps(opt, params, steps)
    opt.update(params, grads)
    assert_steps(opt, params, steps + 1)


@pytest.mark.parametrize("way", WAYS)
def test_no_memory(way, monkeypatch):
    """Wherever memory is asked for by name, none is given; the update is refused or does not need it."""
    make, dtypes = WAYS[way]

    class WithoutMemory:
        """NumPy, of which one function fails."""

        def __init__(self, name):
            self.name = name

        def __getattr__(self, name):
            if name == self.name:
                raise MemoryError(name)
            return getattr(np, name)

    refused = 0
    for module, name in ((parameters, "zeros"), (spans, "empty"), (interpret, "array"), (interpret, "copyto")):
        for steps in (0, 2):
            params, opt = make(), Count()
            grads = ones(params, dtypes)
            for _ in range(steps):
                opt.update(params, grads)
            with monkeypatch.context() as patch:
                if (module, name) == (interpret, "copyto"):
                    # What puts everything back needs it too, so it fails once only.
                    fails = [MemoryError()]
                    copyto = partial(copy_if_none_fails, fails, np.copyto)
                    patch.setattr(np, "copyto", copyto)
                else:
                    patch.setattr(module, "np", WithoutMemory(name))
                try:
                    opt.update(params, grads)
                except MemoryError:
                    refused += 1
                    done = steps
                else:
                    done = steps + 1
            if name == "copyto" and way == "copies":
                continue  # A copy to and fro asks for no memory.
            assert_steps(opt, params, done)
    assert refused > 0


def fail(errors):
    raise errors.pop()


def copy_if_none_fails(errors, copyto, *args, **kwargs):
    return fail(errors) if errors else copyto(*args, **kwargs)


INTERRUPTIONS = """
    import random, signal, sys, time
    sys.path.insert(0, {folder!r})
    import numpy as np
    from test_all_or_nothing import WAYS, Count, assert_steps, ones

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    random.seed({seed})
    total = in_first = after_the_kernel = 0
    for way, (make, dtypes) in WAYS.items():
        params, opt, steps = make(), Count(), 0
        grads = ones(params, dtypes)
        for _ in range(3):
            opt.update(params, grads)  # What is compiled now is not interrupted.
        params, opt = make(), Count()
        end = time.monotonic() + {seconds}
        while time.monotonic() < end:
            if opt.iter > 2000 or random.random() < 0.03:
                params, opt, steps = make(), Count(), 0
            try:
                signal.setitimer(signal.ITIMER_REAL, random.choice([1e-4, 1e-3, 3e-3]) * random.uniform(0.02, 1))
                while True:
                    opt.update(params, grads)
                    steps += 1
            except KeyboardInterrupt:
                pass
            # The interruption may have come before the count here, or after the update that it counts.
            assert opt.iter - steps in (0, 1), (way, opt.iter, steps)
            after_the_kernel += opt.iter > steps
            in_first += opt.iter == 0
            steps = opt.iter
            assert_steps(opt, params, steps)
            total += 1
    print(total, in_first, after_the_kernel)
"""


@pytest.mark.compiled  # A kernel that runs as Python can be interrupted itself.
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that interrupt")
def test_interruptions_at_random_moments():
    """After each, everything is as before a step or as after it, and `iter` says which."""
    source = INTERRUPTIONS.format(folder=os.path.dirname(__file__), seed=0, seconds=0.7)  # noqa: PTH120
    command = [sys.executable, "-c", textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    total, in_first, after_the_kernel = map(int, done.stdout.split())
    assert min(total / 100, in_first, after_the_kernel) > 1


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize("way", WAYS)
def test_an_interruption_beside_the_writing(way, steps, where, monkeypatch):
    """Right before a kernel or copy nothing has happened; right after it, the whole step has."""
    make, dtypes = WAYS[way]
    params, opt = make(), Count()
    grads = ones(params, dtypes)
    for _ in range(steps):
        opt.update(params, grads)
    run, left = launch._run, [KeyboardInterrupt()]

    def interrupted(*args):
        if where == "before" and left:
            fail(left)
        run(*args)
        if left:
            fail(left)

    monkeypatch.setattr(launch, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opt.update(params, grads)
    # Where several kernels or copies make a step, those that are left are run.
    is_finished = {
        "flat": where == "after",
        "separate": where == "after",
        "one after the other": False,  # It is put back.
    }.get(way, True)
    assert_steps(opt, params, steps + is_finished)
    opt.update(params, grads)
    assert_steps(opt, params, steps + is_finished + 1)


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_interruption_beside_a_parallel_kernel(where, monkeypatch):
    monkeypatch.setattr(launch, "_PARALLEL_FROM", 0)
    monkeypatch.setattr(launch, "_has_safe_threads", lambda: True)
    params, opt, grads = {"a": np.zeros(200)}, Count(), {"a": np.ones(200)}
    with fo.num_threads(2):
        opt.update(params, grads)
        run, left = launch._run_parallel, [KeyboardInterrupt()]

        def interrupted(*args):
            if where == "after":
                run(*args)
            fail(left)

        with monkeypatch.context() as patch:
            patch.setattr(launch, "_run_parallel", interrupted)
            with pytest.raises(KeyboardInterrupt):
                opt.update(params, grads)
        steps = 1 + (where == "after")
        assert_steps(opt, params, steps)
        opt.update(params, grads)
        assert_steps(opt, params, steps + 1)


@pytest.mark.parametrize("way", WAYS)
def test_threads_that_share_an_optimizer_take_turns(way):
    make, dtypes = WAYS[way]
    params, opt, each = make(), Count(), 60
    grads = ones(params, dtypes)
    errors = []

    def work():
        try:
            for _ in range(each):
                opt.update(params, grads)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert_steps(opt, params, 4 * each)


def test_a_thread_waits_for_a_slow_one():
    opt, params = Count(), {"a": np.zeros(3)}
    began, go_on = threading.Event(), threading.Event()

    def scalars():
        if not began.is_set():
            began.set()
            assert go_on.wait(30)
        return ()

    opt.scalars = scalars
    grads = {"a": np.ones(3)}
    first = threading.Thread(target=opt.update, args=(params, grads))
    first.start()
    assert began.wait(30)
    others = [
        threading.Thread(target=opt.update, args=(params, grads)),
        threading.Thread(target=setattr, args=(opt, "on_nonfinite", "raise")),
    ]
    for other in others:
        other.start()
    time.sleep(0.1)
    assert all(other.is_alive() for other in others)
    assert_array_equal(params["a"], 0)
    go_on.set()
    for thread in (first, *others):
        thread.join(30)
    assert_steps(opt, params, 2)
    assert opt.on_nonfinite == "raise"


@pytest.mark.parametrize(
    "action",
    [
        lambda opt, params, grads: opt.update(params, grads),
        lambda opt, *_: setattr(opt, "n", None),
        lambda opt, params, _: setattr(opt, "n", params),
        lambda opt, *_: setattr(opt, "on_nonfinite", "skip"),
    ],
)
def test_nothing_reaches_into_an_update_from_within(action):
    opt, params, grads = Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}
    opt.update(params, grads)
    opt.scalars = lambda: action(opt, params, grads)
    with pytest.raises(RuntimeError, match="Count is inside an update"):
        opt.update(params, grads)
    del opt.scalars
    assert_steps(opt, params, 1)
    opt.update(params, grads)
    assert_steps(opt, params, 2)


def test_another_optimizer_may_be_updated_within_an_update():
    outer, inner, params, grads = Count(), Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}

    def scalars():
        inner.update(params, grads)
        return ()

    outer.scalars = scalars
    outer.update({"b": np.zeros(3)}, {"b": np.ones(3)})
    assert_steps(inner, params, 1)


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_a_copy_made_within_an_update_has_a_turn_of_its_own(twin_of):
    opt, params, grads = fo.SGD(lr=1.0), {"a": np.zeros(3)}, {"a": np.ones(3)}
    turn = opt._turn.pop()  # As during an update.
    twin = twin_of(opt)
    opt._turn.append(turn)
    assert len(twin._turn) == 1
    assert twin._turn is not opt._turn
    for each in (opt, twin):
        each.update(params, grads)
    assert_array_equal(params["a"], -2)


class Crowded(Count):
    """Takes long between the check and the write, and counts who is there at a time."""

    inside = most = 0

    def scalars(self):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(1e-3)
        self.inside -= 1
        return ()


def work_together(n_threads, n_updates, size=3, has_turn=True):
    """Share an optimizer among threads; none of them must lose an update or meet another one in it."""
    opt, params, grads = Crowded(), {"a": np.zeros(size)}, {"a": np.ones(size)}
    threads = [
        threading.Thread(target=lambda: [opt.update(params, grads) for _ in range(n_updates)]) for _ in range(n_threads)
    ]
    if not has_turn:
        opt._turn.clear()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert_steps(opt, params, n_threads * n_updates)
    assert opt.most == 1


def test_a_hundred_threads_take_turns():
    """Many more than can have their turn while one of them looks who is there."""
    work_together(100, 3, 10_000)


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_a_turn_that_nobody_has_is_taken_by_one(n_threads):
    """As after an interruption between the taking of a turn and the beginning of what it is taken for."""
    work_together(n_threads, 2, has_turn=False)


def test_a_signal_handler_that_saves_while_its_thread_waits(monkeypatch):
    """It is refused, as within an update, and neither thread waits for ever for what the other one put aside."""
    opt, params, grads = Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}
    began, go_on, refused = threading.Event(), threading.Event(), []

    def scalars():
        began.set()
        assert go_on.wait(30)
        return ()

    opt.scalars = scalars
    other = threading.Thread(target=opt.update, args=(params, grads))
    other.start()
    assert began.wait(30)

    def handler(*_):
        with pytest.raises(RuntimeError, match=r"Count is inside an update.* cannot call state_dict"):
            opt.state_dict()
        refused.append(len(refused))
        if len(refused) == 3:
            go_on.set()

    def pause(seconds, sleep=time.sleep):
        if threading.current_thread() is threading.main_thread():
            handler()
        sleep(seconds)

    # Where the first in the queue pauses a signal would come in.
    monkeypatch.setattr(time, "sleep", pause)
    opt.update(params, grads)
    monkeypatch.undo()
    other.join(30)
    assert len(refused) >= 3
    assert_steps(opt, params, 2)
    opt.update(params, grads)
    assert_steps(opt, params, 3)


def test_an_interruption_of_one_that_waits_costs_nobody_a_turn(monkeypatch):
    opt, params, grads = Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}
    turn = opt._turn
    turn.clear()

    def pause(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        opt.update(params, grads)
    turn.append(None)
    # Nobody has to look for long who is there.
    opt.update(params, grads)
    assert opt._turn is turn
    assert_steps(opt, params, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_in_the_middle_of_an_update_of_another_thread():
    source = """
        import os, sys, threading, warnings
        sys.path.insert(0, {folder!r})
        import numpy as np
        from test_all_or_nothing import Count

        warnings.simplefilter("ignore")
        opt, params, grads = Count(), {{"a": np.zeros(3)}}, {{"a": np.ones(3)}}
        began, go_on = threading.Event(), threading.Event()
        opt.scalars = lambda: (began.set(), go_on.wait(30)) and ()
        thread = threading.Thread(target=opt.update, args=(params, grads))
        thread.start()
        began.wait(30)
        pid = os.fork()
        if pid == 0:
            messages = []
            for action in (lambda: opt.update(params, grads), lambda: setattr(opt, "n", None)):
                try:
                    action()
                except RuntimeError as error:
                    messages.append("forked" in str(error))
            other = Count()
            other.update(params, grads)
            os._exit(7 if messages == [True, True] and (params["a"] == -1).all() else 1)
        go_on.set()
        thread.join(30)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), opt.iter, params["a"][0])
    """
    command = [sys.executable, "-c", textwrap.dedent(source.format(folder=os.path.dirname(__file__)))]  # noqa: PTH120
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["7", "1", "-1.0"], done.stderr[-2000:]


def test_a_buffer_cannot_be_resized_from_under_its_views():
    opt, params = fo.Momentum(), fo.flatten({"a": np.zeros(3)})
    opt.update(params, {"a": np.ones(3)})
    for flat in (opt.v.flat, params.flat):
        with pytest.raises(ValueError, match="own"):
            flat.resize(1_000_000, refcheck=False)


def test_a_rule_that_fails_on_aliased_arrays_is_run_once():
    """It may have written already; to run it element by element, as elsewhere, would be a second time."""

    class Rule(fo.Optimizer):
        ran = 0

        def scalars(self):
            return ()

        @staticmethod
        def rule(p, g):
            Rule.ran += 1
            p += 1
            return p if p > 0 else g  # Arrays have no truth value.

    params = {"w": np.zeros(3)}
    with pytest.raises(ValueError, match="truth"):
        Rule().update(params, params)
    assert Rule.ran == 1
    assert_array_equal(params["w"], 0)


def test_a_step_counts_though_its_last_dtype_has_no_elements(monkeypatch):
    params = {"a": np.zeros(5, np.float32), "b": np.zeros(0)}
    grads = {"a": np.ones(5, np.float32), "b": np.zeros(0)}
    opt = fo.SGD(lr=1.0)
    run = plan.Plan.__init__

    def interrupted_at_its_end(self, *args):
        run(self, *args)
        tasks = self.run

        def run_and_interrupt():
            tasks()
            raise KeyboardInterrupt

        self.run = run_and_interrupt

    monkeypatch.setattr(plan.Plan, "__init__", interrupted_at_its_end)
    with pytest.raises(KeyboardInterrupt):
        opt.update(params, grads)
    assert opt.iter == 1
    assert_array_equal(params["a"], -1)


def test_nobody_waits_for_ever_for_one_that_updates_without_a_pause():
    opt, params, grads = fo.Momentum(), {"w": np.ones(100)}, {"w": np.ones(100)}
    opt.update(params, grads)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            opt.update(params, grads)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        start = time.monotonic()
        for _ in range(10):
            opt.state_dict()
        assert time.monotonic() - start < 5
    finally:
        stop.set()
        thread.join()
