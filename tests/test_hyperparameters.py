"""Hyperparameters and attributes that make no sense are refused when they are set."""

import copy
import inspect
import pickle
import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import fastoptim as fo
import naive
from fastoptim.hyperparameters import Hyperparameter

INTERVALS = {
    "lr": "not negative",
    "momentum": "up to 1",
    "dampening": "up to 1",
    "lr_decay": "not negative",
    "initial_accumulator": "not negative",
    "decay_rate": "below 1",
    "beta1": "below 1",
    "beta2": "below 1",
    "eps": "not negative",
    "weight_decay": "not negative",
}
HYPERPARAMETERS = [
    *((cls, name) for cls in naive.RULES for name in inspect.signature(naive.RULES[cls]).parameters),
    ("Momentum", "dampening"),
    ("AdaGrad", "lr_decay"),
    ("AdaGrad", "initial_accumulator"),
    ("AdaGrad", "eps"),
    ("RMSprop", "momentum"),
]
GOOD = {
    "not negative": [0, 0.0, 1, 300, np.float32(0.1), np.int8(3), np.array(0.25), Fraction(1, 3), sys.float_info.max],
    "up to 1": [0, 1, 1.0, np.float64(0.5), np.array(0.25)],
    "below 1": [0, 0.0, np.float32(0.9), np.array(0.25), 1 - 2**-53],
}
BAD_NUMBERS = {
    "not negative": [-1, -1e-300, np.float32(-1), np.array(-0.5), 10**400],
    "up to 1": [-0.1, 1.5, 2],
    "below 1": [-1, 1, 1.0, np.float32(1), 2],
}
NEVER = [np.nan, -np.nan, np.inf, -np.inf, np.float32(np.nan), np.array(np.nan), np.longdouble(np.inf)]
NOT_REAL = [
    "0.1",
    None,
    True,
    np.True_,
    np.array(True),
    1j,
    [0.1],
    np.array([0.1]),
    np.array("0.1"),
    b"1",
    object,
    np.datetime64(1, "s"),
]
EXPECTED = {"not negative": ">= 0", "up to 1": "in [0, 1]", "below 1": "in [0, 1)"}


@pytest.mark.parametrize(("cls", "name"), HYPERPARAMETERS)
def test_they_are_checked_when_they_are_set(cls, name):
    make, interval = getattr(fo, cls), INTERVALS[name]
    for value in GOOD[interval]:
        opt = make(**{name: value})
        kept = getattr(opt, name)
        assert (type(kept), kept) == (float, float(value))
        for twin in copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)):
            assert getattr(twin, name) == kept
            assert repr(twin) == repr(opt)
    opt = make()
    before = getattr(opt, name)
    # To a constructor, None stands for a default that depends on `like`; a transform that is None is off.
    is_optional = getattr(inspect.signature(make).parameters.get(name), "default", None) is None
    for error, wrong in (
        *((ValueError, value) for value in BAD_NUMBERS[interval] + NEVER),
        *((TypeError, value) for value in NOT_REAL if value is not None or name != "weight_decay"),
    ):
        actions = [lambda value=wrong: make(**{name: value}), lambda value=wrong: setattr(opt, name, value)]
        for action in actions[wrong is None and is_optional :]:
            with pytest.raises(error, match=f"^{name} must be a finite number {re.escape(EXPECTED[interval])}, not "):
                action()
        assert getattr(opt, name) is before
    params = {"w": np.ones(3)}
    opt.update(params, {"w": np.ones(3)})
    assert opt.iter == 1


def test_the_document_names_the_interval_of_each():
    text = (Path(__file__).parent.parent / "docs" / "inputs.md").read_text(encoding="utf-8")
    intervals = text.partition("The intervals: ")[2].partition(".\n")[0]
    assert set(re.findall("`(.+?)`", intervals)) == {name for _, name in HYPERPARAMETERS} == set(INTERVALS)


def test_the_representation_has_the_order_of_the_constructor():
    assert repr(fo.Adam()) == "Adam(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-07, iter=0)"
    assert repr(fo.RMSprop(centered=True, like="keras", l2=0.5, groups={"b": {"lr": 0.5}})) == (
        "RMSprop(lr=0.001, decay_rate=0.9, centered=True, eps=1e-07, like='keras', l2=0.5, "
        "groups={'b': {'lr': 0.5}}, iter=0)"
    )
    opt = fo.RMSprop(0.5, on_nonfinite="skip")
    opt.update({"x": 1.0}, {"x": np.nan})
    assert repr(opt) == "RMSprop(lr=0.5, decay_rate=0.99, eps=1e-07, on_nonfinite='skip', iter=0, skipped=1)"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [np.float32(0.3), np.float64(0.3), np.array(0.3), Fraction(3, 10), 0])
