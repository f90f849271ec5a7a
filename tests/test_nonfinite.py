"""Gradients that are NaN or infinite are ignored, raise an error, or skip the step."""

import os
import pickle
import subprocess
import sys
import textwrap
from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
import naive
from naive import assert_step, draw

# Kernels that run as Python emit NumPy's warnings.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")

SHAPE = (7, 5)
BAD_NUMBERS = [np.nan, -np.nan, np.inf, -np.inf]


def arrays(seed, dtype=np.float64, make=dict):
    rng = np.random.default_rng(seed)
    return make({key: draw(rng, SHAPE, dtype) for key in ("W1", "b1", "W2")})


def f_order(a):
    return np.asfortranarray(a)


# One case for each way in which gradients are checked: functions that make parameters and gradients, and a dtype.
WAYS = {
    "flat": (fo.flatten, fo.flatten, np.float64),
    "separate": (dict, dict, np.float64),
    "float32": (dict, dict, np.float32),
    "float16": (dict, dict, np.float16),
    "longdouble": (dict, dict, np.longdouble),
    "Fortran gradients": (dict, lambda grads: {key: np.asfortranarray(g) for key, g in grads.items()}, np.float64),
    "strided parameters": (
        lambda params: {key: np.repeat(p, 2, 1)[:, ::2] for key, p in params.items()},
        dict,
        np.float32,
    ),
    "two dtypes": (lambda params: params | {"W2": params["W2"].astype(np.float32)}, None, np.float64),
    "overlapping": (lambda params: params | {"b1": params["W1"][::-1]}, dict, np.float64),
}


RULES_AND_WAYS = [
    (name, way)
    for k, name in enumerate(naive.RULES)
    for n, way in enumerate(WAYS)
    if way in ("flat", "separate") or (k + n) % 3 == 0
]
"""Gradients are checked without the rule: so each way has two rules or three, for which kernels are compiled."""


def make_pair(way, dtype=None):
    make_params, make_grads, dtype = WAYS[way]
    params = make_params(arrays(0, dtype))

    def grads_of(seed):
        grads = arrays(seed, dtype)
        return make_grads(grads) if make_grads else {k: g.astype(params[k].dtype) for k, g in grads.items()}

    return params, grads_of


def state_of(opt, params):
    state = {slot: getattr(opt, slot) for slot in opt.slots}
    return (
        opt.iter,
        {slot: None if a is None else {k: v.tobytes() for k, v in a.items()} for slot, a in state.items()},
        [(key, id(p), p.tobytes()) for key, p in params.items()],
    )


