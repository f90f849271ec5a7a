"""An update that fails or is interrupted has been made in full or not at all."""

import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
import script
from counting import WAYS, Count, assert_steps, ones
from fastoptim import parameters, threads
from fastoptim.update import fallback, numbers, plan


@pytest.mark.parametrize("on_nonfinite", ["ignore", "raise"])
@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("way", WAYS)
def test_error_in_scalars(way, error, steps, on_nonfinite):
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


def test_error_in_scalars_without_parameters():
    opt = Count()
    opt.scalars = lambda: fail([ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        opt.update({}, {})
    assert_steps(opt, {}, 0)


@pytest.mark.parametrize("way", WAYS)
def test_no_memory(way, monkeypatch):
    """If an allocation fails, the update raises and changes nothing, or does not need the memory."""
    make, dtypes = WAYS[way]

    class WithoutMemory:
        """NumPy with one function that fails."""

        def __init__(self, name):
            self.name = name

        def __getattr__(self, name):
            if name == self.name:
                raise MemoryError(name)
            return getattr(np, name)

    refused = 0
    for module, name in ((parameters, "zeros"), (plan, "zeros"), (fallback, "empty_like"), (fallback, "copyto")):
        for steps in (0, 2):
            params, opt = make(), Count()
            grads = ones(params, dtypes)
            for _ in range(steps):
                opt.update(params, grads)
            with monkeypatch.context() as patch:
                if (module, name) == (fallback, "copyto"):
                    # The rollback calls it too, so it fails only once.
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
            assert_steps(opt, params, done)
    assert refused > 0


def fail(errors):
    raise errors.pop()


def copy_if_none_fails(errors, copyto, *args, **kwargs):
    return fail(errors) if errors else copyto(*args, **kwargs)


INTERRUPTIONS = """
    import random, signal, sys, time
    sys.path.insert(0, sys.argv[1])
    from counting import WAYS, Count, assert_steps, ones

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    random.seed(0)
    total = in_first = after_the_kernel = 0
    for way, (make, dtypes) in WAYS.items():
        params, opt, steps = make(), Count(), 0
        grads = ones(params, dtypes)
        for _ in range(3):
            opt.update(params, grads)  # Compile everything before the first interruption.
        params, opt = make(), Count()
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            if opt.iter > 1000 or random.random() < 0.03:
                params, opt, steps = make(), Count(), 0
            try:
                signal.setitimer(signal.ITIMER_REAL, random.choice([1e-4, 1e-3, 3e-3]) * random.uniform(0.02, 1))
                while True:
                    opt.update(params, grads)
                    steps += 1
            except KeyboardInterrupt:
                pass
            # The interruption may have come after the update and before `steps += 1`.
            assert opt.iter - steps in (0, 1), (way, opt.iter, steps)
            after_the_kernel += opt.iter > steps
            in_first += opt.iter == 0
            steps = opt.iter
            assert_steps(opt, params, steps)
            total += 1
    print(total, in_first, after_the_kernel)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that interrupt")
def test_interruptions_at_random_moments(tmp_path):
    """After each interruption arrays and `iter` are as before a step or as after it."""
    printed = script.run(INTERRUPTIONS, tmp_path, str(Path(__file__).parent))
    total, in_first, after_the_kernel = map(int, printed.split())
    assert min(total / 100, in_first, after_the_kernel) > 1


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize("way", WAYS)
def test_interruption_before_and_after_the_kernels(way, steps, where, monkeypatch):
    """An interruption right before the kernels leaves nothing written; right after them, the whole step."""
    make, dtypes = WAYS[way]
    params, opt = make(), Count()
    grads = ones(params, dtypes)
    left = []

    def interrupted(run, *args):
        if where == "before" and left:
            fail(left)
        run(*args)
        if left:
            fail(left)

    # Plans keep what they run.
    for module, name in ((threads, "run_short"), (numbers, "run_and_replace")):
        method = getattr(module, name)
        monkeypatch.setattr(module, name, lambda array, method=method: partial(interrupted, method(array)))
    for _ in range(steps):
        opt.update(params, grads)
    left.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        opt.update(params, grads)
    is_finished = where == "after"
    assert_steps(opt, params, steps + is_finished)
    opt.update(params, grads)
    assert_steps(opt, params, steps + is_finished + 1)


class Interrupted(dict):
    """A dict that an interruption meets while the value of a key is replaced."""

    key, left = None, ()

    def __setitem__(self, key, value):
        if self.left and key == self.key:
            fail(self.left)
        super().__setitem__(key, value)


@pytest.mark.parametrize("key", "abc")
@pytest.mark.parametrize("c", [0.0, np.float64(0)], ids=["Python floats", "floats of two types"])
def test_interruption_while_numbers_are_replaced(key, c):
    params, opt, grads = Interrupted(a=0.0, b=0.0, c=c), Count(), {"a": 1.0, "b": 1.0, "c": 1.0}
    for _ in range(2):
        opt.update(params, grads)
    params.key, params.left = key, [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        opt.update(params, grads)
    assert_steps(opt, params, 3)
    opt.update(params, grads)
    assert_steps(opt, params, 4)


@pytest.mark.parametrize("where", ["before", "after"])
def test_interruption_before_and_after_a_parallel_kernel(where, monkeypatch):
    monkeypatch.setattr(threads, "_PARALLEL_FROM", 0)
    monkeypatch.setattr(threads, "has_safe_threads", lambda: True)
    params, opt, grads = {"a": np.zeros(200)}, Count(), {"a": np.ones(200)}
    with fo.num_threads(2):
        opt.update(params, grads)
        run, left = threads.run_parallel, [KeyboardInterrupt()]

        def interrupted(*args):
            if where == "after":
                run(*args)
            fail(left)

        with monkeypatch.context() as patch:
            patch.setattr(threads, "run_parallel", interrupted)
            with pytest.raises(KeyboardInterrupt):
                opt.update(params, grads)
        steps = 1 + (where == "after")
        assert_steps(opt, params, steps)
        opt.update(params, grads)
        assert_steps(opt, params, steps + 1)


def test_buffer_of_a_flat_dict_cannot_be_resized():
    opt, params = fo.Momentum(), fo.flatten({"a": np.zeros(3)})
    opt.update(params, {"a": np.ones(3)})
    for flat in (opt.v.flat, params.flat):
        with pytest.raises(ValueError, match="own"):
            flat.resize(1_000_000, refcheck=False)


def test_rule_that_raises_on_aliased_arrays_is_run_once():
    """It may have written already, so it is not run again element by element, as elsewhere."""

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


def test_interruption_after_a_step_whose_last_dtype_is_empty(monkeypatch):
    params = {"a": np.zeros(5, np.float32), "b": np.zeros(0)}
    grads = {"a": np.ones(5, np.float32), "b": np.zeros(0)}
    opt = fo.SGD(lr=1.0)
    run = plan.Plan.__init__

    def interrupted_at_its_end(self, *args, **kwargs):
        run(self, *args, **kwargs)
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
