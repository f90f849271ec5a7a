"""Updates equal the oracle's for every kind of value that a dict of parameters may hold."""

from itertools import product

import numpy as np
import pytest

import fastoptim as fo
import naive
from naive import assert_bits, assert_step, draw, keys

LARGE = 300_007


def every_other(a):
    """Return a view with a stride of two elements along every axis."""
    wide = np.full([2 * n for n in a.shape], 7, a.dtype)
    view = wide[(*[slice(None, None, 2)] * a.ndim, ...)]
    view[...] = a
    return view


def inner_columns(a):
    """Return some columns of a wider array: contiguous rows with gaps between them."""
    wide = np.full((*a.shape[:-1], a.shape[-1] + 3), 7, a.dtype)
    wide[..., 1:-2] = a
    return wide[..., 1:-2]


def unaligned(a):
    """Return an array that is misaligned by one byte."""
    view = np.frombuffer(bytearray(a.nbytes + 1), a.dtype, offset=1).reshape(a.shape)
    view[...] = a
    return view


LAYOUTS = {
    "contiguous": lambda a: a,
    "Fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1),
    "strided": every_other,
    "unaligned": unaligned,
    "reversed": lambda a: np.flip(np.ascontiguousarray(np.flip(a))),
    "reversed rows": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "columns": inner_columns,
}
DTYPES = np.float16, np.float32, np.float64


def layouts(d, shape, dtype=np.float64):
    pairs = {f"{p} -= {g}": (p, g) for p in LAYOUTS for g in LAYOUTS}
    return tuple({key: LAYOUTS[pair[side]](d(shape, dtype)) for key, pair in pairs.items()} for side in (0, 1))


def dtypes(d, shape, gradients):
    pairs = {f"{np.dtype(p)} -= {np.dtype(g)}": (p, g) for p in DTYPES for g in gradients}
    return tuple({key: d(shape, pair[side]) for key, pair in pairs.items()} for side in (0, 1))


def like(d, *types):
    """Return scalars of these types, one pair for a parameter and its gradient."""
    return tuple({f"{i}": kind[side](float(d())) for i, kind in enumerate(types)} for side in (0, 1))


def integers(d):
    # Each pair of dtypes is a kernel to be compiled, so each kind of integer has one.
    kinds = {"f4": ["i1", "i2", "u4", "i8"], "f8": ["u1", "i4", "u8"]}
    params = {f"{p} -= {g}": d((3, 4), p) for p in kinds for g in kinds[p]}
    # At most 10, so that g*g does not wrap around in eight bits.
    return params, {key: (abs if "u" in key else np.positive)(5 * d((3, 4))).astype(key[-2:]) for key in params}


