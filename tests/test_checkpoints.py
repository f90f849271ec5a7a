"""A saved optimizer continues with the same bits; a checkpoint that does not fit raises and changes nothing."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest

import fastoptim as fo
import naive
from naive import assert_bits, keys
from states import KINDS, assert_same, params_like, small, snapshot, trained


class SignMomentum(fo.Optimizer):
    """A custom rule with hyperparameters of every type that is saved, and one that is not."""

    slots = ("m",)

    def __init__(self, lr=0.1, schedule=None):
        super().__init__()
        self.lr, self.beta, self.name, self.nothing = lr, np.float32(0.7), "sign", None
        self.schedule = schedule

    def scalars(self):
        return self.lr, self.beta

    @staticmethod
    def rule(p, g, m, lr, beta):
        m = beta * m + (1 - beta) * g
        return p - lr * np.sign(m), m


OPTIMIZERS = {name: getattr(fo, name) for name in naive.RULES} | {"SignMomentum": SignMomentum}


def by_file(opt, params, fresh, path):
    opt.save(path, params)
    if type(opt) is SignMomentum:
        other = SignMomentum()
        other.load(path, fresh)
        return other
    return fo.load(path, fresh)


def by_dict(opt, params, fresh, _):
    saved = opt.state_dict(params)
    other = type(opt)()
    other.load_state_dict(saved, fresh)
    return other


def into_used(opt, params, fresh, path):
    """Load into an optimizer whose state must be replaced."""
    opt.save(path, params)
    other = trained(type(opt), fresh, 1)
    other.load(path, fresh)
    return other


@pytest.mark.parametrize("way", [by_file, by_dict, into_used])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_run_equals_uninterrupted_run(name, kind, way, tmp_path):
    ref = KINDS[kind](9)
    ref_opt = trained(OPTIMIZERS[name], ref, 3)
    ref_opt.lr = 0.125
    fresh = KINDS[kind](10)
    held = {key: fresh[key] for key in keys(fresh) if isinstance(fresh[key], np.ndarray)}
    comp_opt = way(ref_opt, ref, fresh, tmp_path / "checkpoint")
    assert all(fresh[key] is array for key, array in held.items())
    assert_same(ref_opt, comp_opt, ref, fresh)
    for seed in range(3, 6):
        ref_opt.update(ref, params_like(ref, seed))
        comp_opt.update(fresh, params_like(fresh, seed))
    assert_same(ref_opt, comp_opt, ref, fresh)
    # The plan is kept, so the next update is as fast as without the checkpoint.
    assert comp_opt._plan is not None
    assert ref_opt._plan is not None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_round_trip_before_the_first_update(name, tmp_path):
    for params in None, {"w": np.ones(2)}:
        ref = OPTIMIZERS[name](lr=0.5)
        comp = by_file(ref, params, params, tmp_path / "checkpoint")
        assert repr(comp) == repr(ref)
        assert all(getattr(comp, slot) is None for slot in comp.slots)


def test_state_dict_is_complete_and_holds_copies():
    params = {"W": np.ones((2, 2)), "x": 1.0}
    opt = trained(lambda lr: SignMomentum(lr, schedule=[0.1]), params, 2, {"W": np.ones((2, 2)), "x": 1.0})
    saved = opt.state_dict()
    assert saved.keys() == {"format", "class", "iter", "hyperparameters", "state", "params"}
    assert (saved["format"], saved["class"], saved["iter"], saved["params"]) == (1, "SignMomentum", 2, None)
    own = {"lr": 0.25, "beta": np.float32(0.7), "name": "sign", "nothing": None}
    assert saved["hyperparameters"] == {"on_nonfinite": "ignore", "skipped": 0, **own}
    assert type(saved["state"]["m"]) is dict
    before = saved["state"]["m"]["W"].copy()
    opt.update(params, {"W": np.ones((2, 2)), "x": 1.0})
    assert_bits(before, saved["state"]["m"]["W"])
    opt.load_state_dict(saved)
    opt.m["W"][:] = 7
    assert_bits(before, saved["state"]["m"]["W"])
    assert opt.state_dict(params)["params"]["W"] is not params["W"]


def test_types_of_hyperparameters_and_keys_are_preserved(tmp_path):
    names = ["é", "\ud800", 3, -2.5, None, ("a", ("b", None)), np.str_("s"), np.int64(8), np.float32(0.1), ""]
    opt = SignMomentum(schedule=[0.3])
    opt.update(dict.fromkeys(names, 1.0), dict.fromkeys(names, 1.0))
    for name, value in [("lr", np.float32(0.1)), ("beta", 1), ("name", "\ud800"), ("nothing", np.True_)]:
        setattr(opt, name, value)
    opt.save(tmp_path / "checkpoint")
    other = SignMomentum(schedule=[0.1])
    other.load(tmp_path / "checkpoint")
    assert list(other.m) == names
    assert [type(key) for key in other.m] == [*(type(key) for key in names[:6]), str, np.int64, np.float32, str]
    plain = other.state_dict()["hyperparameters"]
    assert plain == opt.state_dict()["hyperparameters"]
    assert [type(value) for value in plain.values()] == [str, int, np.float32, int, str, np.bool_]
    assert other.schedule == [0.1]


def test_zero_dimensional_array_is_saved_as_a_number(tmp_path):
    opt = fo.SGD(lr=np.array(0.1, np.float32))
    opt.save(tmp_path / "checkpoint")
    assert repr(fo.load(tmp_path / "checkpoint").lr) == repr(float(np.float32(0.1)))


@pytest.mark.parametrize("lr", [Fraction(1, 3), Decimal("0.1"), 1j])
def test_saving_raises_for_a_number_that_json_cannot_hold(lr, tmp_path):
    opt = SignMomentum()
    opt.lr = lr
    with pytest.raises(TypeError, match=f"{type(lr).__name__} cannot be written"):
        opt.save(tmp_path / "checkpoint")
    assert [*tmp_path.iterdir()] == []
    other = SignMomentum()
    other.load_state_dict(opt.state_dict())
    assert other.lr == lr


TRAIN = """
    import sys
    import numpy as np
    import fastoptim as fo

    start, stop, threads, path = map(eval, sys.argv[1:])
    rng = np.random.default_rng(0)
    for make in dict, fo.flatten:
        params = make({"W": rng.standard_normal((400, 700), np.float32), "b": rng.standard_normal(20_007, np.float32)})
        opt = fo.Adam() if start == 0 else fo.load(path + make.__name__, params)
        assert opt.iter == start
        with fo.num_threads(threads):
            for step in range(start, stop):
                opt.update(params, make({k: np.cos((step + 1) * np.arange(a.size, dtype="f")).reshape(a.shape)
                                         for k, a in params.items()}))
        opt.save(path + make.__name__, params)
