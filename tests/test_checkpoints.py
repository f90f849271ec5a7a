"""What was saved goes on with the same bits; what is damaged or does not fit is refused, and nothing is changed."""

import copy
import hashlib
import json
import os
import pickle
import re
import stat
import subprocess
import sys
import textwrap
import tracemalloc
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import fastoptim as fo
import naive
from naive import assert_bits, draw, keys

SHAPES = {"W1": (3, 4), ("conv", 2): (2, 3, 2), None: (5,), 7: (0, 2), "b": ()}


class SignMomentum(fo.Optimizer):
    """A rule of one's own, with hyperparameters of every kind that is saved, and one that is not."""

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


def values(seed, dtype=np.float64):
    return {key: draw(np.random.default_rng([seed, k]), shape, dtype) for k, (key, shape) in enumerate(SHAPES.items())}


def mixed(seed):
    """All that an optimizer takes: orders in memory, dtypes and numbers."""
    arrays = values(seed)
    arrays["W1"] = np.asfortranarray(arrays["W1"], np.float32)
    arrays["conv", 2] = np.ascontiguousarray(arrays["conv", 2].transpose(2, 0, 1)).transpose(1, 2, 0)
    return arrays | {"h": arrays[None].astype(np.float16), "x": 0.5 + seed, "y": np.float32(seed)}


KINDS = {
    "separate float64": values,
    "separate float32": lambda seed: values(seed, np.float32),
    "flat float64": lambda seed: fo.flatten(values(seed)),
    "flat float32": lambda seed: fo.flatten(values(seed, np.float32)),
    "mixed": mixed,
    "list": lambda seed: list(mixed(seed).values()),
}


def assert_same(ref_opt, comp_opt, ref, comp):
    assert vars(comp_opt).keys() - {"_plan"} == vars(ref_opt).keys() - {"_plan"}
    assert repr(comp_opt) == repr(ref_opt)
    assert list(keys(ref)) == list(keys(comp))
    for key in keys(ref):
        assert type(comp[key]) is type(ref[key])
        assert_bits(ref[key], comp[key], key)
    for slot in ref_opt.slots:
        ours, theirs = getattr(ref_opt, slot), getattr(comp_opt, slot)
        assert list(ours) == list(theirs)
        for key in ours:
            assert_bits(ours[key], theirs[key], (slot, key))
            # An update is in place only where the state lies in memory as its parameter does.
            assert ours[key].strides == theirs[key].strides


def snapshot(opt, params):
    return pickle.dumps((opt, [np.asarray(params[key]).tobytes() for key in keys(params)]))


def trained(cls, params, steps, grads=None):
    opt = cls(lr=0.25)
    for seed in range(steps):
        opt.update(params, params_like(params, seed) if grads is None else grads)
    return opt


def params_like(params, seed):
    """Gradients like some parameters."""
    return fo.flatten(values(seed, params.flat.dtype)) if hasattr(params, "flat") else kind_of(params)(seed)


def kind_of(params):
    if isinstance(params, list):
        return KINDS["list"]
    return mixed if "x" in params else lambda seed: values(seed, params["W1"].dtype)


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
    """Where there is state already, it is replaced."""
    opt.save(path, params)
    other = trained(type(opt), fresh, 1)
    other.load(path, fresh)
    return other