# Each function makes parameters and gradients with `d(shape=(), dtype=float64)`, which draws numbers.
VALUES = {
    "layouts": lambda d: layouts(d, (4, 6)),
    "layouts in 3-D": lambda d: layouts(d, (3, 2, 5)),
    "layouts in 1-D": lambda d: layouts(d, (9,)),
    "partly transposed": lambda d: (
        {"a": d((2, 3, 4, 5)).transpose(0, 2, 1, 3), "b": d((2, 3, 4)).transpose(1, 2, 0)},
        {"a": d((2, 4, 3, 5)), "b": d((3, 4, 2))},
    ),
    "large and strided": lambda d: (
        {"a": d((2, LARGE)).T, "b": d((LARGE,))[::-1], "c": d((LARGE,), np.float32)[::2]},
        {"a": d((LARGE, 2)), "b": d((LARGE,)), "c": d((LARGE,), np.float32)[::2]},
    ),
    "0-d arrays": lambda d: ({"x": d(), "y": d((), "f4"), "z": d((3,))}, {"x": d(), "y": d((), "f4"), "z": d((3,))}),
    "0-d arrays, scalar gradients": lambda d: ({"x": d(), "y": d()}, {"x": float(d()), "y": np.float64(d())}),
    # A Python number is weak: with a float32 array the result is float32.
    "0-d arrays of float32, scalar gradients": lambda d: (
        {"x": d((), "f4"), "y": d((), "f4"), "z": d((), "f2")},
        {"x": float(d()), "y": np.float64(d()), "z": float(d())},
    ),
    "empty arrays": lambda d: ({"x": d((0,)), "y": d((3, 0)), "z": d((2,))}, {"x": d((0,)), "y": d((3, 0)), "z": d(2)}),
    "nothing but empty arrays": lambda d: ({"x": d((0,))}, {"x": d((0,))}),
    "no keys": lambda _: ({}, {}),
    "floats": lambda d: like(d, (float, float), (float, float)),
    "floats, other gradients": lambda d: like(
        d, (float, np.float64), (float, np.float32), (float, np.asarray), (float, lambda x: int(3 * x))
    ),
    "NumPy scalars": lambda d: like(d, *[(kind, kind) for kind in (np.float16, np.float32, np.float64)]),
    "NumPy scalars, other gradients": lambda d: like(
        d, (np.float32, np.float64), (np.float64, np.float32), (np.float64, np.asarray), (np.float32, float)
    ),
    "scalars beside arrays": lambda d: ({"x": float(d()), "y": d((4,))}, {"x": float(d()), "y": d((4,))}),
    "float32 beside float64": lambda d: (
        {f"{i}": d((i, 3), DTYPES[1 + i % 2]) for i in range(6)},
        {f"{i}": d((i, 3), DTYPES[1 + i % 2]) for i in range(6)},
    ),
    "gradients of another dtype": lambda d: dtypes(d, (5, 7), DTYPES),
    "one array, gradient of another dtype": lambda d: ({"W": d((33, 5), np.float32)}, {"W": d((33, 5))}),
    "one array, gradient of a smaller dtype": lambda d: ({"W": d((33, 5))}, {"W": d((33, 5), np.float32)}),
    "0-d arrays, gradients of another dtype": lambda d: dtypes(d, (), DTYPES),
    "foreign byte order": lambda d: (
        {"a": d((3,), ">f8"), "b": d((3,), ">f8"), "c": d((3,))},
        {"a": d((3,), ">f8"), "b": d((3,)), "c": d((3,), ">f8")},
    ),
    "longdouble gradients": lambda d: dtypes(d, (4, 2), [np.longdouble]),
    "int gradients": integers,
    "broadcast gradient": lambda d: ({"W": d((3, 4))}, {"W": np.broadcast_to(d((4,)), (3, 4))}),
    "one gradient for two keys": lambda d: (lambda g: ({"a": d((5,)), "b": d((5,))}, {"a": g, "b": g}))(d((5,))),
    "lists": lambda d: ([d((3, 4)), d((4,)), d((0,))], [d((3, 4)), d((4,)), d((0,))]),
    "lists of float32 and scalars": lambda d: ([d((2,), "f4"), float(d())], [d((2,), "f4"), float(d())]),
    "keys of any kind": lambda d: (
        {1: d((2,)), (2, "b"): d((3,)), None: d()},
        {None: d(), 1: d((2,)), (2, "b"): d((3,))},
    ),
}


def two_views(d, first, second):
    """Return two parameters in one buffer, and separate gradients."""
    whole = d((24,))
    return {"a": whole[first], "b": whole[second]}, {"a": d(whole[first].shape), "b": d(whole[second].shape)}


def within(d, params, grads):
    """Return a parameter and its gradient in one buffer."""
    whole = d((LARGE,))
    return {"a": whole[params]}, {"a": whole[grads]}


# Gradients may be parameters here, so they are not drawn anew in each step.
ALIASES = {
    "one array under two keys": lambda d: (lambda w: ({"a": w, "b": w}, {"a": d((3, 4)), "b": d((3, 4))}))(d((3, 4))),
    "overlapping views": lambda d: two_views(d, slice(16), slice(8, 24)),
    "interleaved views": lambda d: two_views(d, slice(0, 24, 2), slice(1, 24, 2)),
    "a view and the same view reversed": lambda d: two_views(d, slice(24), slice(None, None, -1)),
    "touching views in wrong order": lambda d: two_views(d, slice(12, 24), slice(12)),
    "an array and its transpose": lambda d: (lambda w: ({"a": w, "b": w.T}, {"a": d((4, 4)), "b": w + 1}))(d((4, 4))),
    "an array and a strided part of it": lambda d: two_views(d, slice(24), slice(3, 20, 3)),
    "gradients are parameters": lambda d: (lambda p: (p, p))({"a": d((3, 4)), "b": d((5,))}),
    "gradient is the parameter reversed": lambda d: within(d, slice(None), slice(None, None, -1)),
    "gradient lies before": lambda d: within(d, slice(1, None), slice(-1)),
    "gradient lies behind": lambda d: within(d, slice(-1), slice(1, None)),
    "gradient is an earlier parameter": lambda d: (lambda w: ({"a": w, "b": d((5,))}, {"a": d((5,)), "b": w}))(d((5,))),
    "gradient is a later parameter": lambda d: (lambda w: ({"a": d((5,)), "b": w}, {"a": w, "b": d((5,))}))(d((5,))),
    # Other kernels update mixed dtypes and strided arrays, but the keys must still be updated in order.
    "gradient is an earlier parameter of mixed dtype": lambda d: (
        lambda w: ({"a": w, "b": d((5,))}, {"a": d((5,), np.float32), "b": w})
    )(d((5,))),
    "gradient is an earlier strided parameter": lambda d: (lambda w: ({"a": w, "b": d((5,))}, {"a": d((5,)), "b": w}))(
        d((10,))[::2]
    ),
    "gradient is a large earlier parameter": lambda d: (
        lambda w: ({"a": w, "b": d((LARGE,))}, {"a": d((LARGE,)), "b": w})
    )(d((LARGE,))),
    "parameters exchanged": lambda d: (lambda u, v: ({"a": u, "b": v}, {"a": v, "b": u}))(d((5,)), d((5,))),
    "gradient is a broadcast element": lambda d: (lambda w: ({"a": w}, {"a": np.broadcast_to(w[2], 5)}))(d((5,))),
}


