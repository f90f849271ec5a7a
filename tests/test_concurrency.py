"""Threads that share an optimizer update it one after the other, and re-entrant updates raise an error."""

import copy
import os
import pickle
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
import script
from counting import WAYS, Count, assert_steps, ones
from fastoptim import concurrency


@pytest.mark.parametrize("way", WAYS)
def test_threads_that_share_an_optimizer_lose_no_update(way):
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


def test_threads_wait_for_a_slow_update():
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
    # A copy has a new guard, not that of the original.
    assert_steps(copy.deepcopy(opt), params, 2)


@pytest.mark.parametrize(
    "action",
    [
        lambda opt, params, grads: opt.update(params, grads),
        lambda opt, *_: setattr(opt, "n", None),
        lambda opt, params, _: setattr(opt, "n", params),
        lambda opt, *_: setattr(opt, "on_nonfinite", "skip"),
    ],
)
def test_update_in_scalars_is_an_error(action):
    opt, params, grads = Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}
    opt.update(params, grads)
    opt.scalars = lambda: action(opt, params, grads)
    with pytest.raises(RuntimeError, match=r"Count is inside an update.* cannot call (update|set_state|on_nonfinite);"):
        opt.update(params, grads)
    del opt.scalars
    assert_steps(opt, params, 1)
    opt.update(params, grads)
    assert_steps(opt, params, 2)


def test_update_of_another_optimizer_in_scalars():
    outer, inner, params, grads = Count(), Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}

    def scalars():
        inner.update(params, grads)
        return ()

    outer.scalars = scalars
    outer.update({"b": np.zeros(3)}, {"b": np.ones(3)})
    assert_steps(inner, params, 1)