@pytest.mark.parametrize("way", [by_file, by_dict, into_used])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_has_the_bits_of_the_uninterrupted_one(name, kind, way, tmp_path):
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
    # The next update is as fast as it would have been.
    assert (comp_opt._plan is None) == (ref_opt._plan is None) == (kind in ("mixed", "list"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_the_first_update(name, tmp_path):
    for params in None, {"w": np.ones(2)}:
        ref = OPTIMIZERS[name](lr=0.5)
        comp = by_file(ref, params, params, tmp_path / "checkpoint")
        assert repr(comp) == repr(ref)
        assert all(getattr(comp, slot) is None for slot in comp.slots)


def test_a_state_dict_says_all_and_shares_nothing():
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


def test_types_of_hyperparameters_and_keys_are_kept(tmp_path):
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


def test_an_array_of_no_dimensions_is_a_number(tmp_path):
    opt = fo.SGD(lr=np.array(0.1, np.float32))
    opt.save(tmp_path / "checkpoint")
    assert_bits(fo.load(tmp_path / "checkpoint").lr, np.float32(0.1))


@pytest.mark.parametrize("lr", [Fraction(1, 3), Decimal("0.1"), 1j])
def test_a_number_that_cannot_be_written_is_not_left_out(lr, tmp_path):
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


@pytest.mark.compiled
def test_another_process_with_other_threads_goes_on_with_the_same_bits(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(TRAIN))

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
def test_copies_go_on_with_the_same_bits(name, kind, copied):
    ref = KINDS[kind](9)
    ref_opt = trained(OPTIMIZERS[name], ref, 2)
    comp_opt, comp = copied((ref_opt, ref))
    for seed in range(3):
        ref_opt.update(ref, params_like(ref, seed))
    for seed in range(3):
        comp_opt.update(comp, params_like(comp, seed))
    assert_same(ref_opt, comp_opt, ref, comp)


# Networks


def batch(seed, net):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((6, net.input_size)), rng.integers(0, net.output_size, 6)


def step(net, opt, seeds):
    for seed in seeds:
        opt.update(net.params, net.gradient(*batch(seed, net)))


NETWORKS = {
    "deep float32": lambda: fo.MultiLayerNet(4, [5, 3], 2, weight_decay_lambda=0.1, seed=0),
    "sigmoid float64": lambda: fo.MultiLayerNet(4, [3], 2, "sigmoid", "xavier", dtype=np.float64, seed=1),
    "linear": lambda: fo.MultiLayerNet(4, np.array([], int), np.int64(3), weight_decay_lambda=np.float32(0.1), seed=2),
}


def net_by_file(net, path):
    net.save(path)
    return fo.load(path)


def into_another(net, load):
    other = copy.deepcopy(net)
    other.params.flat[:] = 0
    other.weight_decay_lambda = 7
    load(other)
    return other


def net_by_method(net, path):
    net.save(path)
    return into_another(net, lambda other: other.load(path))


def net_by_dict(net, _):
    saved = net.state_dict()
    net.params.flat[:] += 1
    net.load_state_dict(saved)
    return into_another(net, lambda other: other.load_state_dict(saved))


NET_WAYS = {
    "file": net_by_file,
    "method": net_by_method,
    "dict": net_by_dict,
    "deepcopy": lambda net, _: copy.deepcopy(net),
    "pickle": lambda net, _: pickle.loads(pickle.dumps(net)),
}


@pytest.mark.parametrize("way", NET_WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_goes_on_with_the_same_bits(name, way, tmp_path):
    ref = NETWORKS[name]()
    ref_opt = fo.Adam()
    step(ref, ref_opt, range(2))
    np.random.seed(0)
    drawn = np.random.rand()
    np.random.seed(0)
    comp, comp_opt = NET_WAYS[way](ref, tmp_path / "checkpoint"), copy.deepcopy(ref_opt)
    assert np.random.rand() == drawn, "the user's random numbers were drawn from"
    assert repr(comp) == repr(ref)
    assert type(comp.weight_decay_lambda) is type(ref.weight_decay_lambda)
    step(ref, ref_opt, range(2, 5))
    step(comp, comp_opt, range(2, 5))
    assert_bits(ref.params.flat, comp.params.flat)
    assert ref.loss(*batch(9, ref)) == comp.loss(*batch(9, comp))


def test_a_network_and_its_optimizer_in_one_file(tmp_path):
    ref, ref_opt = NETWORKS["deep float32"](), fo.RMSprop()
    step(ref, ref_opt, range(3))
    ref_opt.save(tmp_path / "checkpoint", ref.params)
    comp = fo.MultiLayerNet(4, [5, 3], 2, weight_decay_lambda=0.1)
    comp_opt = fo.load(tmp_path / "checkpoint", comp.params)
    step(ref, ref_opt, range(3, 6))
    step(comp, comp_opt, range(3, 6))
    assert_same(ref_opt, comp_opt, ref.params, comp.params)


@pytest.mark.parametrize(
    "other",
    [
        fo.MultiLayerNet(4, [5, 3], 3),
        fo.MultiLayerNet(4, [3, 5], 2),
        fo.MultiLayerNet(4, [5, 3, 3], 2),
        fo.MultiLayerNet(4, [5, 3], 2, "sigmoid"),
        fo.MultiLayerNet(4, [5, 3], 2, dtype=np.float64),
        fo.Adam(),
    ],
    ids=repr,
)
def test_a_network_of_another_kind_is_refused(other, tmp_path):
    net = NETWORKS["deep float32"]()
    net.save(tmp_path / "checkpoint")
    before = pickle.dumps(other)
    with pytest.raises(ValueError, match=r"of a network with|not of a"):
        other.load(tmp_path / "checkpoint")
    assert pickle.dumps(other) == before
    with pytest.raises(ValueError, match="without params"):
        fo.load(tmp_path / "checkpoint", net.params)


# What does not fit


def small():
    params = {"W": np.array([[1.0, 2.0]], np.float32), "x": 3.0}
    return trained(fo.Momentum, params, 2, {"W": np.array([[1.0, -1.0]], np.float32), "x": 0.5}), params


def with_params(**changed):
    return lambda _, params: params.update(changed)


def without(key):
    return lambda _, params: params.pop(key)


def read_only(_, params):
    params["W"].flags.writeable = False


# What is done to the optimizer and the parameters, and what the error says.
UNFIT = {
    "another shape": (with_params(W=np.ones((2, 1), "f")), r"'W'.*\(1, 2\).*\(2, 1\)"),
    "a broadcastable shape": (with_params(W=np.ones((3, 2), "f")), r"'W'.*\(1, 2\).*\(3, 2\)"),
    "another dtype": (with_params(W=np.ones((1, 2))), "'W'.*float32.*float64"),
    "number of another dtype": (with_params(x=np.float32(1)), "'x'.*float64.*float32"),
    "one key more": (with_params(new=1.0), "lacks the keys .*'new'"),
    "one key less": (without("x"), "has .*'x'.* not expected"),
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
    "one hyperparameter more": (lambda opt, _: setattr(opt, "decay", 0.5), "decay"),
    "one hyperparameter less": (lambda opt, _: vars(opt).pop("lr"), "lr"),
    "a hyperparameter that is text": (lambda opt, _: vars(opt).update(lr="0.1"), "lr=0.25.*'0.1'"),
}


@pytest.mark.parametrize("by", ["file", "dict"])
@pytest.mark.parametrize("unfit", UNFIT)
def test_what_does_not_fit_changes_nothing(unfit, by, tmp_path):
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
    """A class of one's own with the name of another."""


@pytest.mark.parametrize("other", [fo.SGD, fo.Nesterov, fo.Adam, SignMomentum, Adam])
def test_another_class_is_refused(other, tmp_path):
    opt, params = small()
    opt.save(tmp_path / "checkpoint", params)
    other = trained(other, params, 1, dict(params))
    before = snapshot(other, params)
    with pytest.raises(ValueError, match=r"of a fastoptim\.Momentum, not of a "):
        other.load(tmp_path / "checkpoint", params)
    assert snapshot(other, params) == before


@pytest.mark.parametrize("cls", [SignMomentum, Adam])
def test_a_class_of_ones_own_is_not_made(cls, tmp_path):
    cls().save(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=f"holds a {cls.__name__}, which is no class of fastoptim"):
        fo.load(tmp_path / "checkpoint")
    if cls is Adam:
        with pytest.raises(ValueError, match=r"is of a Adam, not of a fastoptim\.Adam"):
            fo.Adam().load(tmp_path / "checkpoint")


def test_a_hyperparameter_that_its_class_refuses_changes_nothing():
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


def test_parameters_that_cannot_take_a_number_change_nothing():
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
def test_parameters_are_neither_forgotten_nor_invented(saved, tmp_path):
    opt, params = small()
    opt.save(tmp_path / "checkpoint", params if saved else None)
    before = snapshot(opt, params)
    with pytest.raises(ValueError, match="with parameters: pass" if saved else "without parameters"):
        opt.load(tmp_path / "checkpoint", None if saved else params)
    assert snapshot(opt, params) == before


# What is done to a state dict, and what the error says.
WRONG_DICTS = {
    "another format": (lambda d: d.update(format=2), "format 2"),
    "no format": (lambda d: d.pop("format"), "no state_dict"),
    "one item more": (lambda d: d.update(more=1), "more"),
    "one item less": (lambda d: d.pop("state"), "state"),
    "negative iter": (lambda d: d.update(iter=-1), "iter"),
    "fractional iter": (lambda d: d.update(iter=1.5), "iter"),
    "hyperparameters no dict": (lambda d: d.update(hyperparameters=[]), "hyperparameters"),
    "a hyperparameter that is a list": (lambda d: d["hyperparameters"].update(lr=[1]), "lr"),
    "state no dict": (lambda d: d.update(state=[]), "state"),
    "state without a slot": (lambda d: d.update(state={}), "state"),
    "state of another slot": (lambda d: d.update(state={"m": d["state"]["v"]}), "state m"),
    "a slot that is no dict": (lambda d: d.update(state={"v": None}), "state 'v'"),
    "a slot with a list": (lambda d: d["state"]["v"].update(x=[1.0]), "'x'"),
    "a slot with integers": (lambda d: d["state"]["v"].update(x=np.array(1)), "'x'"),
    "params no dict": (lambda d: d.update(params=[]), "params"),
    "params with integers": (lambda d: d["params"].update(x=np.array(1)), "'x'"),
}


@pytest.mark.parametrize("wrong", WRONG_DICTS)
def test_a_wrong_state_dict_changes_nothing(wrong):
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


def test_slots_that_differ_among_each_other_are_refused():
    params = {"w": np.ones(2)}
    saved = trained(fo.Adam, params, 1, params).state_dict()
    saved["state"]["v"]["w"] = np.ones(3)
    with pytest.raises(ValueError, match="state 'v' 'w'"):
        fo.Adam().load_state_dict(saved)


# What is damaged


@pytest.fixture
def saved(tmp_path):
    """A small optimizer, its parameters, its file, and a check that a file is refused and nothing changed."""
    opt, params = small()
    path = tmp_path / "checkpoint"
    opt.save(path, params)
    opt.update(params, params)
    before = snapshot(opt, params)

    def refused(data, message="damaged, or no checkpoint"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            opt.load(path, params)

    yield path.read_bytes(), refused
    assert snapshot(opt, params) == before


def test_a_file_cut_at_any_byte(saved):
    data, refused = saved
    for size in range(len(data)):
        refused(data[:size])
    refused(data + b"\0")
    refused(data + data)


def test_a_file_with_any_bit_flipped(saved):
    data, refused = saved
    for k in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[k // 8] ^= 1 << k % 8
        refused(flipped)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 1000, b"\xff" * 1000, b"PK\x03\x04", pickle.dumps({"a": 1}), b"{}" * 100]
)
def test_what_was_never_a_checkpoint(saved, data):
    saved[1](data)


def test_a_large_file_that_is_none_is_not_read(tmp_path):
    with (tmp_path / "film").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ValueError, match="no checkpoint"):
        fo.load(tmp_path / "film")


def test_what_cannot_be_opened_is_an_error_of_the_system(tmp_path):
    for path in tmp_path / "missing", tmp_path, tmp_path / "missing" / "checkpoint":
        with pytest.raises(OSError, match=re.escape(str(path))):
            fo.load(path)
        with pytest.raises(OSError, match=re.escape(str(path))):
            fo.Adam().load(str(path))


def forged(data, change):
    """A file whose checksum is right, but whose header somebody has changed."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["fastoptim"])
    text = change(header, about)
    if not isinstance(text, str) or not text.startswith("{"):
        header["__metadata__"]["fastoptim"] = json.dumps(about)
        text = json.dumps(header)
    data = len(text).to_bytes(8, "little") + text.encode() + data[8 + length : -32]
    return data + hashlib.sha256(data).digest()


FIRST = 'params["W"]'
NESTED = '{"__metadata__": {"fastoptim": ' + "[" * 100_000
FORGED = {
    "a later version": (lambda _, a: a.update(format=2), "format 2"),
    "a later version with another form": (lambda _, a: a.update(format=2, params="W"), "format 2"),
    "terabytes": (lambda h, _: h[FIRST].update(shape=[1 << 40]), "no checkpoint"),
    "more than any memory": (lambda h, _: h[FIRST].update(shape=[1 << 62, 1 << 62]), "no checkpoint"),
    "terabytes of nothing": (lambda h, _: h[FIRST].update(shape=[1 << 62, 0, 1 << 62]), "no checkpoint"),
    "negative sizes": (lambda h, _: h[FIRST].update(shape=[-2]), "no checkpoint"),
    "fractional sizes": (lambda h, _: h[FIRST].update(shape=[1.0, 2.0]), "no checkpoint"),
    "a shape that is text": (lambda h, _: h[FIRST].update(shape="12"), "no checkpoint"),
    "an unknown dtype": (lambda h, _: h[FIRST].update(dtype="O"), "no checkpoint"),
    "an array missing": (lambda h, _: h.pop(FIRST), "no checkpoint"),
    "a key that is a dict": (lambda _, a: a["params"].append([{}, []]), "no checkpoint"),
    "wrong axes": (lambda _, a: a["params"][0].__setitem__(1, [0, 0, -1]), "no checkpoint"),
    "axes too far": (lambda _, a: a["params"][0].__setitem__(1, [7, 0]), "no checkpoint"),
    "no metadata": (lambda *_: '{"__metadata__": {"fastoptim": 3}}', "no checkpoint"),
    "no JSON": (lambda *_: '{"__metadata__": {"fastoptim"', "no checkpoint"),
    "depth": (lambda *_: NESTED, "no checkpoint"),
    "a hyperparameter that is an object": (lambda _, a: a["hyperparameters"].update(lr={"x": 1}), "lr"),
    "a number that is none": (lambda _, a: a["hyperparameters"].update(lr={"numpy.int8": 300}), "no checkpoint"),
    "no class": (lambda _, a: a.pop("class"), "no class|no state_dict"),
    "a function as class": (lambda _, a: a.update({"class": "os.system"}), "system, which is no class|not of a"),
    "a function of the package as class": (
        lambda _, a: a.update({"class": "fastoptim.load_mnist"}),
        "no class|not of a",
    ),
    "a base class": (lambda _, a: a.update({"class": "fastoptim.Optimizer"}), "no class|not of a"),
    "no network": (lambda _, a: a.update({"class": "fastoptim.MultiLayerNet"}), "network|items|not of a"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_file_gets_no_memory_and_changes_nothing(saved, kind, tmp_path):
    data, refused = saved
    change, message = FORGED[kind]
    data = forged(data, change)
    tracemalloc.start()
    try:
        refused(data, message)
        (tmp_path / "other").write_bytes(data)
        params = small()[1]
        with pytest.raises(ValueError, match=f"{message}|without params"):
            fo.load(tmp_path / "other", params)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["hyperparameters"].update(hidden_size_list=[1 << 40]),
        lambda a: a["hyperparameters"].update(hidden_size_list=[1 << 40], input_size=-1, output_size=0),
        lambda a: a["hyperparameters"].update(hidden_size_list=None),
        lambda a: a["hyperparameters"].update(activation="eval"),
        lambda a: a["hyperparameters"].update(dtype="O"),
        lambda a: a["hyperparameters"].update(weight_decay_lambda="0"),
        lambda a: a["hyperparameters"].update(weight_init_std=1),
        lambda a: a["hyperparameters"].pop("dtype"),
        lambda a: a.update(hyperparameters=[]),
        lambda a: a.update(params=None),
        lambda a: a.update(iter=1),
        lambda a: a["params"].pop(),
    ],
)
def test_a_forged_network(change, tmp_path):
    path, net = tmp_path / "checkpoint", NETWORKS["deep float32"]()
    net.save(path)
    path.write_bytes(forged(path.read_bytes(), lambda _, about: change(about) and None))
    before = pickle.dumps(net)
    tracemalloc.start()
    try:
        for load in fo.load, net.load:
            with pytest.raises(ValueError, match="checkpoint"):
                load(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert pickle.dumps(net) == before


# Writing


def assert_only(path, content):
    assert [*path.parent.iterdir()] == ([] if content is None else [path])
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("w", np.ones(2, np.longdouble), "'w' is of dtype"),
        ("w", np.ones(2, ">f4"), "'w' is of dtype"),
        (float("nan"), np.ones(2), "keys"),
        (b"w", np.ones(2), "keys"),
        (frozenset("w"), np.ones(2), "keys"),
        (("a", b"w"), np.ones(2), "keys"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(key, value, message, tmp_path):
    if value.dtype == np.float64 != value.dtype.newbyteorder("="):
        pytest.skip("longdouble is float64 here")
    path = tmp_path / "checkpoint"
    for content in None, b"the old one":
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(TypeError, match=message):
            fo.Adam().save(path, {key: value})
        assert_only(path, content)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    import resource

    path = tmp_path / "checkpoint"
    fo.Adam().save(path)
    content = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in 0, 100, 3000, 150_000:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                fo.Adam().save(path, {"w": np.ones(20_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert_only(path, content)
    fo.Adam().save(path, {"w": np.ones(20_000)})


def test_a_folder_that_is_missing_or_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in tmp_path / "missing" / "checkpoint", tmp_path / "file" / "checkpoint", tmp_path:
        with pytest.raises(OSError, match=r"directory|denied|regular file"):
            fo.Adam().save(path)
    assert_only(tmp_path / "file", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be synced there")
def test_numbers_are_on_the_disk_before_the_name_and_the_name_before_save_returns(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), events.append(stat.S_IFMT(os.fstat(file).st_mode))))
    monkeypatch.setattr(Path, "replace", lambda *paths: (replace(*paths), events.append("replace")))
    fo.Adam().save(tmp_path / "checkpoint")
    assert events == [stat.S_IFREG, "replace", stat.S_IFDIR]


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
def test_permissions_are_those_of_the_old_file_or_of_any_new_one(tmp_path):
    path = tmp_path / "checkpoint"
    old = os.umask(0o027)
    try:
        fo.Adam().save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for mode in 0o600, 0o664, 0o444:
        path.chmod(mode)
        fo.Adam().save(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_stays_a_link(tmp_path):
    path, link = tmp_path / "folder" / "checkpoint", tmp_path / "link"
    path.parent.mkdir()
    link.symlink_to(path)
    for lr in 0.5, 0.25:
        fo.SGD(lr=lr).save(link)
        assert link.is_symlink()
        assert fo.load(path).lr == fo.load(link).lr == lr
    assert [*path.parent.iterdir()] == [path]


def test_any_reader_of_safetensors_opens_it(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    params = mixed(0)
    opt = trained(fo.Adam, params, 2)
    opt.save(tmp_path / "checkpoint", params)
    with safetensors.safe_open(tmp_path / "checkpoint", "np") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    data = (tmp_path / "checkpoint").read_bytes()
    assert len(read) == 3 * len(params) + 1
    assert read["sha256"].tobytes() == data[-32:] == hashlib.sha256(data[:-32]).digest()
    assert int.from_bytes(data[:8], "little") % 8 == 0, "arrays should begin where readers need not copy them"
    for group, arrays in {"params": params, "state.m": opt.m, "state.v": opt.v}.items():
        for key, array in arrays.items():
            assert_bits(array, read[f"{group}[{json.dumps(key)}]"])


@pytest.mark.compiled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_killed_while_it_saves():
    script = Path(__file__).with_name("soak_checkpoints.py")
    command = [sys.executable, "-W", "error", script, "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 kills")


def test_an_attribute_that_a_user_added_comes_back(tmp_path):
    opt = fo.Adam()
    opt.epoch = 3
    opt.save(tmp_path / "checkpoint")
    assert fo.load(tmp_path / "checkpoint").epoch == 3
    record = opt.state_dict()
    record["hyperparameters"]["update"] = 1
    with pytest.raises(ValueError, match="update"):
        fo.Adam().load_state_dict(record)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        fo.SGD().save(tmp_path / "pipe")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
