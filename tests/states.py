"""Trained optimizers for the tests of checkpoints, and comparisons of everything that they hold."""

import pickle

import numpy as np

import fastoptim as fo
from naive import assert_bits, draw, keys

SHAPES = {"W1": (3, 4), ("conv", 2): (2, 3, 2), None: (5,), 7: (0, 2), "b": ()}


def values(seed, dtype=np.float64):
    return {key: draw(np.random.default_rng([seed, k]), shape, dtype) for k, (key, shape) in enumerate(SHAPES.items())}


def mixed(seed):
    """Return parameters of every kind: C and Fortran order, three dtypes, plain numbers."""
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


def snapshot(opt, params):
    return pickle.dumps((opt, [np.asarray(params[key]).tobytes() for key in keys(params)]))


def assert_same(ref_opt, comp_opt, ref, comp):
    assert vars(comp_opt).keys() == vars(ref_opt).keys()
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
            # An update runs in place only if the state has the memory order of its parameter.
            assert ours[key].strides == theirs[key].strides


def trained(cls, params, steps, grads=None):
    opt = cls(lr=0.25)
    for seed in range(steps):
        opt.update(params, params_like(params, seed) if grads is None else grads)
    return opt


def params_like(params, seed):
    """Return gradients for these parameters."""
    return fo.flatten(values(seed, params.flat.dtype)) if hasattr(params, "flat") else kind_of(params)(seed)


def kind_of(params):
    if isinstance(params, list):
        return KINDS["list"]
    return mixed if "x" in params else lambda seed: values(seed, params["W1"].dtype)


def small():
    params = {"W": np.array([[1.0, 2.0]], np.float32), "x": 3.0}
    return trained(fo.Momentum, params, 2, {"W": np.array([[1.0, -1.0]], np.float32), "x": 0.5}), params
