"""A plan is made once for arrays of some forms; the next updates bind new arrays to it and build nothing."""

import gc
import sys
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
import naive
from counting import WAYS, Count, assert_steps, ones, strided
from fastoptim.kernels.jit import HAS_FLOAT16
from fastoptim.parameters import FlatDict
from fastoptim.update.plan import Plan
from naive import assert_bits, assert_step, draw

SWAPPED = np.dtype(">f8")
INTEGERS = [f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)]


@pytest.fixture
def plans(monkeypatch):
    """A list with an item for each plan that is made during the test."""
    made = []
    build = Plan.__init__

    def watched(self, *args, **kwargs):
        made.append(self)
        build(self, *args, **kwargs)

    monkeypatch.setattr(Plan, "__init__", watched)
    return made


def case(make, dtypes=None, layout=np.array):
    """A function that makes parameters, and one that makes their gradients: ones of some dtypes and one layout."""

    def gradients(params):
        grads = ones(params, dtypes)
        if isinstance(params, FlatDict):
            return fo.flatten(grads)
        return {key: layout(g) if isinstance(params[key], np.ndarray) else float(g) for key, g in grads.items()}

    return make, gradients


def every_other(a):
    return np.repeat(a, 2, axis=-1)[..., ::2]


def unaligned(a):
    view = np.frombuffer(bytearray(a.nbytes + 1), a.dtype, offset=1).reshape(a.shape)
    view[...] = a
    return view


def views():
    """Parameters that overlap as far as their bounds tell, so that they are updated one after the other."""
    whole = np.zeros((4, 6))
    return {"a": whole[:, :3], "b": whole[:, 3:], "c": np.zeros(3)}


def everything():
    params = {"f4 f8": np.zeros((3, 4), "f4"), "f8 f4": np.zeros((3, 4)), "f2": np.zeros(5, "f2")}
    params |= {f"f4 {g}": np.zeros(5, "f4") for g in INTEGERS}
    params |= {"strided": strided(), "F": np.zeros((3, 4), order="F"), "float": 0.0, "float32": np.float32(0)}
    return params | views() | {"0-d": np.zeros(()), "empty": np.zeros((3, 0))}


def of_dtypes(p, g):
    return case(lambda: {"a": np.zeros(7, p), "b": np.zeros((2, 3), p)}, {"a": g, "b": g})


CASES = {name: case(*way) for name, way in WAYS.items()}
CASES |= {f"{p} and {g}": of_dtypes(p, g) for p in ("f4", "f8") for g in ("f4", "f8", *INTEGERS) if p != g}
CASES |= {
    "strided": case(lambda: {"a": strided()}),
    "one strided among others": case(lambda: {"a": np.zeros(3), "b": strided(), "c": np.zeros((2, 2))}),
    "strided and mixed": case(lambda: {"a": strided(np.float32)}, {"a": "f8"}),
    "strided gradients": case(lambda: {"a": np.zeros((3, 4)), "b": np.zeros(5)}, layout=every_other),
    "F-ordered gradients": case(lambda: {"a": np.zeros((3, 4)), "b": np.zeros((2, 3, 4))}, layout=np.asfortranarray),
    "backwards": case(lambda: {"a": np.zeros((3, 4))[::-1, ::-1]}, layout=lambda g: np.flip(np.flip(g).copy())),
    "unaligned": case(lambda: {"a": unaligned(np.zeros((3, 4)))}, layout=unaligned),
    "overlapping views": case(views),
    "float16": of_dtypes("f2", "f2"),
    "longdouble": of_dtypes("g", "g"),
    # NumPy makes a new dtype object each time that it is asked for ">f8", and a plan is for one of them.
    "byte-swapped": of_dtypes(SWAPPED, SWAPPED),
    "Python floats": case(lambda: {"a": 0.0, "b": 0.0}),
    "NumPy scalars": case(lambda: {"a": np.float64(0), "b": np.float32(0)}),
    "empty arrays": case(lambda: {"a": np.zeros(0), "b": np.zeros((3, 0))}),
    "everything": case(everything, {key: key.split()[1] for key in everything() if " " in key}),
}
# The arrays of the others overlap, or belong to a buffer.
MOVABLE = [name for name in CASES if name not in ("flat", "overlapping", "overlapping views", "everything")]


