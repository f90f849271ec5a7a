"""Options that choose the rule and the slots of an optimizer: `like`, and hyperparameters that are off at 0."""

import copy
import inspect
import pickle
from itertools import pairwise

import numpy as np
import pytest

import fastoptim as fo
from fastoptim.family import FAMILY
from fastoptim.kernels import rules
from fastoptim.update.composition import compose_optimizer
from naive import assert_bits

VARIANTS = {
    "velocity of torch": (fo.Momentum, {"like": "torch"}, ("v",), rules.scaled_momentum),
    "dampening": (fo.Momentum, {"dampening": 0.5}, ("v",), rules.scaled_momentum),
    "inner epsilon": (fo.AdaGrad, {"like": "optax", "lr_decay": 0.5}, ("h",), rules.adagrad_inside),
    "mean inside": (fo.RMSprop, {"like": "keras"}, ("h",), rules.rmsprop_inside),
    "centered": (fo.RMSprop, {"centered": True}, ("h", "a"), rules.rmsprop_centered),
    "momentum": (fo.RMSprop, {"momentum": 0.5, "like": "torch"}, ("h", "b"), rules.rmsprop_momentum),
    "both": (fo.RMSprop, {"centered": True, "momentum": 0.5}, ("h", "a", "b"), rules.rmsprop_centered_momentum),
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


@pytest.mark.parametrize("cls", [fo.AdaGrad, fo.Adam, fo.Momentum, fo.Nesterov, fo.RMSprop])
def test_a_subclass_that_does_not_call_init_has_the_defaults(cls):
    class Silent(cls):
        def __init__(self):
            self.lr = 0.5

    class ForAll(cls):
        lr = 0.5

        def __init__(self):
            pass

    ref = steps(cls(lr=0.5), parameters(), 1, 2)
    assert_same(ref, steps(Silent(), parameters(), 1, 2))
    assert_same(ref, steps(ForAll(), parameters(), 1, 2))
    assert_same(steps(Silent(), parameters(), 3), steps(copy.copy(ForAll()), parameters(), 3))


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


DEFAULTS = {
    "SGD": {"torch": {"lr": 0.001}, "keras": {"lr": 0.01}},
    "Momentum": {"torch": {"lr": 0.001}, "keras": {"lr": 0.01}},
    "Nesterov": {"torch": {"lr": 0.001}, "keras": {"lr": 0.01}},
    "AdaGrad": {
        "torch": {"lr": 0.01, "initial_accumulator": 0.0, "eps": 1e-10},
        "optax": {"initial_accumulator": 0.1, "eps": 1e-7},
        "keras": {"lr": 0.001, "initial_accumulator": 0.1, "eps": 1e-7},
    },
    "RMSprop": {
        "torch": {"lr": 0.01, "decay_rate": 0.99, "eps": 1e-8},
        "optax": {"decay_rate": 0.9, "eps": 1e-8},
        "keras": {"lr": 0.001, "decay_rate": 0.9, "eps": 1e-7},
    },
    "AdaDelta": {
        "torch": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
        "optax": {"rho": 0.9, "eps": 1e-6},
        "keras": {"lr": 0.001, "rho": 0.95, "eps": 1e-7},
    },
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_library_has_its_defaults_and_what_is_given_wins(name):
    make = getattr(fo, name)
    for like, expected in DEFAULTS[name].items():
        opt = make(like=like)
        assert {key: getattr(opt, key) for key in expected} == expected
        given = dict.fromkeys(expected, 0.25)
        opt = make(like=like, **given)
        assert {key: getattr(opt, key) for key in given} == given


def test_slots_of_rmsprop_come_and_go_with_its_options():
    opt, params = fo.RMSprop(), parameters()
    assert (opt.h, opt.a, opt.b) == (None, None, None)
    steps(opt, params, 1)
    with pytest.raises(AttributeError, match="RMSprop has no state 'a'"):
        opt.a  # noqa: B018
    before = opt.h["W"].copy()
    opt.centered = True
    steps(opt, params, 2)
    assert np.all(opt.h["W"] != before)
    # It began at zero.
    np.testing.assert_allclose(opt.a["W"], 0.01 * np.cos(2 + parameters()["W"]))
    opt.momentum = 0.5
    steps(opt, params, 3)
    g = np.cos(3 + parameters()["W"])
    np.testing.assert_allclose(opt.b["W"], g / (np.sqrt(opt.h["W"] - opt.a["W"] ** 2) + 1e-7))
    opt.momentum = 0.0
    steps(opt, params, 4)
    assert list(opt._state) == ["h", "a"]


def test_slots_that_are_set_before_the_first_update_are_used():
    values = {key: np.full(shape, 0.25) for key, shape in SHAPES.items()}
    opt = fo.RMSprop(momentum=0.5)
    opt.b = values
    steps(opt, parameters(), 1)
    g = np.cos(1 + parameters()["b"])
    np.testing.assert_allclose(opt.b["b"], 0.125 + g / (np.sqrt(opt.h["b"]) + 1e-7))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_variance_that_rounds_below_zero(momentum, dtype):
    """With equal gradients the mean of squares and the squared mean differ by rounding alone after some steps."""
    opt = fo.RMSprop(decay_rate=0.5, centered=True, momentum=momentum)
    gradients, params = np.linspace(0.1, 1, 999, dtype=dtype), {"x": np.zeros(999, dtype)}
    for _ in range(80):
        opt.update(params, {"x": gradients})
    assert np.any(opt.h["x"] < opt.a["x"] ** 2)
    assert np.isfinite(params["x"]).all()


def test_the_accumulator_begins_anew_with_the_state():
    opt, params = fo.AdaGrad(initial_accumulator=0.5), {"x": np.zeros(2, np.float32)}
    opt.update(params, {"x": np.ones(2, np.float32)})
    opt.initial_accumulator = 0.25
    opt.update(params, {"x": np.ones(2, np.float32)})
    assert opt.h["x"].tolist() == [2.5, 2.5]
    opt.h = None
    opt.update(params, {"x": np.ones(2, np.float32)})
    assert opt.h["x"].tolist() == [1.25, 1.25]
    opt.h = {"x": np.zeros(2)}
    opt.update(params, {"x": np.ones(2, np.float32)})
    assert opt.h["x"].tolist() == [2.25 - 1.25] * 2


def test_a_group_cannot_choose_the_rule():
    for cls, name in (fo.AdaGrad, "initial_accumulator"), (fo.RMSprop, "centered"):
        with pytest.raises(ValueError, match=f"a group cannot have '{name}'; it may have "):
            cls(groups={"b": {name: 0.5}})
    with pytest.raises(TypeError, match="centered must be True or False, not 1"):
        fo.RMSprop(centered=1)
    with pytest.raises(TypeError, match="initial_accumulator must be a finite number >= 0, not <built-in"):
        fo.AdaGrad(initial_accumulator=abs)
    with pytest.raises(ValueError, match="a group cannot have 'like'; it may have "):
        fo.Momentum(groups={"b": {"like": "torch"}})
    with pytest.raises(ValueError, match="like must be one of 'notes', 'torch', 'optax', 'keras', not 'jax'"):
        fo.Momentum(like="jax")
    with pytest.raises(TypeError, match=r"beta1 must be a finite number in \[0, 1\), not None"):
        fo.Adam(beta1=None)


@pytest.mark.parametrize("name", FAMILY)
def test_no_class_takes_an_unknown_argument(name):
    """The arguments of a base class are not those of all its subclasses."""
    cls = getattr(fo, name)
    for argument in ("lr", "beta1", "beta2", "eps", "like", "momentum"):
        if argument not in inspect.signature(cls).parameters:
            with pytest.raises(TypeError, match=f"{name} takes no argument '{argument}'"):
                cls(**{argument: 0.5})


def test_options_that_are_off_are_not_shown():
    assert repr(fo.Momentum()) == "Momentum(lr=0.01, momentum=0.9, iter=0)"
    shown = "Momentum(lr=0.001, momentum=0.9, dampening=0.5, like='torch', iter=0)"
    assert repr(fo.Momentum(like="torch", dampening=0.5)) == shown