@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize(("name", "way"), RULES_AND_WAYS)
def test_raise_and_skip_write_nothing(name, way, steps):
    case = len(way) + len(name) + steps
    key, number = ("W1", "W2")[case % 2], BAD_NUMBERS[case // 2 % 4]
    for choice in "raise", "skip":
        opt = getattr(fo, name)(on_nonfinite=choice)
        params, grads_of = make_pair(way)
        for seed in range(steps):
            opt.update(params, grads_of(seed))
        grads = grads_of(9)
        grads[key][-1, -1] = number
        before = state_of(opt, params)
        if choice == "raise":
            with pytest.raises(FloatingPointError, match=f"gradients of '{key}'$"):
                opt.update(params, grads)
        else:
            opt.update(params, grads)
        assert state_of(opt, params) == before
        assert opt.skipped == (choice == "skip")
        # Later updates with good gradients equal those of an optimizer that made no bad one.
        other = getattr(fo, name)()
        other_params, other_grads_of = make_pair(way)
        for seed in (*range(steps), 3, 4):
            other.update(other_params, other_grads_of(seed))
        for seed in 3, 4:
            opt.update(params, grads_of(seed))
        for name_of, p in other_params.items():
            assert_array_equal(params[name_of], p)
        assert opt.iter == steps + 2


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize("position", [0, 1, 63, 64, 999, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_non_finite_number_is_found_at_any_position(dtype, position, number):
    opt, params = fo.SGD(on_nonfinite="raise"), fo.flatten({"a": np.zeros(1000, dtype), "b": np.zeros(37, dtype)})
    opt.update(params, params)
    grads = fo.flatten({"a": np.full(1000, np.finfo(dtype).max), "b": np.full(37, -np.finfo(dtype).max)}, dtype)
    with fo.num_threads(1):
        opt.update(params, grads)
    grads.flat[position] = number
    with pytest.raises(FloatingPointError, match="'b'" if position == -1 else "'a'"):
        opt.update(params, grads)


def test_largest_and_smallest_numbers_are_finite():
    for dtype in np.float32, np.float64:
        info = np.finfo(dtype)
        g = np.array([info.max, info.min, info.tiny, info.smallest_subnormal, 0.0, -0.0], dtype)
        opt, params = fo.SGD(lr=0.0, on_nonfinite="raise"), {"w": np.ones(6, dtype)}
        for _ in range(3):
            opt.update(params, {"w": g})
        assert opt.iter == 3


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_ignore_gives_the_results_of_the_notes(pair, number):
    ref_opt, comp_opt = pair()
    ref, comp = arrays(0), arrays(0)
    for step in range(3):
        grads = arrays(step + 1)
        if step:
            grads["b1"][2, 2] = number
        with np.errstate(all="ignore"):
            ref_opt.update(ref, grads)
        comp_opt.update(comp, grads)
        for key, p in ref.items():
            assert_array_equal(comp[key], p)
    assert comp_opt.skipped == 0


def test_raise_and_skip_with_python_floats():
    params = {"x": 1.0, "y": 2.0}
    opt = fo.Adam(on_nonfinite="skip")
    opt.update(params, {"x": np.inf, "y": 1.0})
    assert (params, opt.iter, opt.skipped, opt.m) == ({"x": 1.0, "y": 2.0}, 0, 1, None)
    opt.on_nonfinite = "raise"
    with pytest.raises(FloatingPointError, match="'y'"):
        opt.update(params, {"x": 1.0, "y": float("nan")})


def test_error_names_all_keys():
    opt, params = fo.SGD(on_nonfinite="raise"), arrays(0)
    grads = arrays(1)
    opt.update(params, grads)
    for key in "W1", "W2":
        grads[key][0, 0] = np.nan
    with pytest.raises(FloatingPointError, match=r"gradients of 'W1', 'W2'$"):
        opt.update(params, grads)


def test_gradients_are_checked_before_the_first_key_is_updated():
    """The update of the first parameter changes the gradient of the second, which is checked before that."""
    w = np.ones(4)
    for choice, steps in (("raise", 1), ("ignore", 1)):
        opt = fo.SGD(lr=1.0, on_nonfinite=choice)
        opt.update({"a": w, "b": np.ones(4)}, {"a": np.ones(4), "b": w})
        assert opt.iter == steps
    opt = fo.SGD(lr=1.0, on_nonfinite="skip")
    b = np.full(4, np.inf)
    opt.update({"a": w, "c": np.ones(4)}, {"a": np.ones(4), "c": b})
    assert_array_equal(w, -1)
    assert opt.skipped == 1


def test_on_nonfinite_may_change_and_is_checked(pair):
    ref_opt, comp_opt = pair()
    ref, comp, grads = arrays(0), arrays(0), arrays(1)
    for choice in ("ignore", "raise", "skip", "ignore"):
        comp_opt.on_nonfinite = choice
        assert comp_opt.on_nonfinite == choice
        for _ in range(2):
            assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
        if choice != "ignore":
            bad = {key: np.full_like(g, np.nan) for key, g in grads.items()}
            with pytest.raises(FloatingPointError) if choice == "raise" else pytest.MonkeyPatch.context():
                comp_opt.update(comp, bad)
    assert comp_opt.skipped == 1
    for wrong in ("Raise", None, True, np.ones(2)):
        with pytest.raises(ValueError, match="on_nonfinite must be one of 'ignore', 'raise', 'skip', not"):
            comp_opt.on_nonfinite = wrong
    with pytest.raises(ValueError, match="on_nonfinite"):
        type(comp_opt)(on_nonfinite="warn")
    assert comp_opt.on_nonfinite == "ignore"


def test_custom_rule_has_on_nonfinite():
    class Custom(fo.Optimizer):
        def __init__(self):
            self.lr = 1.0

        def scalars(self):
            return (self.lr,)

        @staticmethod
        def rule(p, g, lr):
            return p - lr * g

    opt, params = Custom(), {"w": np.ones(3)}
    assert opt.on_nonfinite == "ignore"
    opt.on_nonfinite = "skip"
    for g in (np.nan, 1.0):
        opt.update(params, {"w": np.full(3, g)})
    assert (opt.iter, opt.skipped) == (1, 1)
    for copy in (deepcopy(opt), pickle.loads(pickle.dumps(fo.Adam(on_nonfinite="skip")))):
        assert copy.on_nonfinite == "skip"


@pytest.mark.parametrize("parts", [1, 3])
def test_large_gradients_are_checked_once_and_in_parallel(parts, launches):
    size, seen = 40_000 if parts > 1 else 100, launches
    params, opt = {"w": np.zeros(size, np.float32)}, fo.SGD(on_nonfinite="raise")
    grads = {"w": np.ones(size, np.float32)}
    with fo.num_threads(parts):
        opt.update(params, grads)
        seen.clear()
        opt.update(params, grads)
    assert seen == [(size, parts > 1)] * 2
    grads["w"][-1] = np.nan
    seen.clear()
    with fo.num_threads(parts), pytest.raises(FloatingPointError):
        opt.update(params, grads)
    assert seen == [(size, parts > 1)]
    grads["w"][-1] = 1
    opt.update(params, grads)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_search_is_vectorized(dtype, tmp_path):
    source = f"""
        import sys
        import numpy as np
        from fastoptim.kernels.finite import finite
        sys.stdout.write(finite(np.{dtype})._library.get_asm_str())
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(source)]
    assembly = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout
    packed = ("subps", "fsub.4s", "fsub v") if dtype == "float32" else ("subpd", "fsub.2d", "fsub v")
    assert any(name in assembly.replace("\t", " ") for name in packed)


@pytest.mark.parametrize("choice", ["raise", "skip"])
def test_shape_that_does_not_fit_the_state_is_not_skipped(choice):
    opt = fo.Momentum(on_nonfinite=choice)
    opt.update({"w": np.ones(3)}, {"w": np.ones(3)})
    with pytest.raises(ValueError, match=r"'w' has shape \(4,\), expected \(3,\)"):
        opt.update({"w": np.ones(4)}, {"w": np.full(4, np.nan)})
    assert opt.skipped == 0


def test_on_nonfinite_as_class_attribute_is_an_error():
    with pytest.raises(TypeError, match="pass it to __init__"):
        type("Careful", (fo.SGD,), {"on_nonfinite": "skip"})