@pytest.mark.parametrize("on_nonfinite", ["ignore", "raise"])
@pytest.mark.parametrize("name", CASES)
def test_the_second_step_builds_no_plan(plans, name, on_nonfinite):
    make, gradients = CASES[name]
    opt, params = Count(on_nonfinite=on_nonfinite), make()
    for step in range(1, 5):
        opt.update(params, gradients(params))
        assert_steps(opt, params, step)
    assert len(plans) == 1


@pytest.mark.parametrize("name", CASES)
def test_state_that_gets_another_dtype_takes_one_plan_more(plans, name):
    make, gradients = CASES[name]
    opt, params = fo.Momentum(), make()
    opt.update(params, gradients(params))
    grown = any(v.dtype != np.asarray(params[key]).dtype for key, v in opt.v.items())
    for _ in range(3):
        opt.update(params, gradients(params))
    assert len(plans) == 1 + grown


@pytest.mark.parametrize("name", MOVABLE)
def test_arrays_rebound_at_each_step_build_no_plan(plans, name):
    make, gradients = CASES[name]
    opt, params, old = Count(), make(), []
    for step in range(1, 5):
        opt.update(params, gradients(params))
        assert_steps(opt, params, step)
        old.append(dict(params))
        fresh = make()
        for key, p in fresh.items():
            fresh[key] = type(p)(params[key]) if not isinstance(p, np.ndarray) else p
            if isinstance(p, np.ndarray):
                p[...] = params[key]
        params = dict(fresh)
    assert len(plans) == 1
    for step, params in enumerate(old, 1):
        for p in params.values():
            assert_array_equal(p, -step, err_msg="an array of an earlier step was written to")


LAYOUTS = [np.array, np.asfortranarray, every_other, np.flip, lambda a: a.astype(np.float32), lambda a: a[::-1]]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("on_nonfinite", ["ignore", "skip"])
def test_up_to_four_dicts_in_turn_build_one_plan_each(plans, count, on_nonfinite):
    opt = Count(on_nonfinite=on_nonfinite)
    dicts = [{"a": layout(np.zeros((3, 4))), "b": np.zeros(5)} for layout in LAYOUTS[:count]]
    for step in range(1, 6):
        for params in dicts:
            opt.update(params, ones(params, None))
            assert_array_equal(params["a"], -step)
        assert_array_equal(opt.n["a"], step * count)
        assert len(plans) == count


def test_dicts_of_other_keys_and_shapes_in_turn(plans):
    opt = fo.SGD(lr=1.0)
    dicts = [{"a": np.zeros(k), f"b{k}": strided()} for k in range(4)]
    order = np.random.default_rng(0).permutation(4 * list(range(4)))
    for k in [*range(4), *order]:
        opt.update(dicts[k], ones(dicts[k], None))
    assert len(plans) == 4
    for params in dicts:
        for p in params.values():
            assert_array_equal(p, -5)


