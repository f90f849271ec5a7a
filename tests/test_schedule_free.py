"""Inside `evaluation` the parameters are their averages, and afterwards what they were."""

import copy
import pickle
from types import MappingProxyType

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastoptim as fo
from naive import assert_bits

RNG = np.random.default_rng(0)
START = {"W": RNG.standard_normal((3, 4)), "b": np.zeros(4), "x": 0.5}
OPTIMIZERS = [fo.ScheduleFreeSGD, fo.ScheduleFreeAdamW]


def trained(**keywords):
    """Return an optimizer, and its parameters after some steps."""
    opt, params = fo.ScheduleFreeSGD(0.1, warmup=3, **keywords), copy.deepcopy(START)
    for t in range(1, 5):
        opt.update(params, gradients(t))
    return opt, params


def gradients(t):
    rng = np.random.default_rng([1, t])
    return {"W": rng.standard_normal((3, 4)), "b": rng.standard_normal(4), "x": rng.standard_normal()}


def copied(params):
    return {key: np.array(p) for key, p in params.items()}


def assert_same(params, others):
    assert params.keys() == others.keys()
    for key, p in params.items():
        assert_bits(p, others[key], key)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_inside_are_the_averages(cls):
    opt, params = cls(0.1, warmup=3, rho=1), copy.deepcopy(START)
    x = copied(params)
    for t in range(1, 8):
        opt.update(params, gradients(t))
        share = t * min(1, t / 3) ** 2 / sum(s * min(1, s / 3) ** 2 for s in range(1, 1 + t))
        x = {key: (1 - share) * x[key] + share * z for key, z in opt.z.items()}
    before, arrays = copied(params), dict(params)
    with opt.evaluation(params):
        assert type(params["x"]) is float
        for key, p in params.items():
            assert_allclose(p, x[key], rtol=1e-13, err_msg=key)
            assert key == "x" or p is arrays[key]
    assert type(params["x"]) is float
    assert_same(params, before)
    assert params["W"] is arrays["W"]


@pytest.mark.parametrize("make", [lambda values: list(values.values()), fo.flatten])
def test_lists_and_flat_dicts(make):
    opt, values = fo.ScheduleFreeSGD(0.1), {"a": np.ones((2, 3)), "b": np.zeros(4)}
    params = make(copied(values))
    for t in range(3):
        opt.update(params, make({key: np.full_like(p, t) for key, p in values.items()}))
    for key in opt.z:
        y, z = params[key].copy(), opt.z[key]
        with opt.evaluation(params):
            assert_allclose(params[key], y + (1 - 1 / 0.9) * (z - y), rtol=1e-14)
            assert abs(params[key] - y).max() > 1e-3
        assert_bits(params[key], y, key)


def test_groups_and_frozen_parameters():
    opt, params = trained(groups={"b": {"beta1": 0.5}}, frozen=("W",))
    y, z = copied(params), opt.z
    with opt.evaluation(params):
        assert_bits(params["W"], START["W"])
        assert_bits(params["b"], y["b"] + (1 - 1 / 0.5) * (z["b"] - y["b"]))
        assert params["x"] == y["x"] + (1 - 1 / 0.9) * (z["x"] - y["x"])
    assert_same(params, y)


def test_before_the_first_update_they_are_their_own_averages():
    opt, params = fo.ScheduleFreeSGD(), copy.deepcopy(START)
    with opt.evaluation(params):
        assert_same(params, START)
        with pytest.raises(RuntimeError, match=r"^update cannot be called inside evaluation\(\)"):
            opt.update(params, gradients(1))
    assert_same(params, START)
    opt.update(params, gradients(1))


def test_update_inside_is_an_error_that_changes_nothing():
    opt, params = trained(accumulate=3, ema=0.5)
    before = repr(opt)
    with opt.evaluation(params):
        x = copied(params)
        with pytest.raises(RuntimeError, match="call it after the with block"):
            opt.update(params, gradients(9))
        assert_same(params, x)
    assert repr(opt) == before
    opt.update(params, gradients(9))
    assert repr(opt) != before


