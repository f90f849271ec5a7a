"""Schedules against their formulas, and in checkpoints; test_parity.py compares them with those of libraries."""

import math

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import schedules
from fastoptim.schedules.specs import SCHEDULES, from_spec, to_spec

EXAMPLES = {
    "constant": schedules.constant(0.5),
    "step": schedules.step(1.0, 3, 0.5),
    "multistep": schedules.multistep(1.0, [7, 2, 2], 0.5),
    "exponential": schedules.exponential(1.0, 0.9),
    "polynomial": schedules.polynomial(1.0, 5, 0.1, power=2),
    "linear": schedules.linear(0.1, 1.0, 5),
    "cosine": schedules.cosine(1.0, 10, 0.1),
    "cosine_restarts": schedules.cosine_restarts(1.0, 3, growth=2, end=0.1),
    "cyclic": schedules.cyclic(0.1, 1.0, 4, 2),
    "one_cycle": schedules.one_cycle(1.0, 20),
    "inverse_sqrt": schedules.inverse_sqrt(1.0, 4),
    "warmup": schedules.warmup(schedules.cosine(1.0, 10), 4),
    "join": schedules.join([schedules.linear(0.0, 1.0, 4), schedules.exponential(1.0, 0.5)], [4]),
    "ReduceOnPlateau": schedules.ReduceOnPlateau(1.0, patience=2, cooldown=1),
}
VALUES = {
    "step": [1, 1, 1, 0.5, 0.5, 0.5, 0.25],
    "multistep": [1, 1, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125],
    "polynomial": [1, 0.1 + 0.9 * 0.64, 0.1 + 0.9 * 0.36, 0.1 + 0.9 * 0.16, 0.1 + 0.9 * 0.04, 0.1, 0.1],
    "linear": [0.1, 0.28, 0.46, 0.64, 0.82, 1, 1],
    "cosine": [0.55 + 0.45 * math.cos(math.pi * k / 10) for k in range(11)] + [0.1, 0.1],
    "inverse_sqrt": [0.25, 0.5, 0.75, 1, math.sqrt(4 / 5), math.sqrt(4 / 6)],
    "warmup": [0.25, 0.5 * (1 + math.cos(math.pi / 10)) / 2],
    "join": [0, 0.25, 0.5, 0.75, 1, 0.5, 0.25],
}


def test_each_has_an_example():
    assert EXAMPLES.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("name", VALUES)
def test_numbers(name):
    assert [EXAMPLES[name](k) for k in range(len(VALUES[name]))] == pytest.approx(VALUES[name], rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("name", EXAMPLES)
def test_checkpoints_keep_them(name, tmp_path):
    schedule = EXAMPLES[name]
    assert from_spec(to_spec(schedule)) == schedule
    opt, params = fo.Momentum(lr=schedule, clip_norm=schedules.constant(1.0)), {"w": np.ones(3)}
    for _ in range(3):
        opt.update(params, {"w": np.ones(3)})
    opt.save(tmp_path / "momentum")
    for other in fo.load(tmp_path / "momentum"), fo.Momentum():
        other.load_state_dict(opt.state_dict())
        assert (other.lr, other.clip_norm) == (schedule(3), 1.0)
        twin = {"w": params["w"].copy()}
        for _ in range(3):
            other.update(twin, {"w": np.ones(3)})
        assert other.lr == schedule(6)


def test_a_function_of_the_users_is_given_again(tmp_path):
    opt = fo.SGD(lr=lambda k: 1 / (k + 1))
    opt.update({"w": np.ones(1)}, {"w": np.ones(1)})
    other = fo.SGD(lr=lambda k: 1 / (k + 1))
    other.load_state_dict(opt.state_dict())
    assert (other.lr, other.iter) == (0.5, 1)
    other = fo.SGD()
    other.load_state_dict(opt.state_dict())
    assert other.lr == 0.5
    opt.save(tmp_path / "sgd")
    with pytest.raises(ValueError, match="an optimizer with lr, which no file holds: create one with the same and"):
        fo.load(tmp_path / "sgd")
    other.load(tmp_path / "sgd")


def test_a_number_of_a_class_becomes_a_schedule():
    class Plain(fo.Optimizer):
        lr = 0.5

        def scalars(self):
            return (self.lr,)

        @staticmethod
        def rule(p, g, lr):
            return p - lr * g

    opt, params = Plain(), {"w": 1.0}
    opt.lr = schedules.linear(0.5, 0.25, 2)
    for _ in range(2):
        opt.update(params, {"w": 1.0})
    assert (params["w"], opt.lr) == (1 - 0.5 - 0.375, 0.25)
    other = Plain()
    other.load_state_dict(opt.state_dict())
    assert (other.lr, other._schedules) == (0.25, {"lr": schedules.linear(0.5, 0.25, 2)})
    other.lr = 1.0
    other.update(params, {"w": 1.0})
    assert (other.lr, other._schedules) == (1.0, {})


@pytest.mark.parametrize(
    "spec", [["exec"], ["step", 1.0, 0], ["one_cycle", 1.0, 10, 0.3, 0.0], "step", ["step", "1"], [1], {}]
)
def test_forged_schedules(spec):
    opt = fo.SGD()
    state_dict = opt.state_dict()
    state_dict["hyperparameters"]["lr"] = {"schedule": spec}
    with pytest.raises(ValueError, match=r"schedule|every"):
        opt.load_state_dict(state_dict)
    assert opt.lr == 0.01


def test_a_first_loss_that_is_nan_is_not_the_best():
    schedule = schedules.ReduceOnPlateau(1.0, patience=1)
    for loss in math.nan, 3.0, 2.0, 1.0, math.nan:
        schedule.observe(loss)
    assert (schedule.best, schedule.n_bad, schedule(5)) == (1.0, 1, 1.0)


@pytest.mark.parametrize("factor", [1.0, -0.1, math.nan])
def test_a_plateau_that_would_not_reduce_is_an_error(factor):
    with pytest.raises(ValueError, match=rf"factor must be in \[0, 1\), not {factor}"):
        schedules.ReduceOnPlateau(1.0, factor=factor)


def test_the_plateau_is_seen_by_the_next_step():
    schedule = schedules.ReduceOnPlateau(1.0, patience=0)
    opt, params = fo.SGD(lr=schedule), {"w": np.zeros(1)}
    for loss in 1.0, 1.0:
        opt.update(params, {"w": np.ones(1)})
        schedule.observe(loss)
    opt.update(params, {"w": np.ones(1)})
    assert params["w"] == pytest.approx(-2.1)