def test_a_fifth_dict_takes_the_place_of_the_one_used_longest_ago(plans):
    opt = Count()
    dicts = [{"a": layout(np.zeros((3, 4)))} for layout in LAYOUTS[:5]]
    for k, expected in (0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (4, 5), (0, 5), (2, 5), (3, 5), (4, 5), (1, 6), (0, 7):
        opt.update(dicts[k], ones(dicts[k], None))
        assert len(plans) == expected, k
    assert_array_equal(opt.n["a"], 12)
    assert len(opt._plans) == 4


def test_plans_of_a_state_that_was_replaced_are_dropped(plans):
    opt, params = Count(), {"a": np.zeros(3), "b": strided()}
    opt.update(params, ones(params, None))
    old = weakref.ref(opt.n["a"])
    opt.n = None
    opt.update(params, ones(params, None))
    assert len(plans) == 2
    del plans[:]
    gc.collect()
    assert old() is None
    assert_array_equal(opt.n["b"], 1)
    assert_array_equal(params["b"], -2)


# No plan keeps an array alive.


@pytest.mark.parametrize("name", CASES)
def test_a_plan_keeps_no_arrays_alive(name):
    make, gradients = CASES[name]
    opt, params = Count(), make()
    for _ in range(3):
        grads = gradients(params)
        opt.update(params, grads)
    arrays = [a for values in (params, grads) for a in values.values() if isinstance(a, np.ndarray)]
    references = [weakref.ref(a) for a in arrays]
    # One by the list, one by the dict, one by the argument.
    counts = [sys.getrefcount(arrays[k]) for k in range(len(arrays))]
    assert set(counts) <= {3}
    del arrays, params, grads
    gc.collect()
    assert [reference() for reference in references if reference() is not None] == []


@pytest.mark.parametrize("kind", [np.float64, np.float16, float])
@pytest.mark.parametrize("on_nonfinite", ["raise", "skip"])
def test_a_step_that_is_not_taken_keeps_no_arrays_alive(kind, on_nonfinite):
    opt = fo.SGD(on_nonfinite=on_nonfinite)
    params, grads = {"a": np.ones(3), "b": 1.0}, {"a": np.ones(3), "b": 1.0}
    if kind is not float:
        params["b"], grads["b"] = np.ones(3, kind), np.ones(3, kind)
    opt.update(params, grads)
    params["a"] = np.ones(3)
    grads["a"][1] = np.nan
    references = [weakref.ref(values[key]) for values in (params, grads) for key in ("a", "b")[: 2 - (kind is float)]]
    with pytest.raises(FloatingPointError) if on_nonfinite == "raise" else nullcontext():
        opt.update(params, grads)
    assert opt.iter == 1
    del params, grads
    gc.collect()
    assert [reference() for reference in references if reference() is not None] == []


# What does not fit a plan is noticed.


KINDS = {
    "plain": (np.array, np.float64, np.float64),
    "float32": (np.array, np.float32, np.float32),
    "mixed": (np.array, np.float32, np.float64),
    "strided": (every_other, np.float64, np.float64),
    "strided and mixed": (every_other, np.float64, np.float32),
    "float16": (np.array, np.float16, np.float16),
}


def two_views(whole, layout, first, second):
    """Two parameters of five elements within one array, strided if the layout makes strided ones."""
    step = 1 if layout is np.array else 2
    return whole[step * first :: step][:5], whole[step * second :: step][:5]


OVERLAPS = {
    "the same array": lambda whole, layout, _: two_views(whole, layout, 0, 0),
    "shifted": lambda whole, layout, _: two_views(whole, layout, 0, 2),
    "shifted back": lambda whole, layout, _: two_views(whole, layout, 3, 1),
    "touching, not overlapping": lambda whole, layout, _: two_views(whole, layout, 5, 0),
    "own state": lambda whole, layout, state: (state[0], two_views(whole, layout, 0, 0)[0]),
    "state of the other": lambda whole, layout, state: (state[1], two_views(whole, layout, 0, 0)[0]),
    "state exchanged": lambda _whole, _layout, state: (state[1], state[0]),
}


@pytest.mark.parametrize("name", ["Momentum", "Adam", "RMSprop"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_rebound_parameters_that_overlap(name, kind, overlap):
    layout, p_type, g_type = KINDS[kind]
    rng = np.random.default_rng(0)
    params = {key: abs(draw(rng, 5, p_type)) for key in "ab"}
    grads = {key: abs(draw(rng, 5, g_type)) for key in "ab"}
    # Small steps, because the root of a negative number is NaN, whose sign is the processor's choice.
    ref_opt, comp_opt = getattr(naive, name)(lr=1e-6), getattr(fo, name)(lr=1e-6)
    ref, comp = ({key: layout(p) for key, p in params.items()} for _ in range(2))
    for _ in range(2):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    whole = abs(draw(rng, 24, p_type))
    slot = comp_opt.slots[-1]
    for opt, values in (ref_opt, ref), (comp_opt, comp):
        state = [getattr(opt, slot)[key] for key in "ab"]
        values["a"], values["b"] = OVERLAPS[overlap](whole.copy(), layout, state)
    for _ in range(3):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    # And back: the arrays lie apart again.
    for values in ref, comp:
        values |= {key: layout(p) for key, p in params.items()}
    for _ in range(2):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


ALIASES = {
    "its parameter": lambda params, _: params["a"],
    "its parameter, reversed": lambda params, _: params["a"][::-1],
    "the other parameter": lambda params, _: params["b"],
    "its state": lambda _, state: state["a"],
    "the state of the other": lambda _, state: state["b"],
}


@pytest.mark.parametrize("name", ["Momentum", "Adam", "RMSprop"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alias", ALIASES)
def test_a_gradient_that_begins_to_overlap_what_is_written(name, kind, alias):
    layout, p_type, g_type = KINDS[kind]
    rng = np.random.default_rng(1)
    params = {key: abs(draw(rng, 5, p_type)) for key in "ab"}
    grads = {key: abs(draw(rng, 5, g_type)) for key in "ab"}
    ref_opt, comp_opt = getattr(naive, name)(lr=1e-6), getattr(fo, name)(lr=1e-6)
    ref, comp = ({key: layout(p) for key, p in params.items()} for _ in range(2))
    for _ in range(2):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    slot = comp_opt.slots[-1]
    pairs = (ref_opt, ref), (comp_opt, comp)
    ref_grads, comp_grads = (grads | {"a": ALIASES[alias](params, getattr(opt, slot))} for opt, params in pairs)
    for _ in range(2):
        assert_step(ref_opt, comp_opt, ref, comp, ref_grads, comp_grads)
    for _ in range(2):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


@pytest.mark.parametrize("layout", [np.array, every_other])
@pytest.mark.parametrize("moves", ["never", "a step before", "in the same step"])
def test_a_gradient_that_begins_one_element_before_its_parameter(layout, moves):
    """It has the form that the plan expects, so only its address tells."""
    rng = np.random.default_rng(2)
    ref_opt, comp_opt = naive.Momentum(lr=0.5), fo.Momentum(lr=0.5)
    wholes = [layout(np.arange(1.0, 40)) for _ in range(2)]
    grads = {"a": layout(draw(rng, 38))}
    ref, comp = ({"a": whole[1:]} for whole in wholes)
    for _ in range(2):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    old = wholes
    if moves != "never":
        wholes = [layout(whole) for whole in old]
        ref["a"], comp["a"] = (whole[1:] for whole in wholes)
    if moves == "a step before":
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    ref_grads, comp_grads = ({"a": whole[:-1]} for whole in wholes)
    for _ in range(2):
        assert_step(ref_opt, comp_opt, ref, comp, ref_grads, comp_grads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["a", "b"])
def test_a_rebound_parameter_that_is_read_only(plans, kind, key):
    layout, p_type, g_type = KINDS[kind]
    opt = Count()
    params = {name: layout(np.zeros(5, p_type)) for name in "ab"}
    grads = {name: np.ones(5, g_type) for name in "ab"}
    for _ in range(2):
        opt.update(params, grads)
    frozen = params[key].copy() if layout is np.array else every_other(params[key])
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=f"parameter '{key}' is read-only"):
        opt.update(params | {key: frozen}, grads)
    assert_steps(opt, params, 2)
    assert_array_equal(frozen, -2)
    built = len(plans)
    opt.update(params, grads)
    assert_steps(opt, params, 3)
    assert len(plans) == built


class Subclass(np.ndarray):
    pass


OTHERS = {
    "subclass": lambda a: a.copy().view(Subclass),
    "masked array": np.ma.array,
    "Python float": lambda _: 1.0,
    "NumPy scalar": lambda _: np.float64(1),
    "list": lambda a: a.tolist(),
    "None": lambda _: None,
    "other width": lambda a: a.astype(np.float32 if a.dtype == np.float64 else np.float64),
    "float16": lambda a: a.astype(np.float16),
    "integers of the same width": lambda a: a.astype(f"i{a.itemsize}"),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "complex": lambda a: a.astype(complex),
    "shorter": lambda a: a[:-1].copy(),
    "transposed": lambda a: a.T.copy(),
    "one axis more": lambda a: a[np.newaxis].copy(),
    "one axis less": np.ravel,
    "no axes": lambda a: a[0, 0].copy() if a.ndim else a,
    "F-ordered": np.asfortranarray,
    "every other": every_other,
    "reversed": np.flip,
    "broadcast": lambda a: np.broadcast_to(a[0, 0], a.shape),
    "empty": lambda a: a[:0].copy(),
    "unaligned": unaligned,
}
FORMS = {
    "plain": np.array,
    "float32": lambda a: a.astype(np.float32),
    "strided": every_other,
    "unaligned": unaligned,
    "mixed": lambda a: a.astype(np.float32),
    "float16": lambda a: a.astype(np.float16),
}


UNALIGNED = {"strided", "unaligned"} | (set() if HAS_FLOAT16 else {"float16"})
"""Forms of which unaligned arrays are taken as well: strided kernels do, and so does the fallback."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("side", ["params", "grads"])
def test_a_plan_binds_to_nothing_of_another_form(form, other, side):
    opt = fo.SGD(lr=1.0)
    arrays = {"params": {"a": np.zeros(2), "b": FORMS[form](np.zeros((3, 4)))}}
    arrays["grads"] = {"a": np.ones(2), "b": (np.array if form == "mixed" else FORMS[form])(np.ones((3, 4)))}
    opt.update(**arrays)
    plan = opt._plan
    assert plan.bind(**arrays) is not None
    before = arrays[side]["b"]
    changed = OTHERS[other](before)
    if not isinstance(before, type(changed)) or type(changed) is not np.ndarray:
        same = False
    else:
        same = (changed.dtype, changed.shape, changed.strides) == (before.dtype, before.shape, before.strides)
        same &= changed.flags.aligned or form in UNALIGNED
    arrays[side] = arrays[side] | {"b": changed}
    assert (plan.rebind(**arrays, may_move=True) is not None) == same


def test_the_stride_of_an_axis_of_one_element_has_no_meaning(plans):
    opt, memory = Count(), np.zeros(100)
    for number, step in enumerate((8, 40, 0, -8), 1):
        params = {"a": np.lib.stride_tricks.as_strided(memory[number * 10 :], (1, 5), (step, 8))}
        opt.update(params, ones(params, None))
        assert_array_equal(params["a"], -1)
    assert len(plans) == 1
    assert np.count_nonzero(memory) == 20


CONTAINERS = {
    "other order": lambda p: dict(reversed(p.items())),
    "one key more": lambda p: {**p, "c": np.zeros(2)},
    "one key less": lambda p: {"a": p["a"]},
    "other keys": lambda p: {"a": p["a"], "c": p["b"]},
    "list": lambda p: list(p.values()),
    "array": lambda p: p["b"],
    "string": lambda _: "ab",
    "flat": fo.flatten,
}


@pytest.mark.parametrize("number", [np.float64, np.float32, float])
def test_a_gradient_of_a_number_that_is_an_array(number):
    """It may change its dtype, lie within a parameter, and be refused."""
    ref_opt, opt = naive.Momentum(), fo.Momentum()
    ref, comp = ({"w": np.ones(3), "x": number(1)} for _ in range(2))
    for kind in "f8", "f4", "g", "f8":
        grads = {"w": np.ones(3), "x": np.array(0.7, kind)}
        assert_step(ref_opt, opt, ref, comp, grads, grads)
    for _ in range(2):
        ref_grads, comp_grads = ({"w": np.ones(3), "x": values["w"][1, ...]} for values in (ref, comp))
        assert_step(ref_opt, opt, ref, comp, ref_grads, comp_grads)
    for bad, error in (np.ones(3), ValueError), (np.array(1j), TypeError), (np.array(True), TypeError):
        with pytest.raises(error, match="gradient of 'x'"):
            opt.update(comp, {"w": np.ones(3), "x": bad})


@pytest.mark.parametrize("other", [np.float64, np.float32, np.array])
@pytest.mark.parametrize("side", [0, 1], ids=["parameter", "gradient"])
def test_floats_of_which_one_becomes_another_number(other, side):
    ref_opt, opt = naive.SGD(), fo.SGD()
    ref, comp = ({"x": 1.0, "y": 2.3} for _ in range(2))
    for kind in float, other, float:
        grads = {"x": 0.7, "y": 3.7}
        for pair in (ref, grads), (comp, grads):
            pair[side]["y"] = kind(pair[side]["y"])
        assert_step(ref_opt, opt, ref, comp, grads, grads)
        assert [type(p) for p in comp.values()] == [type(p) for p in ref.values()]
    (comp, grads)[side]["y"] = None
    with pytest.raises(TypeError, match="'y' is of type NoneType"):
        opt.update(comp, grads)


@pytest.mark.parametrize("name", ["Momentum", "Nesterov", "Adam"])
@pytest.mark.parametrize("key", ["gradient of an array", "gradient of a number", "parameter"])
def test_arrays_that_are_the_state_of_a_number(name, key):
    ref_opt, comp_opt = getattr(naive, name)(lr=1e-6), getattr(fo, name)(lr=1e-6)
    ref, comp = ({"x": 1.0, "y": 2.0, "w": np.ones(())} for _ in range(2))
    grads = {"x": 0.7, "y": 0.3, "w": np.array(0.2)}
    for _ in range(2):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    pairs = []
    for opt, values in (ref_opt, ref), (comp_opt, comp):
        state = getattr(opt, opt.slots[-1])["x"]
        if key == "parameter":
            values["w"] = state
        pairs.append(grads | {"gradient of an array": {"w": state}, "gradient of a number": {"y": state}}.get(key, {}))
    for _ in range(3):
        assert_step(ref_opt, comp_opt, ref, comp, *pairs)


@pytest.mark.parametrize("container", CONTAINERS)
def test_other_containers(container):
    opt = fo.SGD(lr=1.0)
    params, grads = ({"a": np.full((2, 2), x), "b": np.full((2, 2), x)} for x in (0.0, 1.0))
    opt.update(params, grads)
    plan = opt._plan
    fits = container == "other order"
    assert (plan.bind(CONTAINERS[container](params), grads) is not None) == fits
    assert (plan.bind(params, CONTAINERS[container](grads)) is not None) == (fits or container == "one key more")


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("dtype", [np.float64, np.longdouble])
def test_the_order_of_keys_counts_where_arrays_overlap(name, dtype):
    """Each parameter must see what those before it wrote, also if a kept plan has another order."""
    rng = np.random.default_rng(0)
    start, g = rng.random((2, 3)), rng.random(3)
    results = []
    for opt in getattr(naive, name)(), getattr(fo, name)():
        params = {key: a.astype(dtype) for key, a in zip("ab", start, strict=True)}
        grads = {"a": g.astype(dtype), "b": params["a"]}
        for _ in range(2):
            for order in "ab", "ab", "ba", "ba":
                opt.update({key: params[key] for key in order}, grads)
        results.append(np.stack(list(params.values())))
    assert_bits(*results)


@pytest.mark.parametrize("others", [{}, {"c": 3.0}], ids=["alone", "beside another"])
def test_a_kept_plan_asks_for_frozen_parameters_too(others):
    """A parameter in the place of one that is frozen is not frozen."""
    opt = fo.SGD(lr=1.0, frozen=("a",))
    params, grads = ({key: np.full(2, value) for key, value in {"a": 1.0, **others}.items()} for _ in range(2))
    opt.update(params, grads)
    params["b"] = grads["b"] = params.pop("a")
    with pytest.raises(ValueError, match="'a'"):
        opt.update(params, grads)
    opt.frozen = ()
    opt.update(params, {**grads, "b": np.full(2, 1.0)})
    assert_bits(np.zeros(2), params["b"])
