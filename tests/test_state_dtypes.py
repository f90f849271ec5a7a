"""State has the dtype that the notes' code gives it, from the first step on and when gradients change theirs."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
import naive
from naive import assert_bits, assert_state, assert_step, draw

LAYOUTS = {
    "contiguous": np.array,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "F-ordered": np.asfortranarray,
    "backwards": lambda a: np.flip(np.flip(a).copy()),
}
# Of the gradients, step by step.
CHANGES = {
    "wider from the first step": ["f8"] * 4,
    "wider, and back": ["f4", "f4", "f8", "f8", "f4", "f4"],
    "once wider": ["f4", "f8", "f4"],
    "whole numbers": ["f4", "i4", "i1", "f4"],
    "half": ["f2", "f4", "f8", "f2"],
    "longdouble": ["f4", "g", "f8"],
}


def save_and_load(opt, folder):
    opt.save(folder / "opt.fo")
    new = type(opt)()
    new.load(folder / "opt.fo")
    return new


def through_state_dict(opt, _folder):
    new = type(opt)()
    new.load_state_dict(copy.deepcopy(opt.state_dict()))
    return new


PAUSES = {
    "no pause": lambda opt, _: opt,
    "file": save_and_load,
    "state dict": through_state_dict,
    "pickle": lambda opt, _: pickle.loads(pickle.dumps(opt)),
    "copy": lambda opt, _: copy.deepcopy(opt),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_velocity_beside_wider_gradients_is_float64_from_the_first_step(layout):
    opt = fo.Momentum(lr=0.1)
    params, grads = {"w": LAYOUTS[layout](np.ones((3, 4), np.float32))}, {"w": np.full((3, 4), 1 / 3)}
    opt.update(params, grads)
    assert opt.v["w"].dtype == np.float64
    assert_array_equal(opt.v["w"], -0.1 * grads["w"])
    assert params["w"].dtype == np.float32
    assert_array_equal(params["w"], (1 - 0.1 * grads["w"]).astype(np.float32))


@pytest.mark.parametrize("change", CHANGES)
def test_gradients_that_change_their_dtype(pair, change):
    take_steps(*pair(), CHANGES[change], np.array)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strided_arrays_whose_gradients_change_their_dtype(change, layout):
    take_steps(naive.Momentum(), fo.Momentum(), CHANGES[change], LAYOUTS[layout])


def take_steps(ref_opt, comp_opt, kinds, layout):
    rng = np.random.default_rng(0)
    start = {"W": draw(rng, (5, 4), np.float32), "b": draw(rng, (3,), np.float32), "u": draw(rng, (6, 2), np.float64)}
    ref, comp = ({key: layout(p) for key, p in start.items()} for _ in range(2))
    for kind in kinds:
        # One of three changes, the others stay as they are.
        dtypes = {"W": kind, "b": "f4", "u": "f8"}
        grads = {key: (5 * draw(rng, p.shape)).astype(dtypes[key]) for key, p in start.items()}
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("change", ["wider from the first step", "wider, and back", "whole numbers"])
def test_checkpoints_in_between(pair, change, pause, tmp_path):
    rng = np.random.default_rng(1)
    ref_opt, comp_opt = pair()
    ref, comp = ({"w": np.full((4, 3), 0.75, np.float32), "x": np.full(3, 0.25)} for _ in range(2))
    for kind in CHANGES[change]:
        grads = {"w": (5 * draw(rng, (4, 3))).astype(kind), "x": draw(rng, 3)}
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
        comp_opt = PAUSES[pause](comp_opt, tmp_path)
        assert_state(ref_opt, comp_opt)
        assert comp_opt.iter == ref_opt.iter


def test_flat_dicts_beside_wider_gradients():
    rng = np.random.default_rng(2)
    ref_opt, comp_opt = naive.Momentum(), fo.Momentum()
    start = {"W": draw(rng, (5, 4), np.float32), "b": draw(rng, 3, np.float32)}
    ref, comp = {key: p.copy() for key, p in start.items()}, fo.flatten(start)
    for kind in "f4", "f8", "f8", "f4", "f8":
        grads = fo.flatten({key: draw(rng, p.shape, kind) for key, p in start.items()}, kind)
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


class Interruption(BaseException):
    pass


def raising(error):
    def scalars():
        raise error

    return scalars


def assert_unchanged(opt, params, grads, error):
    """A step that fails leaves the objects of the state, and their bits, as they were."""
    objects = {key: (v, v.copy()) for key, v in opt.v.items()}
    before, steps = copy.deepcopy(params), opt.iter
    with pytest.raises(error):
        opt.update(params, grads)
    assert opt.iter == steps
    for key, (v, bits) in objects.items():
        assert opt.v[key] is v
        assert_bits(bits, v, key)
    for key, p in before.items():
        assert_bits(p, params[key], key)


@pytest.mark.parametrize("error", [ValueError("no"), TypeError("no"), Interruption()])
def test_a_step_that_fails_where_the_dtype_would_change(error):
    rng = np.random.default_rng(3)
    ref_opt, opt = naive.Momentum(), fo.Momentum()
    ref, params = ({"w": np.full(5, 0.5, np.float32), "x": np.full(3, 0.5, np.float32)} for _ in range(2))
    narrow, wide = ({"w": draw(rng, 5, kind), "x": draw(rng, 3, np.float32)} for kind in ("f4", "f8"))
    for _ in range(2):
        assert_step(ref_opt, opt, ref, params, narrow, narrow)
    opt.scalars = raising(error)
    assert_unchanged(opt, params, wide, type(error))
    del opt.scalars
    for grads in (narrow, wide, narrow):
        assert_step(ref_opt, opt, ref, params, grads, grads)
    assert opt.v["w"].dtype == np.float64
    assert opt.v["x"].dtype == np.float32


@pytest.mark.parametrize("on_nonfinite", ["raise", "skip"])
def test_a_step_that_is_not_taken_where_the_dtype_would_change(on_nonfinite):
    opt = fo.Momentum(on_nonfinite=on_nonfinite)
    params = {"w": np.ones(5, np.float32)}
    opt.update(params, {"w": np.ones(5, np.float32)})
    wide = {"w": np.array([1, 2, np.nan, 4, 5.0])}
    if on_nonfinite == "raise":
        assert_unchanged(opt, params, wide, FloatingPointError)
    else:
        v, p = opt.v["w"].copy(), params["w"].copy()
        opt.update(params, wide)
        assert_bits(v, opt.v["w"])
        assert_bits(p, params["w"])
        assert (opt.iter, opt.skipped) == (1, 1)


def test_the_first_step_fails_where_the_dtype_would_change():
    opt, params = fo.Momentum(), {"w": np.ones(5, np.float32)}
    opt.scalars = raising(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        opt.update(params, {"w": np.ones(5)})
    assert opt.v is None
    assert opt.iter == 0
    assert_array_equal(params["w"], 1)
    del opt.scalars
    opt.update(params, {"w": np.ones(5)})
    assert opt.v["w"].dtype == np.float64


def test_slots_keep_their_dtype_where_the_rule_rounds_to_it():
    """An augmented assignment rounds to the type of its variable, so only what is assigned anew is wider."""
    for name, dtype in (
        ("Momentum", np.float64),
        ("Nesterov", np.float32),
        ("AdaGrad", np.float32),
        ("Adam", np.float32),
    ):
        opt = getattr(fo, name)()
        for _ in range(2):
            opt.update({"w": np.ones(3, np.float32)}, {"w": np.ones(3)})
        assert {getattr(opt, slot)["w"].dtype for slot in opt.slots} == {np.dtype(dtype)}, name


def test_wider_parameters_move_to_a_checkpoint_of_narrow_ones(tmp_path):
    """State that was saved beside float32 arrays serves float64 ones, as the notes' code would."""
    ref_opt, opt = naive.Momentum(), fo.Momentum()
    rng = np.random.default_rng(4)
    ref, comp = ({"w": np.full(5, 0.5, np.float32)} for _ in range(2))
    for _ in range(2):
        g = {"w": draw(rng, 5, np.float32)}
        assert_step(ref_opt, opt, ref, comp, g, g)
    opt = save_and_load(opt, tmp_path)
    ref, comp = ({"w": values["w"].astype(np.float64)} for values in (ref, comp))
    for kind in "f4", "f8", "f4":
        g = {"w": draw(rng, 5, kind)}
        assert_step(ref_opt, opt, ref, comp, g, g)
