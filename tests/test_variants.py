"""Options that choose the rule and the slots of an optimizer: `like`, and hyperparameters that are off at 0."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest

import fastoptim as fo
from fastoptim.composition import compose_optimizer
from fastoptim.kernels import rules
from naive import assert_bits

VARIANTS = {
    "velocity of torch": (fo.Momentum, {"like": "torch"}, ("v",), rules.scaled_momentum),
    "dampening": (fo.Momentum, {"dampening": 0.5}, ("v",), rules.scaled_momentum),
}
SHAPES = {"W": (3, 2), "b": (2,)}


def parameters():
    return {key: np.linspace(1, 2, np.prod(shape)).reshape(shape) for key, shape in SHAPES.items()}


def steps(opt, params, *ts):
    for t in ts:
        opt.update(params, {key: np.cos(t + p) for key, p in parameters().items()})
    return params


def assert_same(ref, comp):
    for key, p in ref.items():
        assert_bits(p, comp[key], key)


@pytest.mark.parametrize("name", VARIANTS)
def test_options_choose_rule_and_slots(name):
    cls, options, slots, rule = VARIANTS[name]
    composition = compose_optimizer(cls(**options))
    assert (composition.rule, composition.slots) == (rule, slots)
    composition = compose_optimizer(cls())
    assert (composition.rule, composition.slots) == (cls.rule, cls.slots)


@pytest.mark.parametrize("name", VARIANTS)
def test_copies_and_checkpoints_keep_the_options(name, tmp_path):
    cls, options, slots, _ = VARIANTS[name]
    opt, params = cls(**options), parameters()
    steps(opt, params, 1, 2)
    opt.save(tmp_path / "checkpoint")
    restored = cls()
    restored.load_state_dict(opt.state_dict())
    twins = [fo.load(tmp_path / "checkpoint"), restored, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
    for twin in twins:
        assert repr(twin) == repr(opt)
        assert set(twin._state) == set(slots)
    ref = steps(opt, copy.deepcopy(params), 3, 4)
    for twin in twins:
        assert_same(ref, steps(twin, copy.deepcopy(params), 3, 4))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_subclass_with_a_rule_of_its_own_has_no_variants(name):
    base, options, *_ = VARIANTS[name]

    class Own(base):
        slots = ()

        def scalars(self):
            return (self.lr,)

        @staticmethod
        def rule(p, g, lr):
            return p - lr * g

    opt, ref = Own(lr=0.5, **options), fo.SGD(lr=0.5)
    assert_same(steps(ref, parameters(), 1, 2), steps(opt, parameters(), 1, 2))
    opt = base(**options)
    opt.rule = lambda p, g, *_: (p - g, *_[: len(base.slots)])
    assert compose_optimizer(opt).slots == base.slots


def test_files_and_pickles_from_before_an_option():
    opt, params = fo.Momentum(lr=0.5), parameters()
    steps(opt, params, 1)
    saved, pickled = opt.state_dict(), opt.__getstate__()
    for name in "like", "dampening":
        del saved["hyperparameters"][name], pickled[name]
    restored, twin = fo.Momentum(), fo.Momentum.__new__(fo.Momentum)
    restored.load_state_dict(saved)
    twin.__setstate__(pickled)
    assert repr(restored) == repr(twin) == repr(opt)


def test_dampening_may_be_switched_between_steps():
    opt, params = fo.Momentum(lr=0.5, momentum=0.5, dampening=0.25), {"x": np.zeros(1)}
    positions = [0.0]
    for dampening in 0.25, 0.25, 0.0, 0.5:
        opt.dampening = dampening
        opt.update(params, {"x": np.ones(1)})
        positions.append(float(params["x"][0]))
    velocities = [after - before for before, after in pairwise(positions)]
    # The first step is not damped.
    assert velocities == [-0.5, -0.25 - 0.375, -0.3125 - 0.5, -0.40625 - 0.25]


@pytest.mark.parametrize("how", ["group", "schedule"])
def test_a_hyperparameter_that_is_on_in_a_group_or_later(how):
    options = {"groups": {"b": {"dampening": 0.5}}} if how == "group" else {"dampening": lambda k: 0.5 * (k >= 2)}
    opt, params = fo.Momentum(lr=0.5, momentum=0.5, **options), {"a": np.zeros(1), "b": np.zeros(1)}
    for _ in range(3):
        opt.update(params, {"a": np.ones(1), "b": np.ones(1)})
    undamped, damped = -0.5 - 0.75 - 0.875, {"group": -0.5 - 0.5 - 0.5, "schedule": -0.5 - 0.75 - 0.625}[how]
    assert params["a"][0] == (undamped if how == "group" else damped)
    assert params["b"][0] == damped


def test_a_group_cannot_choose_the_rule():
    with pytest.raises(ValueError, match="a group cannot have 'like'; it may have "):
        fo.Momentum(groups={"b": {"like": "torch"}})
    with pytest.raises(ValueError, match="like must be one of 'notes', 'torch', 'optax', 'keras', not 'jax'"):
        fo.Momentum(like="jax")


def test_options_that_are_off_are_not_shown():
    assert repr(fo.Momentum()) == "Momentum(lr=0.01, momentum=0.9, iter=0)"
    shown = "Momentum(like='torch', lr=0.001, momentum=0.9, dampening=0.5, iter=0)"
    assert repr(fo.Momentum(like="torch", dampening=0.5)) == shown