def test_numbers_of_any_type_act_as_python_floats(pair, number, dtype):
    names = inspect.signature(type(pair()[0])).parameters
    opts = [pair(**dict.fromkeys(names, value))[1] for value in (float(number), number)]
    params = [{"w": np.linspace(-1, 1, 9, dtype=dtype)} for _ in opts]
    for step in range(3):
        for opt, values in zip(opts, params, strict=True):
            opt.update(values, {"w": np.linspace(step + 1, 2.5, 9, dtype=dtype)})
    naive.assert_bits(params[0]["w"], params[1]["w"])
    naive.assert_state(*opts)
    assert repr(opts[0]) == repr(opts[1])


@pytest.mark.parametrize(
    ("cls", "wrong", "hint"),
    [
        (fo.SGD, "learning_rate", "; did you mean 'lr'?"),
        (fo.Adam, "LR", "; did you mean 'lr'?"),
        (fo.Adam, "beta_1", "; did you mean 'beta1'?"),
        (fo.Momentum, "momentun", "; did you mean 'momentum'?"),
        (fo.RMSprop, "decay", "; did you mean 'decay_rate'?"),
        (fo.RMSprop, "on_nonfinte", "; did you mean 'on_nonfinite'?"),
        (fo.SGD, "clipnorm", "; did you mean 'clip_norm'?"),
        (fo.Nesterov, "zebra", "; it has on_nonfinite, lr, momentum, like, and a subclass may have more"),
    ],
)
def test_an_attribute_that_a_class_does_not_have(cls, wrong, hint):
    opt = cls()
    before = repr(opt)
    with pytest.raises(AttributeError) as caught:
        setattr(opt, wrong, 0.5)
    assert str(caught.value) == f"{cls.__name__} has no attribute {wrong!r}{hint}"
    assert repr(opt) == before


def test_what_may_be_set(pair):
    _, opt = pair()
    opt.update({"x": 1.0}, {"x": 1.0})
    opt.iter, opt.skipped, opt.on_nonfinite, opt._private = 7, 3, "skip", 1
    for slot in opt.slots:
        setattr(opt, slot, None)
    assert (opt.iter, opt.skipped, opt.on_nonfinite, opt._private) == (7, 3, "skip", 1)


@pytest.mark.parametrize("number", [-1, 2.5, "3", None, True])
def test_a_number_of_updates_that_is_none(number):
    opt = fo.Adam(lr=lambda k: 1 / (k + 1))
    with pytest.raises(ValueError, match=r"^iter must be an integer >= 0, not "):
        opt.iter = number
    assert (opt.iter, opt.lr) == (0, 1.0)


def test_a_subclass_may_have_any_attribute(pair):
    base = type(pair()[1])
    opt = type(base.__name__, (base,), {})()
    opt.epoch = 3
    assert "epoch=3" in repr(opt)


def test_a_subclass_may_declare_and_replace_hyperparameters():
    class Mixin:
        eta = Hyperparameter(0, 1)

    class Own(Mixin, fo.Momentum):
        decay = Hyperparameter(0, 2)
        lr = 0.25

        @property
        def momentum(self):
            return self.decay / 2

        @momentum.setter
        def momentum(self, value):
            self.decay = 2 * value

    opt = Own(lr=-1)
    assert (opt.lr, opt.momentum, opt.decay) == (-1, 0.9, 1.8)
    for name in "decay", "eta", "dampening":
        with pytest.raises(ValueError, match=f"^{name} must be a finite number"):
            setattr(opt, name, 3)
    opt.eta, opt.decay = np.float32(0.5), lambda t: 1 / (1 + t)
    params = {"x": 1.0}
    opt.update(params, {"x": 1.0})
    assert (opt.eta, opt.decay, opt.momentum, params["x"]) == (0.5, 0.5, 0.25, 2.0)
    with pytest.raises(ValueError, match="a group cannot have 'momentun'; did you mean 'momentum'"):
        opt.groups = {"x": {"momentun": 0.5}}
    opt.groups = {"x": {"decay": 0.5, "eta": 0.5}}


@pytest.mark.parametrize("name", ["lr", "like", "l2"])
def test_what_every_update_reads_cannot_be_deleted(name):
    opt = fo.Adam(l2=0.1)
    with pytest.raises(AttributeError, match=f"^{name} cannot be deleted; set it to another value"):
        delattr(opt, name)
    assert vars(opt)[name]


def test_python_reads_numbers_without_a_descriptor():
    """A setter in the class would make each read four times as slow."""
    for name in "lr", "beta1", "beta2", "eps", "like":
        assert not hasattr(fo.Adam, name)