"""


def test_resuming_in_another_process_with_other_threads(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(TRAIN), encoding="utf-8")

    def run(start, stop, threads, name):
        arguments = [start, stop, threads, repr(str(tmp_path / name))]
        command = [sys.executable, "-W", "error", script, *map(str, arguments)]
        environment = os.environ | {"NUMBA_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, timeout=120, env=environment)

    run(0, 8, 1, "whole")
    run(0, 3, 2, "part")
    run(3, 5, 1, "part")
    run(5, 8, 2, "part")
    for name in "dict", "flatten":
        assert (tmp_path / f"whole{name}").read_bytes() == (tmp_path / f"part{name}").read_bytes()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda things: pickle.loads(pickle.dumps(things))])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_copies_continue_with_the_same_bits(name, kind, copied):
    ref = KINDS[kind](9)
    ref_opt = trained(OPTIMIZERS[name], ref, 2)
    comp_opt, comp = copied((ref_opt, ref))
    for seed in range(3):
        ref_opt.update(ref, params_like(ref, seed))
    for seed in range(3):
        comp_opt.update(comp, params_like(comp, seed))
    assert_same(ref_opt, comp_opt, ref, comp)


def with_params(**changed):
    return lambda _, params: params.update(changed)


def without(key):
    return lambda _, params: params.pop(key)


def read_only(_, params):
    params["W"].flags.writeable = False


# The change to the optimizer and the parameters, and the expected error.
UNFIT = {
    "another shape": (with_params(W=np.ones((2, 1), "f")), r"'W'.*\(1, 2\).*\(2, 1\)"),
    "a broadcastable shape": (with_params(W=np.ones((3, 2), "f")), r"'W'.*\(1, 2\).*\(3, 2\)"),
    "another dtype": (with_params(W=np.ones((1, 2))), "'W'.*float32.*float64"),
    "number of another dtype": (with_params(x=np.float32(1)), "'x'.*float64.*float32"),
    "one key more": (with_params(new=1.0), r"of the checkpoint lacks the keys \['new'\]$"),
    "one key less": (without("x"), r"of the checkpoint has in addition the keys \['x'\]$"),
    "read-only": (read_only, "'W' is read-only"),
    "state of other keys": (
        lambda opt, _: setattr(opt, "_state", {"v": fo.flatten({"W": np.ones((1, 2), "f")})}),
        "'x'",
    ),
    "state of another shape": (
        lambda opt, _: vars(opt).update(
            _state=trained(fo.Momentum, {"W": np.ones(2), "x": 1.0}, 1, {"W": np.ones(2), "x": 1.0})._state
        ),
        "state 'v' 'W'",
    ),
    "one hyperparameter more": (lambda opt, _: vars(opt).update(decay=0.5), "decay"),
    "one hyperparameter less": (lambda opt, _: vars(opt).pop("lr"), "lr"),
    "a hyperparameter that is text": (lambda opt, _: vars(opt).update(lr="0.1"), "lr=0.25.*'0.1'"),
}


@pytest.mark.parametrize("by", ["file", "dict"])
@pytest.mark.parametrize("unfit", UNFIT)
def test_mismatch_changes_nothing(unfit, by, tmp_path):
    spoil, message = UNFIT[unfit]
    opt, params = small()
    opt.save(tmp_path / "checkpoint", params)
    saved = opt.state_dict(params)
    opt.update(params, params)
    spoil(opt, params)
    before = snapshot(opt, params)
    with pytest.raises(ValueError, match=message):
        opt.load(tmp_path / "checkpoint", params) if by == "file" else opt.load_state_dict(saved, params)
    assert snapshot(opt, params) == before


class Adam(fo.Adam):
    """A custom class with the name of one of the package."""


@pytest.mark.parametrize("other", [fo.SGD, fo.Nesterov, fo.Adam, SignMomentum, Adam])
def test_another_class_is_an_error(other, tmp_path):
    opt, params = small()
    opt.save(tmp_path / "checkpoint", params)
    other = trained(other, params, 1, dict(params))
    before = snapshot(other, params)
    with pytest.raises(ValueError, match=r"of a fastoptim\.Momentum, not of a "):
        other.load(tmp_path / "checkpoint", params)
    assert snapshot(other, params) == before


@pytest.mark.parametrize("cls", [SignMomentum, Adam])
def test_load_does_not_create_custom_classes(cls, tmp_path):
    cls().save(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=f"holds a {cls.__name__}, which is not a class of fastoptim"):
        fo.load(tmp_path / "checkpoint")
    if cls is Adam:
        with pytest.raises(ValueError, match=r"checkpoint of a Adam, not of a fastoptim\.Adam"):
            fo.Adam().load(tmp_path / "checkpoint")


def test_load_does_not_lose_groups(tmp_path):
    options = {"groups": {"x": {"lr": 0.1}}, "frozen": ["W"]}
    opt, params = fo.Adam(**options), {"W": np.ones(2), "x": np.ones(2)}
    opt.update(params, {"x": np.ones(2)})
    opt.save(tmp_path / "checkpoint", params)
    with pytest.raises(ValueError, match="an optimizer with groups, frozen, which no file holds: create one with"):
        fo.load(tmp_path / "checkpoint", params)
    again = fo.Adam(**options)
    again.load(tmp_path / "checkpoint", params)
    assert again.state_dict()["not_saved"] == "groups, frozen"
    assert "not_saved" not in fo.Adam().state_dict()


def test_a_method_of_the_class_needs_an_object():
    with pytest.raises(TypeError, match=r"^load is a method of an object, as in opt.load\(...\), not of a str"):
        fo.Adam.load("adam.safetensors")


def test_hyperparameter_refused_by_its_setter_changes_nothing():
    class Strict(fo.Momentum):
        @property
        def lr(self):
            return vars(self)["lr"]

        @lr.setter
        def lr(self, value):
            if value < 0:
                raise ValueError("negative")
            vars(self)["lr"] = value

    params = {"w": np.ones(2)}
    opt = trained(Strict, params, 2, params)
    saved = opt.state_dict(params)
    saved["hyperparameters"] |= {"momentum": 0.5, "lr": -1.0}
    opt.update(params, params)
    before = opt.state_dict(), repr(opt), params["w"].tobytes()
    with pytest.raises(ValueError, match="negative"):
        opt.load_state_dict(saved, params)
    assert (repr(opt), params["w"].tobytes()) == before[1:]
    assert_bits(before[0]["state"]["v"]["w"], opt.v["w"])


def test_immutable_params_change_nothing():
    opt, params = small()
    saved = opt.state_dict(params)
    opt.update(params, params)
    before = snapshot(opt, params)
    with pytest.raises(TypeError, match="assignment"):
        opt.load_state_dict(saved, MappingProxyType(params))
    with pytest.raises(TypeError, match="tuple"):
        opt.load_state_dict(saved, tuple(params.values()))
    assert snapshot(opt, params) == before


@pytest.mark.parametrize("saved", [True, False])
def test_params_must_be_passed_exactly_if_they_were_saved(saved, tmp_path):
    opt, params = small()
    opt.save(tmp_path / "checkpoint", params if saved else None)
    before = snapshot(opt, params)
    with pytest.raises(ValueError, match="with parameters: pass" if saved else "without parameters"):
        opt.load(tmp_path / "checkpoint", None if saved else params)
    assert snapshot(opt, params) == before


# The change to the state dict, and the expected error.
WRONG_DICTS = {
    "another format": (lambda d: d.update(format=2), "format 2"),
    "no format": (lambda d: d.pop("format"), "not a state dict"),
    "one item more": (lambda d: d.update(more=1), "more"),
    "one item less": (lambda d: d.pop("state"), "state"),
    "negative iter": (lambda d: d.update(iter=-1), "iter"),
    "fractional iter": (lambda d: d.update(iter=1.5), "iter"),
    "hyperparameters no dict": (lambda d: d.update(hyperparameters=[]), "hyperparameters"),
    "a hyperparameter that is a list": (lambda d: d["hyperparameters"].update(lr=[1]), "lr"),
    "a hyperparameter that is None": (lambda d: d["hyperparameters"].update(lr=None), "lr=None"),
    "a hyperparameter that is complex": (lambda d: d["hyperparameters"].update(lr=1j), "lr=1j"),
    "skipped None": (lambda d: d["hyperparameters"].update(skipped=None), "skipped"),
    "skipped negative": (lambda d: d["hyperparameters"].update(skipped=-1), "skipped"),
    "state no dict": (lambda d: d.update(state=[]), "state"),
    "state a number": (lambda d: d.update(state=5), "state 5"),
    "state without a slot": (lambda d: d.update(state={}), "state"),
    "state of another slot": (lambda d: d.update(state={"m": d["state"]["v"]}), "state m"),
    "a slot that is no dict": (lambda d: d.update(state={"v": None}), "state 'v'"),
    "a slot with a list": (lambda d: d["state"]["v"].update(x=[1.0]), "'x'"),
    "a slot with integers": (lambda d: d["state"]["v"].update(x=np.array(1)), "'x'"),
    "params no dict": (lambda d: d.update(params=[]), "params"),
    "params with integers": (lambda d: d["params"].update(x=np.array(1)), "'x'"),
}


@pytest.mark.parametrize("wrong", WRONG_DICTS)
def test_invalid_state_dict_changes_nothing(wrong):
    spoil, message = WRONG_DICTS[wrong]
    opt, params = small()
    saved = opt.state_dict(params)
    spoil(saved)
    opt.update(params, params)
    before = snapshot(opt, params)
    for target in opt, fo.Momentum():
        with pytest.raises(ValueError, match=message):
            target.load_state_dict(saved, params)
    assert snapshot(opt, params) == before


def test_state_of_another_shape_than_its_parameter_is_an_error(tmp_path):
    """So says the load, and not the next update."""
    opt, params = fo.Momentum(), {"w": np.ones((1, 2))}
    opt.update(params, {"w": np.ones((1, 2))})
    saved = copy.deepcopy(opt.state_dict(params))
    saved["state"] = {"v": fo.flatten({"w": np.ones((2, 1))})}
    with pytest.raises(ValueError, match=r"state 'v' of 'w' of shape \(2, 1\), expected \(1, 2\)"):
        fo.Momentum().load_state_dict(saved, params)
    opt = fo.Muon()
    opt.update(params, {"w": np.ones((1, 2))})
    opt.save(tmp_path / "opt.fo", params)
    fo.load(tmp_path / "opt.fo", params)


def test_parameters_of_another_shape_are_not_saved(tmp_path):
    """No optimizer could load the file, which may replace a good one."""
    opt, params = fo.Momentum(), {"w": np.ones((1, 2))}
    opt.update(params, {"w": np.ones((1, 2))})
    opt.save(tmp_path / "opt.fo", params)
    before = (tmp_path / "opt.fo").read_bytes()
    with pytest.raises(ValueError, match=r"the optimizer has state 'v' of 'w' of shape \(1, 2\), expected \(2, 2\)"):
        opt.save(tmp_path / "opt.fo", {"w": np.ones((2, 2))})
    assert (tmp_path / "opt.fo").read_bytes() == before


def test_slots_of_different_shapes_are_an_error():
    params = {"w": np.ones(2)}
    saved = trained(fo.Adam, params, 1, params).state_dict()
    saved["state"]["v"]["w"] = np.ones(3)
    with pytest.raises(ValueError, match="state 'v' 'w'"):
        fo.Adam().load_state_dict(saved)


@pytest.mark.parametrize("steps", [0, 2])
def test_each_slot_keeps_its_saved_dtype(steps, tmp_path):
    params = {"W": np.asfortranarray(np.ones((2, 3), np.float32)), "x": 1.0}
    ref = trained(fo.Adam, params, 2, params)
    saved = ref.state_dict()
    # The keys of this slot have another order, and so has its memory.
    saved["state"]["v"] = {key: np.array(ref.v[key], np.float64, order="C") for key in ("x", "W")}
    comp = trained(fo.Adam, params, steps, params)
    comp.load_state_dict(saved)
    comp.save(tmp_path / "checkpoint")
    for opt in comp, fo.load(tmp_path / "checkpoint"):
        for key in params:
            assert_bits(ref.m[key], opt.m[key])
            assert_bits(ref.v[key].astype(np.float64), opt.v[key])
        assert list(opt.v) == list(opt.m) == list(params)
        assert opt.m["W"].flags.f_contiguous
        assert opt.v["W"].flags.f_contiguous
        opt.update(params, params)
        assert opt.v["W"].dtype == np.float64


class Scheduled(fo.SGD):
    """Hyperparameters defined on the class, which an object may override."""

    lr = 0.5
    schedule = "constant"
    epoch = None

    def __init__(self):
        super().__init__()
        del self.lr


@pytest.mark.parametrize("changed", [{}, {"lr": 0.25}, {"lr": 0.25, "schedule": "cosine", "epoch": 3}])
@pytest.mark.parametrize("here", [{}, {"lr": 0.125}, {"lr": 0.125, "schedule": "linear", "epoch": 1}])
def test_class_level_hyperparameters(changed, here, tmp_path):
    saved, opt = Scheduled(), Scheduled()
    for name, value in changed.items():
        setattr(saved, name, value)
    for name, value in here.items():
        setattr(opt, name, value)
    saved.save(tmp_path / "checkpoint")
    opt.load(tmp_path / "checkpoint")
    expected = {"lr": 0.5, "schedule": "constant", "epoch": None} | changed
    assert {name: getattr(opt, name) for name in expected} == expected
    state_dict = saved.state_dict()
    state_dict["hyperparameters"]["slots"] = 1
    with pytest.raises(ValueError, match="slots"):
        opt.load_state_dict(state_dict)


@pytest.mark.parametrize("params", [fo.MultiLayerNet(2, [], 2), np.ones(3), 3, "W"])
def test_params_of_a_wrong_type(params, tmp_path):
    opt = fo.Adam()
    opt.save(tmp_path / "checkpoint", {"w": np.ones(2)})
    hint = ": pass its params" if hasattr(params, "params") else ""
    message = f"^params must be a dict or a list of arrays, not a {type(params).__name__}{hint}$"
    for action in (
        opt.state_dict,
        lambda p: opt.save(tmp_path / "other", p),
        lambda p: opt.load(tmp_path / "checkpoint", p),
    ):
        with pytest.raises(TypeError, match=message):
            action(params)
    assert [*tmp_path.iterdir()] == [tmp_path / "checkpoint"]


def test_user_added_attribute_is_restored(tmp_path):
    opt, other = Adam(), Adam()
    opt.epoch = 3
    opt.save(tmp_path / "checkpoint")
    other.load(tmp_path / "checkpoint")
    assert other.epoch == 3
    state_dict = opt.state_dict()
    state_dict["hyperparameters"]["update"] = 1
    with pytest.raises(ValueError, match="update"):
        Adam().load_state_dict(state_dict)
    # A built-in class takes no attributes of users.
    state_dict = fo.Adam().state_dict()
    state_dict["hyperparameters"]["epoch"] = 3
    with pytest.raises(ValueError, match="epoch=3: Adam has no attribute 'epoch'"):
        fo.Adam().load_state_dict(state_dict)


def test_rule_is_not_a_hyperparameter():
    opt = fo.Optimizer()
    saved = opt.state_dict()
    saved["hyperparameters"]["rule"] = 1
    with pytest.raises(ValueError, match="rule=1"):
        opt.load_state_dict(saved)
