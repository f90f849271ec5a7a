"""Parameters in groups that change, with gradients that may be missing, are each updated as on their own."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
from fastoptim.param_groups import ParamGroups

KEYS = [["a", "b"], ["c", "d", "e"]]


def draw(rng, keys):
    return {key: rng.normal(size=(3, 2)) for key in keys}


def grouped(optimizer, keys):
    groups = ParamGroups(optimizer)
    groups.set_members(keys)
    return groups, [dict(groups.defaults) for _ in keys]


CASES = {
    "SGD": lambda: fo.SGD(lr=0.1),
    "Momentum": lambda: fo.Momentum(lr=0.1),
    "Adam": lambda: fo.Adam(lr=0.1),
    "NAdam, whose running product depends on steps": lambda: fo.NAdam(lr=0.1),
    "schedule-free": lambda: fo.ScheduleFreeSGD(lr=0.1, warmup=3),
    "transforms": lambda: fo.AdamW(lr=0.1, ema=0.9, lookahead=(3, 0.5), clip_array_norm=1.0),
    "accumulate": lambda: fo.Adam(lr=0.1, accumulate=2),
    "Muon": lambda: fo.Muon(lr=0.1),
}


@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_missing_gradients(case, n_groups):
    """The same bits as with an optimizer for each parameter, which is used where there is a gradient."""
    rng = np.random.default_rng(0)
    keys = [[*KEYS[0], *KEYS[1]]] if n_groups == 1 else KEYS
    flat = [key for own in keys for key in own]
    groups, hyper = grouped(CASES[case](), keys)
    params, alone = draw(rng, flat), {key: CASES[case]() for key in flat}
    ref = copy.deepcopy(params)
    if n_groups == 2:
        hyper[1]["lr"] = 0.3
        for key in keys[1]:
            alone[key].lr = 0.3
    for step in range(14):
        present = [key for key in flat if key != "e" and (step > 9 or rng.random() < 0.7)]
        grads = draw(rng, present)
        groups.follow(hyper)
        groups.update(params, grads)
        for key in present:
            alone[key].update({key: ref[key]}, {key: grads[key]})
        for key in flat:
            assert_array_equal(params[key], ref[key], err_msg=f"{key} at {step}")
            assert dict(groups.counted(key)).get("iter", 0) == alone[key].iter
    assert groups.optimizer.iter == max(each.iter for each in alone.values())
    for slot in groups.optimizer._state:
        assert "e" not in groups.optimizer._state[slot]
        for key in groups.optimizer._state[slot]:
            assert_array_equal(groups.optimizer._state[slot][key], alone[key]._state[slot][key])


def test_gradients_that_are_always_there_or_never():
    rng = np.random.default_rng(0)
    groups, hyper = grouped(fo.Adam(clip_norm=1.0), KEYS)
    params = draw(rng, "abcde")
    for step in range(4):
        groups.follow(hyper)
        groups.update(params, draw(rng, "abd"))
        assert groups.optimizer.iter == step + 1
        groups.update(params, {})
    assert len(groups.optimizer._plans) == 1
    assert groups.optimizer.m.keys() == {*"abd"}


def test_hyperparameters_that_change():
    """They act in the next step as attributes do, in one group as in several, and nothing is planned anew."""
    rng = np.random.default_rng(0)
    for keys in ([[*"abcde"]], KEYS, [*KEYS, []]):
        groups, hyper = grouped(fo.AdamW(lr=0.1), keys)
        alone = [fo.AdamW(lr=0.1) for _ in keys]
        params = draw(rng, "abcde")
        ref = copy.deepcopy(params)
        for step in range(6):
            grads = draw(rng, "abcde")
            for k, (own, optimizer) in enumerate(zip(hyper, alone, strict=True)):
                own["lr"] = optimizer.lr = 0.1 / (1 + step + k)
                own["betas"] = optimizer.beta1, optimizer.beta2 = 0.8 + step / 100, 0.9
                own["weight_decay"] = optimizer.weight_decay = 0.01 * (k + step)
                own["initial_lr"] = 7.0
            groups.follow(hyper)
            plan = groups.optimizer._plan
            groups.update(params, grads)
            assert step < 2 or plan is groups.optimizer._plan
            for own, optimizer in zip(keys, alone, strict=True):
                optimizer.update({key: ref[key] for key in own}, grads)
            for key in params:
                assert_array_equal(params[key], ref[key])


def test_transforms_of_one_group():
    """What the optimizer does not have is off in the other groups, also if it was on when there was one."""
    rng = np.random.default_rng(0)
    groups, hyper = grouped(fo.SGD(lr=0.1), [["a"]])
    hyper[0]["weight_decay"] = 0.5
    params = draw(rng, "ab")
    ref = copy.deepcopy(params)
    alone = {"a": fo.SGD(lr=0.1, weight_decay=0.5), "b": fo.SGD(lr=0.1)}
    groups.follow(hyper)
    groups.update({"a": params["a"]}, grads := draw(rng, "a"))
    alone["a"].update({"a": ref["a"]}, grads)
    groups.set_members([["a"], ["b"]])
    hyper.append(dict(groups.defaults))
    for _ in range(2):
        groups.follow(hyper)
        groups.update(params, grads := draw(rng, "ab"))
        for key, optimizer in alone.items():
            optimizer.update({key: ref[key]}, grads)
    assert_array_equal(params["a"], ref["a"])
    assert_array_equal(params["b"], ref["b"])
    assert dict(groups.counted("b"))["iter"] == 2


def test_a_schedule_stays_until_a_group_changes():
    groups, hyper = grouped(fo.SGD(lr=lambda steps: 0.5**steps), KEYS[:1])
    params = {"a": np.zeros(2), "b": np.zeros(2)}
    for _ in range(2):
        groups.follow(hyper)
        groups.update(params, {"a": np.ones(2), "b": np.ones(2)})
    assert_array_equal(params["a"], -1.5)
    hyper[0]["lr"] = 0.75
    hyper[0]["l2"] = 0.0
    for _ in range(2):
        groups.follow(hyper)
        groups.update(params, {"a": np.ones(2), "b": np.ones(2)})
    assert_array_equal(params["a"], -3.0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_copies_continue(duplicate):
    rng = np.random.default_rng(0)
    groups, hyper = grouped(fo.Adam(), KEYS)
    hyper[1]["lr"] = 0.1
    params = draw(rng, "abcde")
    groups.follow(hyper)
    for present in "abcde", "acd":
        groups.update(params, draw(rng, present))
    other, ref, grads = duplicate(groups), copy.deepcopy(params), draw(rng, "abcde")
    other.follow(hyper)
    other.update(ref, grads)
    assert dict(groups.counted("a"))["iter"] == 2
    groups.update(params, grads)
    for key in params:
        assert_array_equal(params[key], ref[key])
    assert other.counters == groups.counters


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda: fo.Adam(clip_norm=1.0), "clip_norm needs all gradients"),
        (lambda: fo.Adam(on_nonfinite="skip"), "on_nonfinite='skip' needs all gradients"),
        (lambda: fo.Prodigy(), "d needs all gradients"),
    ],
    ids=["clip_norm", "on_nonfinite", "Prodigy"],
)
def test_what_needs_all_gradients(optimizer, message):
    groups, _ = grouped(optimizer(), KEYS)
    params = draw(np.random.default_rng(0), "abcde")
    groups.update(params, draw(np.random.default_rng(1), "abcde"))
    groups.update(params, draw(np.random.default_rng(1), "abc"))
    before, state = copy.deepcopy(params), copy.deepcopy(groups.optimizer._state)
    with pytest.raises(ValueError, match=message):
        groups.update(params, draw(np.random.default_rng(1), "abcd"))
    for key in params:
        assert_array_equal(params[key], before[key])
    for slot, arrays in state.items():
        for key, array in arrays.items():
            assert_array_equal(groups.optimizer._state[slot][key], array)
    assert dict(groups.counted("a"))["iter"] == 2


def test_errors():
    used = fo.SGD()
    used.update({"w": 1.0}, {"w": 1.0})
    for wrong, error, message in (
        (used, ValueError, "has made a step"),
        (fo.SGD(groups={"*": {"lr": 1.0}}), ValueError, "has groups"),
        (fo.SGD(frozen=("*",)), ValueError, "has groups or frozen"),
        (fo.SGD, TypeError, r"an optimizer such as fo.AdamW\(\), not .*; did you mean SGD\(\)\?"),
        (3, TypeError, "not 3"),
    ):
        with pytest.raises(error, match=message):
            ParamGroups(wrong)
    for keys in ([["a"]], [["a"], ["b"]]):
        for wrong, error in (({"lr": -1.0}, ValueError), ({"lr": "x"}, (TypeError, ValueError))):
            groups, hyper = grouped(fo.Adam(), keys)
            hyper[-1].update(wrong)
            with pytest.raises(error, match=r"lr|float"):
                groups.follow(hyper)
        groups, hyper = grouped(fo.Adam(), keys)
        hyper[-1]["betas"] = 0.9
        with pytest.raises(ValueError, match="betas must be a pair"):
            groups.follow(hyper)
