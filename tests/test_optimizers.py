"""Optimizers on arrays give the notes' numbers for any memory layout and any number of threads."""

import inspect
from itertools import pairwise

import numba
import numpy as np
import pytest

import fastoptim as fo
import naive
from naive import assert_bits, assert_state, assert_step, assert_ulps, draw, keys

SHAPES = [(), (0,), (3, 0, 2), (1,), (7,), (1, 1), (33, 5), (4, 3, 5), (2, 1, 3, 2), (257,)]
# Without the compiler an element takes microseconds, and small arrays suffice to test the kernels' text.
STEPS, LARGE = (20, 2_001) if numba.config.DISABLE_JIT else (1_000, 300_007)

PARAMETERS = {
    name: {p.name: p.default for p in inspect.signature(rule).parameters.values()} for name, rule in naive.RULES.items()
}


def arrays(rng, dtype=np.float64, shapes=SHAPES):
    return {f"p{i}": draw(rng, shape, dtype) for i, shape in enumerate(shapes)}


@pytest.mark.parametrize("name", naive.RULES)
def test_signature_attributes_and_state_names(name):
    cls = getattr(fo, name)
    notes = [p for p in inspect.signature(cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    opt = cls()
    # A default of None stands for that of the library which `like` names, at first the notes'.
    given = {p.name: p.default for p in notes if p.default is not None}
    assert given.items() <= PARAMETERS[name].items()
    assert PARAMETERS[name].items() >= {p.name: getattr(opt, p.name) for p in notes}.items()
    assert isinstance(opt, fo.Optimizer)
    assert {key: getattr(opt, key) for key in PARAMETERS[name]} == PARAMETERS[name]
    assert tuple(opt.slots) == naive.RULES[name].slots
    assert all(getattr(opt, slot) is None for slot in opt.slots)
    assert opt.iter == 0

    values = {p.name: 0.5 + i / 10 for i, p in enumerate(notes)}
    assert {key: getattr(cls(*values.values()), key) for key in values} == values


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_state_is_none_then_a_dict_of_arrays(pair, dtype):
    _, opt = pair()
    params = arrays(np.random.default_rng(0), dtype)
    for count in 1, 2, 3:
        assert opt.update(params, arrays(np.random.default_rng(count), dtype)) is None
        assert opt.iter == count
        for slot in opt.slots:
            state = getattr(opt, slot)
            assert isinstance(state, dict)
            assert {key: (a.shape, a.dtype) for key, a in state.items()} == {
                key: (a.shape, a.dtype) for key, a in params.items()
            }


@pytest.mark.parametrize("separate", ["neither", "params", "grads", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_thousand_steps(pair, dtype, separate):
    """Bits are compared only at the end: a difference in step 1 is still there after step 1,000."""
    ref_opt, comp_opt = pair()
    if isinstance(ref_opt, naive.Adam) and dtype is np.float32:
        pytest.skip("float32 Adam is compared step by step below.")
    ref = arrays(np.random.default_rng(1), dtype)
    grads = arrays(np.random.default_rng(2), dtype)
    flat_grads = grads if separate in ("grads", "both") else fo.flatten(grads)
    comp = {key: a.copy() for key, a in ref.items()} if separate in ("params", "both") else fo.flatten(ref)
    pool = [arrays(np.random.default_rng(seed), dtype) for seed in range(20)]
    for step in range(STEPS):
        for key, g in pool[step % 20].items():
            flat_grads[key][...] = grads[key][...] = g
        ref_opt.update(ref, grads)
        comp_opt.update(comp, flat_grads)
    for key in keys(ref):
        assert_bits(ref[key], comp[key], key)
    assert_state(ref_opt, comp_opt)


@pytest.mark.parametrize("start", [1, 0])
def test_float32_adam_step_by_step(start):
    """Each step starts from the oracle's bits; starting from zero measures the step alone.

    From zero there are three more roundings than in the oracle (the cast of lr_t, a product, a quotient). Each is half
    a unit, or a whole one if the result lies at the lower end of its binade: hence 4 and not 2.
    """
    ref_opt, comp_opt = naive.Adam(), fo.Adam()
    ref, comp = (arrays(np.random.default_rng(4), np.float32) for _ in range(2))
    rng = np.random.default_rng(5)
    for _ in range(STEPS // 5):
        grads = arrays(rng, np.float32)
        for key in keys(ref):
            ref[key] *= start
            comp[key] *= start
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads, ulps=2 if start else 4)


def test_float32_adam_stays_near_over_many_steps():
    """Rounding is not biased: 200 steps that are not reset stay within a few units of the oracle."""
    ref_opt, comp_opt = naive.Adam(), fo.Adam()
    ref, comp = ({"w": draw(np.random.default_rng(6), (500,), np.float32)} for _ in range(2))
    start = ref["w"].copy()
    rng = np.random.default_rng(7)
    for _ in range(STEPS // 5):
        grads = {"w": draw(rng, (500,), np.float32)}
        ref_opt.update(ref, grads)
        comp_opt.update(comp, grads)
    assert_ulps(ref["w"], comp["w"], start, 40, "w")
    assert_state(ref_opt, comp_opt)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flatten(dtype):
    params = arrays(np.random.default_rng(8), dtype)
    params["F"] = np.asfortranarray(draw(np.random.default_rng(9), (4, 6), dtype))
    flat = fo.flatten(params)
    assert isinstance(flat, dict)
    assert list(flat) == list(params)
    assert flat.flat.ndim == 1
    assert flat.flat.dtype == dtype
    for key, a in params.items():
        assert_bits(a, flat[key], key)
        assert not np.shares_memory(a, flat[key])
        assert np.shares_memory(flat.flat, flat[key]) == (a.size > 0)
    before = {key: a.copy() for key, a in params.items()}
    flat.flat[:] = 3
    assert all(np.all(a == 3) for a in flat.values())
    for key, a in params.items():
        assert_bits(before[key], a, key)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("flat", [False, True])
def test_any_number_of_threads_gives_the_same_bits(pair, dtype, flat):
    """No number of threads divides these sizes, which are large enough for the parallel kernel."""
    shapes = [(LARGE,), (7,), (LARGE // 11, 3), (), (0,), (5, 5)]
    ref_opt, _ = pair()
    ref = arrays(np.random.default_rng(10), dtype, shapes)
    steps = [arrays(np.random.default_rng(seed), dtype, shapes) for seed in (11, 12, 13)]
    for grads in steps:
        ref_opt.update(ref, grads)

    comps = []
    for threads in 1, 2, 3, 7:
        _, comp_opt = pair()
        comp = arrays(np.random.default_rng(10), dtype, shapes)
        comp = fo.flatten(comp) if flat else comp
        with fo.num_threads(threads):
            for grads in steps:
                comp_opt.update(comp, fo.flatten(grads) if flat else grads)
        assert_state(ref_opt, comp_opt)
        comps.append(comp)

    if not (isinstance(ref_opt, naive.Adam) and dtype is np.float32):
        comps.append(ref)
    for one, other in pairwise(comps):
        for key in one:
            assert_bits(one[key], other[key], key)


def test_number_of_threads_may_change_between_steps(pair):
    ref_opt, comp_opt = pair()
    ref, comp = ({"w": draw(np.random.default_rng(14), (LARGE,))} for _ in range(2))
    for step, threads in enumerate([1, 3, 2, 7]):
        grads = {"w": draw(np.random.default_rng(step), (LARGE,))}
        with fo.num_threads(threads):
            assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2"])
def test_number_of_threads_is_checked(count):
    with pytest.raises((ValueError, TypeError)), fo.num_threads(count):
        pass


def test_hyperparameters_may_change_between_steps(pair):
    ref_opt, comp_opt = pair()
    ref, comp = (arrays(np.random.default_rng(15)) for _ in range(2))
    names = PARAMETERS[type(ref_opt).__name__]
    for step in range(12):
        for opt in ref_opt, comp_opt:
            setattr(opt, list(names)[step % len(names)], 0.3 / (step + 1))
        grads = arrays(np.random.default_rng(step))
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_hyperparameters_of_the_constructor(pair):
    """Products and powers of these numbers are inexact, so a different order of operations changes bits."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        hyper = {key: rng.uniform(0.05, 0.95) for key in PARAMETERS[pair()[0].__class__.__name__]}
        ref_opt, comp_opt = pair(**hyper)
        ref, comp = (arrays(np.random.default_rng(seed)) for _ in range(2))
        for _ in range(3):
            grads = arrays(rng)
            assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_surplus_gradients_are_ignored(pair, dtype):
    """A gradient without a parameter may be of any type."""
    ref_opt, comp_opt = pair()
    ref, comp = (arrays(np.random.default_rng(16), dtype) for _ in range(2))
    for surplus in np.ones(3), None, "text":
        grads = {"surplus": surplus} | arrays(np.random.default_rng(17), dtype)
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
        assert "surplus" not in comp


def test_surplus_gradients_in_a_list_are_ignored(pair):
    """The textbook's second volume loops over the positions of the parameters, and so ignores them."""
    ref_opt, comp_opt = pair()
    ref, comp = (list(arrays(np.random.default_rng(16)).values()) for _ in range(2))
    for seed in 1, 2:
        grads = [*arrays(np.random.default_rng(seed)).values(), np.ones(3)]
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_the_order_of_the_gradients_does_not_matter(pair):
    ref_opt, comp_opt = pair()
    ref, comp = (arrays(np.random.default_rng(18)) for _ in range(2))
    for _ in range(3):
        grads = arrays(np.random.default_rng(19))
        assert_step(ref_opt, comp_opt, ref, comp, grads, dict(reversed(grads.items())))


def test_zeros_and_non_finite_gradients_pass(pair):
    """Non-finite gradients have the effect that they have in the notes: NaN stays NaN in its own element only."""
    ref_opt, comp_opt = pair()
    special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1.0])
    ref, comp = ({"w": np.arange(6.0)} for _ in range(2))
    with np.errstate(all="ignore"):
        for _ in range(3):
            ref_opt.update(ref, {"w": special})
            comp_opt.update(comp, {"w": special})
    # The processor chooses sign and payload of a NaN, so values are compared and not bits.
    np.testing.assert_array_equal(comp["w"], ref["w"], strict=True)
    assert np.isnan(comp["w"]).any()
    assert np.isfinite(comp["w"][[0, 1, 5]]).all()


def test_other_shapes_compile_nothing(pair, compiled):
    """Numba sees the same types for any number of elements, dimensions and arrays."""
    for shapes in [(3,), (4, 5), (2,)], [(), (2, 3, 4), (0,)], [(6,)] * 40:
        for dtype in np.float32, np.float64:
            _, opt = pair()
            params, grads = (arrays(np.random.default_rng(seed), dtype, shapes) for seed in (20, 21))
            opt.update(params, grads)
        if shapes[0] == (3,):
            compiled.clear()
    assert compiled == []