def test_nested_blocks_average_once():
    opt, params = trained()
    before = copied(params)
    with opt.evaluation(params):
        x = copied(params)
        with opt.evaluation(params):
            assert_same(params, x)
        assert_same(params, x)
        with pytest.raises(RuntimeError, match="evaluation"):
            opt.update(params, gradients(9))
    assert_same(params, before)


def test_what_is_written_inside_is_lost_also_after_an_exception():
    def fail():
        with opt.evaluation(params):
            params["W"][0] = 7
            params["x"] = 7.0
            raise ZeroDivisionError

    opt, params = trained()
    before = copied(params)
    with pytest.raises(ZeroDivisionError):
        fail()
    assert_same(params, before)


@pytest.mark.parametrize("when", range(1, 6))
def test_an_interruption_while_they_are_exchanged(when):
    class Interrupted(dict):
        calls = 0

        def __setitem__(self, key, value):
            Interrupted.calls += 1
            if Interrupted.calls == when:
                raise KeyboardInterrupt
            super().__setitem__(key, value)

    opt = fo.ScheduleFreeSGD(0.1)
    params = Interrupted(a=1.0, b=2.0, c=np.ones(2))
    Interrupted.calls = -100
    for t in range(3):
        opt.update(params, {"a": 1.0, "b": t, "c": np.ones(2)})
    before = copied(params)
    Interrupted.calls = 0
    try:
        with opt.evaluation(params):
            pass
        assert Interrupted.calls == 4
    except KeyboardInterrupt:
        assert when <= 4
    Interrupted.calls = -100
    assert_same(params, before)
    opt.update(params, {"a": 1.0, "b": 1.0, "c": np.ones(2)})


def test_what_is_saved_inside_is_averaged(tmp_path):
    opt, params = trained()
    with opt.evaluation(params):
        opt.save(tmp_path / "averages", params)
        x = copied(params)
        copies = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
    there = copy.deepcopy(START)
    other = fo.load(tmp_path / "averages", there)
    assert_same(there, x)
    for each in (other, *copies):
        assert repr(each) == repr(opt)
        each.update(there, gradients(1))


def test_a_run_that_is_resumed_after_an_evaluation(tmp_path):
    opt, params = trained()
    with opt.evaluation(params):
        pass
    opt.save(tmp_path / "run", params)
    there = copy.deepcopy(START)
    other = fo.load(tmp_path / "run", there)
    for t in range(5, 8):
        opt.update(params, gradients(t))
        other.update(there, gradients(t))
    assert_same(there, params)
    assert other.weight_sum == opt.weight_sum


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda params: params.update(new=np.ones(2)), KeyError),
        (lambda params: params.update(W=np.ones(2)), ValueError),
        (lambda params: params.update(W=np.ones((3, 4), int)), TypeError),
    ],
)
def test_parameters_that_do_not_fit_change_nothing(change, error):
    opt, params = trained()
    before = copied(params)
    other = dict(params)
    change(other)
    with pytest.raises(error), opt.evaluation(other):
        pass
    assert_same(params, before)
    opt.update(params, gradients(9))


@pytest.mark.parametrize("order", [("W", "x"), ("x", "W")])
def test_numbers_in_a_container_that_takes_no_items(order):
    opt, params = trained(frozen=("b",))
    before = copied(params)
    with pytest.raises(TypeError), opt.evaluation(MappingProxyType({key: params[key] for key in (*order, "b")})):
        pass
    assert_same(params, before)
    opt.update(params, gradients(9))


def test_a_beta_whose_average_cannot_be_computed_back():
    with pytest.raises(ValueError, match=r"^beta1 must be a finite number in \[0.01, 1\], not 0$"):
        fo.ScheduleFreeSGD(beta1=0)


def test_a_learning_rate_that_begins_with_zero():
    opt, params = fo.ScheduleFreeSGD(lambda k: 0.1 * k), {"x": 1.0}
    opt.update(params, {"x": 1.0})
    assert params == {"x": 1.0}
    opt.update(params, {"x": 1.0})
    assert params["x"] == pytest.approx(0.9)