def build(case, seed):
    rng = np.random.default_rng(seed)
    return case(lambda shape=(), dtype=np.float64: draw(rng, shape, dtype))


def assert_steps(pair, case):
    """Four steps with fresh gradients."""
    ref_opt, comp_opt = pair()
    ref, comp = (build(case, 0)[0] for _ in range(2))
    for seed in 1, 2, 3, 4:
        ref_grads, comp_grads = (build(case, seed)[1] for _ in range(2))
        assert_step(ref_opt, comp_opt, ref, comp, ref_grads, comp_grads)


@pytest.mark.parametrize("case", VALUES.values(), ids=VALUES)
def test_values_of_every_kind(pair, case):
    assert_steps(pair, case)


@pytest.mark.parametrize("case", ALIASES.values(), ids=ALIASES)
def test_arrays_that_share_memory(pair, case):
    ref_opt, comp_opt = pair()
    (ref, ref_grads), (comp, comp_grads) = (build(case, 0) for _ in range(2))
    for _ in range(4):
        assert_step(ref_opt, comp_opt, ref, comp, ref_grads, comp_grads)


@pytest.mark.parametrize("case", ALIASES.values(), ids=ALIASES)
def test_arrays_that_share_memory_in_some_steps(pair, case):
    """A plan made for separate gradients must not be bound to gradients that overlap parameters."""
    ref_opt, comp_opt = pair()
    (ref, ref_grads), (comp, comp_grads) = (build(case, 0) for _ in range(2))
    for step in range(6):
        apart = {key: draw(np.random.default_rng(step), g.shape, g.dtype) for key, g in ref_grads.items()}
        aliased = step in (2, 4, 5)
        assert_step(ref_opt, comp_opt, ref, comp, ref_grads if aliased else apart, comp_grads if aliased else apart)


def test_flat_dict_as_its_own_gradients(pair):
    """Separate flat dicts are updated as one array; these must be updated key by key, as in the notes."""
    ref_opt, comp_opt = pair()
    case = ALIASES["gradients are parameters"]
    ref, comp = build(case, 0)[0], fo.flatten(build(case, 0)[0])
    for _ in range(3):
        assert_step(ref_opt, comp_opt, ref, comp, ref, comp)


@pytest.mark.parametrize("p_layout", LAYOUTS)
@pytest.mark.parametrize("g_layout", LAYOUTS)
def test_array_of_any_layout(pair, p_layout, g_layout):
    assert_steps(pair, lambda d: ({"W": LAYOUTS[p_layout](d((4, 6)))}, {"W": LAYOUTS[g_layout](d((4, 6)))}))


