"""Flat dicts: their values are views of one buffer, and no operation on the dict changes that."""

import copy
import pickle
from collections import defaultdict

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo


@pytest.fixture
def flat():
    return fo.flatten({"W": np.arange(6.0).reshape(2, 3), "b": np.array([7.0]), "c": np.array(8.0)})


def assert_views(flat):
    assert all(np.shares_memory(value, flat.flat) for value in flat.values())
    assert_array_equal(np.concatenate([value.ravel() for value in flat.values()]), flat.flat)


def test_flatten_copies_values_in_order(flat):
    assert_array_equal(flat.flat, [0, 1, 2, 3, 4, 5, 7, 8])
    assert isinstance(flat, dict)
    assert list(flat) == ["W", "b", "c"]
    assert flat["W"].shape == (2, 3)
    assert flat["c"].shape == ()
    assert_views(flat)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.__setitem__("W", np.ones((2, 3), np.float32)),
        lambda f: f.update(W=np.ones((2, 3)), b=[2.0]),
        lambda f: f.__ior__({"b": np.array([5])}),
        lambda f: f.setdefault("b", 3.0),
        lambda f: setattr(f, "flat", np.zeros(8)),
        lambda f: setattr(f, "flat", f.flat),
        lambda f: f["W"].__isub__(1.0),
        lambda f: f.__setitem__("b", f["b"]),
    ],
)
def test_assignment_copies(flat, change):
    buffer, views = flat.flat, dict(flat)
    change(flat)
    assert flat.flat is buffer
    assert all(flat[key] is view for key, view in views.items())
    assert_views(flat)


def test_augmented_assignment_to_the_buffer(flat):
    flat.flat *= 2
    flat["b"] -= 1
    assert_array_equal(flat.flat, [0, 2, 4, 6, 8, 10, 13, 16])
    assert_views(flat)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.update(W=np.ones((2, 3)), b=np.ones(2)), ValueError, "'b' has shape"),
        (lambda f: f.update(W=np.ones((2, 3)), d=1.0), KeyError, "'d' is not in"),
        (lambda f: f.update(W=np.ones((2, 3)), b=[1j]), TypeError, "'b' is of dtype float64"),
        (lambda f: setattr(f, "flat", np.zeros(9)), ValueError, "shape"),
        (lambda f: f.pop("b"), TypeError, "fixed"),
        (lambda f: f.popitem(), TypeError, "fixed"),
        (lambda f: f.clear(), TypeError, "fixed"),
        (lambda f: f.__delitem__("b"), TypeError, "fixed"),
        (lambda f: f.setdefault("d", 1.0), KeyError, "'d' is not in"),
        (lambda _: fo.flatten([np.ones(2)]), TypeError, "dict"),
        (lambda _: fo.flatten({"a": np.ones(2), "b": np.ones(2, "f")}), TypeError, "'b': float32"),
        (lambda _: fo.flatten({"a": np.ones(2, int)}), TypeError, "int64"),
    ],
)
def test_invalid_assignment_changes_nothing(flat, change, error, message):
    before = flat.flat.copy()
    with pytest.raises(error, match=message):
        change(flat)
    assert_array_equal(flat.flat, before)
    assert list(flat) == ["W", "b", "c"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_copies_are_flat_dicts_with_their_own_buffer(flat, copied):
    other = copied(flat)
    assert_array_equal(other.flat, flat.flat)
    assert not np.shares_memory(other.flat, flat.flat)
    assert_views(other)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copied_optimizer_is_independent(copied):
    grads = {"w": np.array([1.0, -2.0])}
    ref, params = fo.Adam(), {"w": np.ones(2)}
    ref.update(params, grads)
    comp, others = copied(ref), copy.deepcopy(params)
    for _ in range(3):
        ref.update(params, grads)
        comp.update(others, grads)
    assert_array_equal(others["w"], params["w"])
    assert comp.iter == ref.iter == 4
    assert not np.shares_memory(comp.m["w"], ref.m["w"])


def test_attributes_restored_from_a_pickle_are_used():
    grads = {"w": np.ones(2)}
    opt, params = fo.Momentum(lr=1.0), {"w": np.zeros(2)}
    opt.update(params, grads)
    saved = pickle.dumps(opt)
    for _ in range(3):
        opt.update(params, grads)
    vars(opt).update(vars(pickle.loads(saved)))
    opt.update(params, grads)
    assert_array_equal(opt.v["w"], [-1.9, -1.9])


def test_masked_array_is_an_error(flat):
    before = flat.flat.copy()
    key = next(iter(flat))
    masked = np.ma.masked_array(flat[key], mask=True)
    for action in (lambda: fo.flatten({key: masked}), lambda: flat.update({key: masked})):
        with pytest.raises(TypeError, match=f"^'{key}' is a masked array"):
            action()
    assert_array_equal(flat.flat, before)


def test_state_may_be_given_before_the_first_update():
    opt, params = fo.Momentum(lr=1.0, momentum=0.5), {"w": np.zeros(2), "x": 0.0}
    opt.v = {"w": [2.0, 4.0], "x": 6.0}
    opt.update(params, {"w": np.zeros(2), "x": 0.0})
    assert_array_equal(params["w"], [1, 2])
    assert params["x"] == 3.0
    with pytest.raises(KeyError, match="'v' has the keys"):
        opt.v = {"w": [1.0, 1.0]}
    with pytest.raises(TypeError, match="state 'v'"):
        opt.v = [1.0]
    assert_array_equal(opt.v["w"], [1, 2])


@pytest.mark.parametrize("array", [np.zeros(2, int), np.zeros(2, complex), np.zeros(2, bool), ["a", "b"], None])
def test_state_that_is_not_a_floating_array_is_an_error(array):
    opt = fo.Momentum()
    with pytest.raises(TypeError, match=r"state 'v' 'w' is of dtype .*, expected a floating one"):
        opt.v = {"w": array}
    assert opt.v is None


def test_slot_dropped_by_a_subclass_is_not_an_attribute():
    class Other(fo.Momentum):
        slots = ("velocity",)

    opt = Other()
    opt.update({"w": np.ones(2)}, {"w": np.ones(2)})
    assert not hasattr(opt, "v")
    assert hasattr(opt, "velocity")


def test_defaultdict_of_gradients():
    grads = defaultdict(lambda: np.ones(2))
    params = {"w": np.ones(2)}
    opt = fo.SGD(lr=0.5)
    for _ in range(2):
        opt.update(params, grads)
    assert_array_equal(params["w"], [0, 0])


def test_network_is_pickled_without_its_workspace():
    net = fo.MultiLayerNet(4, [3], 2, seed=0)
    size = len(pickle.dumps(net))
    net.predict(np.ones((1000, 4)))
    assert len(pickle.dumps(net)) == size
    other = pickle.loads(pickle.dumps(net))
    assert_array_equal(other.predict(np.ones((2, 4))), net.predict(np.ones((2, 4))))


def test_values_of_two_keys_may_be_exchanged():
    flat = fo.flatten({"a": np.zeros(2), "b": np.ones(2)})
    flat.update({"a": flat["b"], "b": flat["a"]})
    assert_array_equal(flat["a"], 1)
    assert_array_equal(flat["b"], 0)
