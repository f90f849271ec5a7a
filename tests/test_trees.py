"""Nested containers and their flat views are the same arrays."""

import copy
import pickle
from types import MappingProxyType

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo


def nested():
    """Two layers, a number, and what holds nothing."""
    rng = np.random.default_rng(0)
    layers = [{"W": rng.normal(size=(3, 2)), "b": rng.normal(size=2)} for _ in range(2)]
    return {"layers": layers, "head": (rng.normal(size=4), {"W": rng.normal(size=5)}), "scale": 1.5, "none": {}}


KEYS = ["layers/0/W", "layers/0/b", "layers/1/W", "layers/1/b", "head/0", "head/1/W", "scale"]


def test_values_are_the_same_objects():
    params = nested()
    flat = fo.tree(params)
    assert list(flat) == KEYS
    assert flat["layers/1/b"] is params["layers"][1]["b"]
    assert flat["head/1/W"] is params["head"][1]["W"]


def test_update_is_that_of_a_flat_dict():
    params, grads = nested(), nested()
    ref = {key: copy.deepcopy(value) for key, value in fo.tree(params).items()}
    groups = {"layers/*/b": {"lr": 0.5}, "head/*": {"weight_decay": 0.1}}
    opt, expected = (fo.Adam(lr=0.1, groups=groups, frozen=("layers/0/*",)) for _ in range(2))
    for _ in range(3):
        opt.update(fo.tree(params), fo.tree(grads))
        expected.update(ref, dict(fo.tree(grads)))
    assert params["scale"] == ref["scale"] != 1.5
    for key, value in fo.tree(params).items():
        assert_array_equal(value, ref[key])
    assert_array_equal(params["layers"][0]["W"], nested()["layers"][0]["W"])
    assert opt._plans[0] is opt._plan
    assert len(opt._plans) == 1


def test_checkpoint(tmp_path):
    params, opt = nested(), fo.Adam()
    opt.update(fo.tree(params), fo.tree(nested()))
    opt.save(tmp_path / "a.safetensors", fo.tree(params))
    loaded = nested()
    opt = fo.load(tmp_path / "a.safetensors", fo.tree(loaded))
    assert opt.m.keys() == set(KEYS)
    assert loaded["scale"] == params["scale"]
    assert_array_equal(loaded["head"][0], params["head"][0])


def test_numbers_in_a_tuple_cannot_be_replaced():
    for params in ({"a": (1.0,), "w": np.ones(2)}, MappingProxyType({"a": 1.0, "w": np.ones(2)})):
        with pytest.raises(TypeError, match="does not support item assignment"):
            fo.SGD().update(fo.tree(params), fo.tree(params))
        assert_array_equal(params["w"], 1)


def test_assignment_reaches_the_nested_container():
    params = nested()
    flat = fo.tree(params)
    flat["layers/0/b"] = new = np.ones(2)
    assert params["layers"][0]["b"] is flat["layers/0/b"] is new
    with pytest.raises(KeyError, match="'layers/0/c' is not among the keys"):
        flat["layers/0/c"] = new
    for change in (lambda: flat.pop("scale"), lambda: flat.update(a=1), flat.clear, lambda: flat.setdefault("a")):
        with pytest.raises(TypeError, match="dict"):
            change()
    assert list(flat) == KEYS


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_copies_are_views_of_copies(duplicate):
    params = nested()
    together = duplicate({"params": params, "flat": fo.tree(params)})
    together["flat"]["scale"] = 7.0
    assert together["params"]["scale"] == 7.0
    assert together["flat"]["head/0"] is together["params"]["head"][0]
    assert params["scale"] == 1.5


def test_errors():
    with pytest.raises(ValueError, match="two values have the path 'a/b'"):
        fo.tree({"a": {"b": 1.0}, "a/b": 2.0})
    with pytest.raises(ValueError, match="two values have the path '0'"):
        fo.tree({0: 1.0, "0": 2.0})
    loop = {"a": []}
    loop["a"].append(loop)
    with pytest.raises(ValueError, match="'a/0' contains itself"):
        fo.tree(loop)
    with pytest.raises(TypeError, match="not ndarray"):
        fo.tree(np.ones(2))
    shared = [np.ones(2)]
    assert list(fo.tree({"a": shared, "b": shared})) == ["a/0", "b/0"]