@pytest.mark.parametrize("key", ["strided", "columns"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gaps_of_a_view_are_not_written(pair, key, dtype):
    _, opt = pair()
    W = LAYOUTS[key](draw(np.random.default_rng(0), (4, 6), dtype))
    before = W.copy()
    opt.update({"W": W}, {"W": draw(np.random.default_rng(1), (4, 6), dtype)})
    assert not np.any(before == W)
    W[...] = 7
    assert np.all(W.base == 7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_array_keeps_its_identity_and_address(pair, layout):
    """References, views and the address of the array show the new values."""
    ref_opt, comp_opt = pair()
    W = LAYOUTS[layout](draw(np.random.default_rng(0), (4, 6)))
    view, address, ref, comp = W[1:], W.ctypes.data, {"W": W.copy()}, {"W": W}
    grads = {"W": draw(np.random.default_rng(1), (4, 6))}
    assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    assert comp["W"] is W
    assert W.ctypes.data == address
    assert_bits(ref["W"][1:], view)


@pytest.mark.parametrize("dtype", DTYPES)
def test_memmap(pair, dtype, tmp_path):
    """The update writes to the file."""
    ref_opt, comp_opt = pair()
    data, path = draw(np.random.default_rng(0), (3, 4), dtype), tmp_path / "W"
    data.tofile(path)
    ref = {"W": data}
    comp = {"W": np.memmap(path, dtype, "r+", shape=(3, 4))}
    for seed in 1, 2:
        grads = {"W": draw(np.random.default_rng(seed), (3, 4), dtype)}
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    comp["W"].flush()
    assert_bits(ref["W"], np.fromfile(path, dtype).reshape(3, 4))


def test_read_only_memmap_as_gradient(pair, tmp_path):
    ref_opt, comp_opt = pair()
    draw(np.random.default_rng(0), (3, 4)).tofile(tmp_path / "g")
    grads = {"W": np.memmap(tmp_path / "g", np.float64, "r", shape=(3, 4))}
    ref, comp = ({"W": draw(np.random.default_rng(1), (3, 4))} for _ in range(2))
    assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_scalars_keep_their_type(pair):
    """This is tested without the oracle, whose types could be wrong too."""
    _, opt = pair()
    params = {"float": 1.5, "float32": np.float32(1.5), "float64": np.float64(1.5), "0-d": np.array(1.5)}
    types = {key: type(value) for key, value in params.items()}
    for _ in range(3):
        opt.update(params, dict.fromkeys(params, 0.25))
        assert {key: type(value) for key, value in params.items()} == types
        assert all(value < 1.5 for value in params.values())


def test_arrays_may_be_rebound_between_calls(pair):
    """After an array is replaced by one of another layout, the next update writes only to the new one."""
    ref_opt, comp_opt = pair()
    ref, comp = ({"W": draw(np.random.default_rng(0), (4, 6)), "b": draw(np.random.default_rng(1), (6,))} for _ in "rc")
    old = []
    for seed, layout in enumerate(LAYOUTS.values()):
        grads = {key: draw(np.random.default_rng(seed), a.shape) for key, a in ref.items()}
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
        for before, a in old:
            assert_bits(before, a, "an array that left the dict")
        old.append((comp["W"].copy(), comp["W"]))
        new = draw(np.random.default_rng(100 + seed), (4, 6))
        ref["W"], comp["W"] = new.copy(), layout(new.copy())


def test_arrays_may_be_assigned_to_a_flat_dict(pair):
    """The dict copies the numbers into its buffer, and the next update starts from them."""
    ref_opt, comp_opt = pair()
    ref = {"W": draw(np.random.default_rng(0), (4, 6)), "b": draw(np.random.default_rng(1), (6,))}
    comp = fo.flatten(ref)
    for seed, layout in enumerate(LAYOUTS.values()):
        grads = {key: draw(np.random.default_rng(seed), a.shape) for key, a in ref.items()}
        assert_step(ref_opt, comp_opt, ref, comp, grads, fo.flatten(grads))
        new = draw(np.random.default_rng(100 + seed), (4, 6))
        ref["W"], comp["W"] = new.copy(), layout(new.copy())
        assert_bits(np.concatenate([ref["W"].ravel(), ref["b"]]), comp.flat)


def test_gradients_may_be_rebound_between_calls(pair):
    """The same dict of gradients holds new arrays, and earlier ones under exchanged keys."""
    ref_opt, comp_opt = pair()
    ref, comp = ({key: draw(np.random.default_rng(0), (4,)) for key in "ab"} for _ in range(2))
    grads = {key: draw(np.random.default_rng(1), (4,)) for key in "ab"}
    for seed in range(6):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
        grads["a"], grads["b"] = grads["b"], draw(np.random.default_rng(seed), (4,), DTYPES[seed % 3])


def test_new_dicts_in_each_step(pair):
    """Memory that is freed and allocated again must not confuse the library."""
    ref_opt, comp_opt = pair()
    ref = comp = {"W": draw(np.random.default_rng(0), (40, 6)), "b": draw(np.random.default_rng(1), (6,))}
    for seed in range(20):
        ref, comp = ({key: a.copy() for key, a in params.items()} for params in (ref, comp))
        grads = {key: draw(np.random.default_rng(seed), a.shape) for key, a in ref.items()}
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_several_dicts_in_turn(pair):
    """State belongs to the optimizer and the key, not to the dict, as in the notes."""
    ref_opt, comp_opt = pair()
    shapes = {"a": (3, 4), "b": (4,), "c": (), "d": (7,)}
    dicts = [list("abcd"), list("abcd"), list("bd"), list("dcba"), list("c"), [], list("abcd")]

    def draw_values(names, seed):
        return {key: draw(np.random.default_rng(seed), shapes[key]) for key in names}

    refs, comps = ([draw_values(names, seed) for seed, names in enumerate(dicts)] for _ in range(2))
    for lap in range(3):
        for i, names in enumerate(dicts):
            grads = draw_values(names, 10 * lap + i)
            assert_step(ref_opt, comp_opt, refs[i], comps[i], grads, grads)
            assert all(set(getattr(comp_opt, slot)) == set("abcd") for slot in ref_opt.slots)


def test_keys_may_be_left_out_and_return(pair):
    ref_opt, comp_opt = pair()
    ref, comp = ({key: draw(np.random.default_rng(0), (3,)) for key in "abc"} for _ in range(2))
    for names in "abc", "ab", "ca", "abc":
        for params in ref, comp:
            missing = {key: draw(np.random.default_rng(1), (3,)) for key in names if key not in params}
            for key in set(params) - set(names):
                del params[key]
            params.update(missing)
        grads = {key: draw(np.random.default_rng(2), (3,)) for key in names}
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_two_optimizers_on_one_dict(pair):
    """Each optimizer has its own state."""
    refs, comps = zip(*(pair(lr=lr) for lr in (0.1, 0.2)), strict=True)
    ref, comp = ({"W": draw(np.random.default_rng(0), (5,))} for _ in range(2))
    for seed in range(6):
        grads = {"W": draw(np.random.default_rng(seed), (5,))}
        assert_step(refs[seed % 2], comps[seed % 2], ref, comp, grads, grads)


@pytest.mark.parametrize("make", [dict, fo.flatten, lambda params: list(params.values())])
def test_state_may_be_assigned(pair, make):
    """State may be changed in place, assigned as a whole, or set to None; the next step starts from it."""
    ref_opt, comp_opt = pair()
    if not ref_opt.slots:
        pytest.skip("SGD has no state.")
    start = {"W": draw(np.random.default_rng(0), (3, 4)), "b": draw(np.random.default_rng(1), (4,))}
    ref, comp = (make({key: a.copy() for key, a in start.items()}) for _ in range(2))
    W, b = keys(ref)

    def fill(a):
        a[...] = 0.5

    def scale(a):
        a *= 2

    changes = {
        "an array in place": lambda opt, slot: fill(getattr(opt, slot)[W]),
        "another in place": lambda opt, slot: scale(getattr(opt, slot)[b]),
        "an array": lambda opt, slot: getattr(opt, slot).update({W: np.full((3, 4), 0.25)}),
        "nothing": lambda opt, slot: setattr(opt, slot, None),
        "all arrays": lambda opt, slot: setattr(opt, slot, {W: np.full((3, 4), 0.5), b: np.full((4,), 0.75)}),
        "an array in place, again": lambda opt, slot: fill(getattr(opt, slot)[W]),
    }
    for seed, change in enumerate([*changes.values(), lambda *_: None]):
        grads = make({key: draw(np.random.default_rng(seed), a.shape) for key, a in start.items()})
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
        # All slots are changed: the notes' code looks at only one of them to see whether there is state.
        for opt, slot in product((ref_opt, comp_opt), ref_opt.slots):
            change(opt, slot)


def test_iter_may_be_assigned():
    """Adam's bias correction is a function of `iter` alone."""
    ref_opt, comp_opt = naive.Adam(), fo.Adam()
    ref, comp = ({"W": draw(np.random.default_rng(0), (5,))} for _ in range(2))
    for start in 0, 10, 0:
        ref_opt.iter = comp_opt.iter = start
        grads = {"W": draw(np.random.default_rng(start), (5,))}
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
        assert comp_opt.iter == start + 1


def test_gradient_is_a_later_parameter_that_the_fallback_updates(pair):
    """The group is updated by the fallback as a whole; the kernel must not update the first array as well."""
    ref_opt, comp_opt = pair()
    ref, comp = ({key: draw(np.random.default_rng(k), (2, 3)) for k, key in enumerate("abc")} for _ in range(2))
    for seed in range(3):
        grads = {key: draw(np.random.default_rng([seed, k]), (2, 3)) for k, key in enumerate("abc")}
        grads["c"] = grads["c"].astype(np.float16)
        assert_step(ref_opt, comp_opt, ref, comp, grads | {"a": ref["c"]}, grads | {"a": comp["c"]})