@pytest.mark.parametrize("copy_of", [copy.copy, copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copy_made_during_an_update_has_its_own_guard(copy_of):
    opt, params, grads = fo.SGD(lr=1.0), {"a": np.zeros(3)}, {"a": np.ones(3)}
    item = opt._guard.pop()  # As during an update.
    copied = copy_of(opt)
    opt._guard.append(item)
    assert len(copied._guard) == 1
    assert copied._guard is not opt._guard
    for each in (opt, copied):
        each.update(params, grads)
    assert_array_equal(params["a"], -2)


class Slow(Count):
    """Pauses in `scalars` and records the largest number of threads that are inside an update at once."""

    inside = most = 0

    def scalars(self):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(1e-3)
        self.inside -= 1
        return ()


def share(n_threads, n_updates, size=3):
    """Update one optimizer from several threads; no update may be lost and no two may run at once."""
    opt, params, grads = Slow(), {"a": np.zeros(size)}, {"a": np.ones(size)}
    threads = [
        threading.Thread(target=lambda: [opt.update(params, grads) for _ in range(n_updates)]) for _ in range(n_threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert_steps(opt, params, n_threads * n_updates)
    assert opt.most == 1


def test_a_hundred_threads_share_an_optimizer():
    share(100, 3, 10_000)


def test_state_dict_in_a_signal_handler_of_a_waiting_thread_is_an_error(monkeypatch):
    """The error is that of a re-entrant call, and afterwards both threads complete their updates."""
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

    # Call the handler where the first waiter pauses, as a signal would.
    monkeypatch.setattr(time, "sleep", pause)
    opt.update(params, grads)
    monkeypatch.undo()
    other.join(30)
    assert len(refused) >= 3
    assert_steps(opt, params, 2)
    opt.update(params, grads)
    assert_steps(opt, params, 3)


def test_interrupted_waiter_leaves_the_guard_to_the_next(monkeypatch):
    opt, params, grads = Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}
    guard = opt._guard
    guard.clear()

    def pause(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        opt.update(params, grads)
    guard.append(None)
    # The next update takes the guard, although the waiter has left its own.
    monkeypatch.undo()
    opt.update(params, grads)
    opt.update(params, grads)
    assert_steps(opt, params, 2)


def test_waiter_between_others_gives_up():
    """The waiter behind it then waits for the one before it."""
    opt, params, grads = Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}
    first = opt._guard
    first.clear()
    middle, last = [], []

    def give_up():
        with pytest.raises(RuntimeError, match="another thread, which cannot end"):
            outer.update({"b": np.zeros(3)}, {"b": np.ones(3)})
        middle.append(True)

    outer = Count()
    outer.scalars = lambda: opt.update(params, grads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(concurrency, "_NESTED_TIMEOUT_S", 0.05)
        thread = threading.Thread(target=give_up)
        thread.start()
        thread.join(30)
    assert middle == [True]
    follower = threading.Thread(target=lambda: (opt.update(params, grads), last.append(True)))
    follower.start()
    first.append(None)
    follower.join(30)
    assert last == [True]
    assert_steps(opt, params, 1)


def test_two_optimizers_that_update_each_other(monkeypatch):
    """Each thread is inside the update that the other one waits for; the first that gives up gets an error."""
    monkeypatch.setattr(concurrency, "_NESTED_TIMEOUT_S", 0.1)
    first, second, grads = Count(), Count(), {"a": np.ones(3)}
    params = {opt: {"a": np.zeros(3)} for opt in (first, second)}
    barrier, errors = threading.Barrier(2), []

    def work(opt, other):
        def scalars():
            if not errors:
                barrier.wait(10)
            other.update(params[other], grads)
            return ()

        opt.scalars = scalars
        try:
            opt.update(params[opt], grads)
        except RuntimeError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert "another thread, which cannot end" in errors[0]
    for opt in first, second:
        del opt.scalars
        opt.update(params[opt], grads)
        assert_steps(opt, params[opt], 1)


RULE = """
    import gc, os, sys, threading, time
    import numpy as np
    import fastoptim as fo
    from fastoptim import concurrency
    from numba.core.compiler_lock import global_compiler_lock

    concurrency._NESTED_TIMEOUT_S = 0.2

    def new(number):
        names = {"fo": fo}
        exec(
            "class Rule(fo.Optimizer):\\n"
            "    def scalars(self): return ()\\n"
            "    @staticmethod\\n"
            f"    def rule(p, g): return p - g * {number}", names
        )
        return names["Rule"]()

    params, grads = dict(a=np.zeros(3)), dict(a=np.ones(3))
"""


def test_garbage_collector_callback_that_updates_during_a_compilation(tmp_path):
    """It updates optimizers that are inside an update here, inside one that waits for the compiler, and free."""
    source = f"""{RULE}
    here, there, free = new(2), new(3), new(4)
    busy, count, refused, began = False, 0, [], threading.Event()
    other = threading.Thread(target=lambda: (began.set(), there.update(dict(a=np.zeros(3)), grads)))

    def callback(*_):
        global busy, count
        if busy or count >= 40 or not global_compiler_lock.is_locked():
            return
        busy = True
        if count == 0:
            other.start()
            while there._guard:
                time.sleep(0.001)
        if count % 10 == 0:
            for opt in here, there, free:
                try:
                    opt.update(dict(a=np.zeros(3)), grads)
                except RuntimeError as error:
                    refused.append(str(error))
        count += 1
        busy = False

    gc.callbacks.append(callback)
    gc.set_threshold(100)
    here.update(params, grads)
    other.join()
    gc.callbacks.clear()
    here.update(params, grads)
    assert (params["a"] == -4).all()
    print(here.iter, any("scalars()" in each for each in refused), any("cannot end" in each for each in refused))
    """
    assert script.run(source, tmp_path, NUMBA_CACHE_DIR=str(tmp_path)) == "2 True True"


@pytest.mark.parametrize("held", ["update", "compiler", "nothing"])
def test_finalizer_that_updates_while_the_interpreter_exits(held, tmp_path):
    """A thread that ended in the middle holds the optimizer or the compiler, or threads would have to start."""
    source = f"""{RULE}
    gc.set_threshold(0)  # The interpreter collects when it exits.
    opt, began, SGD, num_threads = new(2), threading.Event(), fo.SGD, fo.num_threads
    opt.update(params, grads)
    with num_threads(1):
        SGD().update(dict(a=np.zeros(100_000)), dict(a=np.ones(100_000)))

    def stay():
        if {held!r} == "update":
            opt.scalars = lambda: (began.set(), time.sleep(100)) and ()
            opt.update(params, grads)
        elif {held!r} == "compiler":
            with global_compiler_lock:
                began.set()
                time.sleep(100)
        began.set()

    class Cycle:
        def __init__(self):
            self.itself, self.rule, self.os = self, new(3), os

        def __del__(self):
            big = dict(a=np.zeros(100_000))
            done = 0
            for opt_, params_ in (opt, params), (self.rule, dict(a=np.zeros(3))), (SGD(lr=1.0), big):
                try:
                    with num_threads(2):
                        opt_.update(params_, {{key: np.ones_like(p) for key, p in params_.items()}})
                except RuntimeError:
                    pass
                done += 1
            self.os.write(1, b"%d" % done)

    threading.Thread(target=stay, daemon=True).start()
    began.wait()
    Cycle()
    """
    assert script.run(source, tmp_path, NUMBA_CACHE_DIR=str(tmp_path)) == "3"


def test_exceptions_thrown_into_threads(tmp_path):
    """See `attack_threads`, which throws more of them as a script."""
    source = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from attack_threads import exceptions

        exceptions(40)
    """
    script.run(source, tmp_path, str(Path(__file__).parent), NUMBA_CACHE_DIR=str(tmp_path))


def test_exception_that_leaves_the_lock_of_the_compiler(tmp_path):
    """An exception thrown into a thread, or a lack of memory, comes when Numba has taken its lock, outside its try."""
    source = f"""{RULE}
    new(0).update(params, grads)
    acquire = type(global_compiler_lock).acquire

    def interrupted(self):
        acquire(self)
        if threading.current_thread() is thread:
            raise error

    type(global_compiler_lock).acquire = interrupted

    def work():
        try:
            new(number).update(params, grads)
        except type(error) as raised:
            assert raised is error

    for number, error in enumerate([MemoryError(), KeyboardInterrupt()], 2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    for number in 2, 3:
        other = threading.Thread(target=lambda: new(number).update(params, grads), daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive()
    print(params["a"][0])
    """
    assert script.run(source, tmp_path, NUMBA_CACHE_DIR=str(tmp_path)) == "-5.0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_child_forked_during_an_update_of_another_thread(tmp_path):
    source = """
        import os, sys, threading
        sys.path.insert(0, sys.argv[1])
        import numpy as np
        from counting import Count

        opt, params, grads = Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}
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
    assert script.run(source, tmp_path, str(Path(__file__).parent)).split() == ["7", "1", "-1.0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_child_forked_inside_an_update_for_which_another_thread_waits(tmp_path):
    """The waiter has put a guard of its own in the place of the one that the forking thread holds."""
    source = """
        import os, sys, threading, time
        sys.path.insert(0, sys.argv[1])
        import numpy as np
        from counting import Count, assert_steps

        opt, params, grads = Count(), {"a": np.zeros(3)}, {"a": np.ones(3)}
        waiter = threading.Thread(target=opt.update, args=(params, grads))
        first, pids = opt._guard, []

        def scalars():
            if not pids:
                waiter.start()
                while opt._guard is first:
                    time.sleep(0.001)
                pids.append(os.fork())
            return ()

        opt.scalars = scalars
        opt.update(params, grads)
        if pids[0]:
            waiter.join(30)
        else:
            opt.update(params, grads)
        assert_steps(opt, params, 2)
        if pids[0]:
            print(os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]))
    """
    assert script.run(source, tmp_path, str(Path(__file__).parent)) == "0"


def test_waiter_is_not_starved_by_a_thread_that_updates_without_a_pause():
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


def test_garbage_collector_callbacks_while_threads_wait(tmp_path):
    """Callbacks, such as those of Hypothesis and JAX, let other threads run at any allocation of a waiter."""
    source = """
        import gc, sys, threading, time
        sys.path.insert(0, sys.argv[1])
        from counting import WAYS, Count, assert_steps, ones

        gc.callbacks.append(lambda *_: time.sleep(0))
        gc.set_threshold(20, 2, 2)
        sys.setswitchinterval(1e-6)
        for way in ("strided", "fallback") * 3:
            make, dtypes = WAYS[way]
            params, opt = make(), Count()
            grads = ones(params, dtypes)
            work = lambda: [opt.update(params, grads) for _ in range(60)]
            threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            assert_steps(opt, params, 240)
        print(gc.isenabled())
    """
    assert script.run(source, tmp_path, str(Path(__file__).parent), NUMBA_DISABLE_JIT="1") == "True"
