"""State, parameters and gradients that are stored as bfloat16: conversions, all rules, checkpoints, errors."""

import copy
import pickle
import sys
import weakref
from itertools import pairwise

import numpy as np
import pytest

import fastoptim as fo
import script
from fastoptim import dtypes
from fastoptim.family import FAMILY
from fastoptim.kernels.bfloat16 import BFLOAT16, RANDOM_BFLOAT16
from fastoptim.kernels.fuse import fuse
from fastoptim.kernels.jit import DISABLED
from fastoptim.kernels.table import DICE, STOP, P
from fastoptim.update import segments
from naive import assert_bits, draw

ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 is a dtype of ml_dtypes")
pytestmark = pytest.mark.skipif(DISABLED, reason="only kernels compute with bfloat16")

BF = np.dtype(ml_dtypes.bfloat16)
F32 = np.float32
SHAPES = {"W": (40, 30), "empty": (0, 3), "b": (30,), "s": ()}
BOTH = ["bfloat16", "bfloat16-stochastic"]
WHOLE = {"Muon", "Adafactor"}
"""The optimizers that update some arrays as a whole."""
ELEMENTWISE = sorted(FAMILY.keys() - WHOLE)
RULES = ["SGD", "Momentum", "Rprop", "LAMB", "Adan", "ScheduleFreeAdamW", "Prodigy"]
"""Without state, with one slot, two, one of them not zero at first, and four; with norms; with copies of parameters."""
COPIES = {"z", "p0"}
"""Slots that begin as copies of the parameters."""


def numbers(seed, dtype=F32):
    rng = np.random.default_rng(seed)
    return {key: np.array(rng.standard_normal(shape), F32).astype(dtype) for key, shape in SHAPES.items()}


def run(opt, params, first=0, steps=4, dtype=F32, wrap=dict):
    for n in range(first, first + steps):
        opt.update(params, wrap(numbers(n, dtype)))
    return params


def states(opt):
    """Return all arrays of the state, also those of transforms, by slot and key."""
    return {(slot, key): array for slot, arrays in (opt._state or {}).items() for key, array in arrays.items()}


def assert_same(one, other, params, others):
    for key in params:
        assert_bits(params[key], others[key], key)
    assert states(one).keys() == states(other).keys()
    for key, array in states(one).items():
        assert_bits(array, states(other)[key], key)


def rounded(array):
    with np.errstate(all="ignore"):
        return array.astype(BF)


# Conversions.


def call(rule, kinds, arrays, dice=()):
    """Run a rule without scalars over arrays of the same size, of these kinds."""
    row, words = np.zeros(P + len(arrays), np.intp), np.array(dice, np.intp)
    row[STOP], row[DICE], row[P:] = arrays[0].size, words.ctypes.data, [array.ctypes.data for array in arrays]
    fuse(rule, kinds).ctypes(row.ctypes.data, 0, arrays[0].size)


def store_gradient(p, g, m):  # noqa: ARG001
    return p, g


def load_state(p, g, m):  # noqa: ARG001
    return m, m


def stored(values, kind=BFLOAT16, key=0):
    """Return the bits of float32 numbers that a kernel stored."""
    m = np.zeros(values.size, np.uint16)
    call(store_gradient, (F32, F32, kind), [np.zeros_like(values), values, m], (m.ctypes.data, key))
    return m


def test_all_patterns_are_loaded_exactly():
    bits = np.arange(1 << 16).astype(np.uint16)
    p, m = np.zeros(bits.size, F32), bits.copy()
    call(load_state, (F32, F32, BFLOAT16), [p, p.copy(), m])
    expected = bits.view(BF).astype(F32)
    assert_bits(expected.view(np.uint32), p.view(np.uint32))
    is_nan = np.isnan(expected)
    assert_bits(bits[~is_nan], m[~is_nan])
    # A NaN that signals is made quiet, and keeps its sign and its other bits.
    assert_bits(bits[is_nan] | 0x40, m[is_nan])


def edges():
    """All bfloat16 numbers, what lies just above and below them, ties and what is next to these, and random bits."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    further = np.random.default_rng(0).integers(0, 1 << 32, 200_000, np.uint32)
    return np.concatenate([(upper | low) for low in lower] + [further]).view(F32)


def test_nearest_is_that_of_ml_dtypes():
    values = edges()
    expected, found = rounded(values), stored(values).view(BF)
    is_nan = np.isnan(values)
    assert_bits(expected[~is_nan].view(np.uint16), found[~is_nan].view(np.uint16))
    assert np.isnan(found[is_nan]).all()
    assert_bits(np.signbit(values[is_nan]), np.signbit(found[is_nan]))
    # The largest float32 is beyond the largest bfloat16.
    assert np.isinf(stored(np.array([np.finfo(F32).max], F32)).view(BF)).all()


def test_random_rounding_gives_a_neighbour():
    values = edges()
    found, below = stored(values, RANDOM_BFLOAT16, 12345), (values.view(np.uint32) >> 16).astype(np.uint16)
    is_nan, is_exact = np.isnan(values), values.view(np.uint32) & 0xFFFF == 0
    assert np.isnan(found[is_nan].view(BF)).all()
    step = found[~is_nan] - below[~is_nan]
    assert set(np.unique(step)) == {0, 1}
    assert not step[is_exact[~is_nan]].any()


@pytest.mark.parametrize("key", [0, -1, 0x0123456789ABCDEF])
@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 0.9])
def test_random_rounding_has_no_bias(key, share):
    """The number of elements that are rounded up is binomial, also among those whose numbers have a bit in common."""
    n = 1 << 18
    up = stored(np.full(n, 1 + 2**-7 * share, F32), RANDOM_BFLOAT16, key) & 1
    assert abs(up.mean() - share) < 5 * np.sqrt(share / n)
    for bit in range(18):
        some = up[np.arange(n) >> bit & 1 == 1]
        assert abs(some.mean() - share) < 5 * np.sqrt(share / some.size)


def test_the_noise_of_a_key_is_not_that_of_another_one_in_other_order():
    """The first half of a key is combined with the numbers of the elements, the second one with what follows."""
    halfway, numbers_ = np.full(1 << 17, 1 + 2**-8, F32), np.arange(1 << 17)
    one, other = (stored(halfway, RANDOM_BFLOAT16, key) & 1 for key in (0, 5 | 0x12345679 << 32))
    assert abs(np.corrcoef(one[numbers_ ^ 5], other)[0, 1]) < 5 / np.sqrt(one.size)


def noise(opt, n=1 << 17):
    """Return whether each element of m and v was rounded up in a step, in which all of them were halfway."""
    half = np.full(n, 1 + 2**-8, F32)
    opt.update({"w": np.zeros(n, F32)}, {"w": half})
    return [(opt._state[slot]["w"].view(np.uint16) & 1).astype(float) for slot in opt.slots]


class Halfway(fo.Optimizer):
    slots = ("m", "v", "w")

    def scalars(self):
        return ()

    @staticmethod
    def rule(p, g, m, v, w):
        return p, g + 0 * m, g + 0 * v, g + 0 * w


def test_noise_of_slots_steps_seeds_and_neighbours_is_independent():
    opt, other = Halfway(state_dtype=BOTH[1]), Halfway(state_dtype=BOTH[1], state_seed=1)
    columns = [*noise(opt), *noise(opt), *noise(other)]
    columns += [np.roll(columns[0], shift) for shift in (1, 2, 8, 16, 256)]
    together = np.corrcoef(columns) - np.eye(len(columns))
    assert abs(together).max() < 5 / np.sqrt(len(columns[0]))
    assert_bits(np.array(columns[:3]), np.array(noise(Halfway(state_dtype=BOTH[1]))))


def test_a_mean_moves_only_if_it_is_rounded_at_random():
    """A mean of squares changes by less than half of the distance of two bfloat16 numbers."""
    means = {}
    for state_dtype in (None, *BOTH):
        opt, params = fo.RMSprop(decay_rate=0.999, state_dtype=state_dtype), {"w": np.zeros(4096, F32)}
        for _ in range(500):
            opt.update(params, {"w": np.ones(4096, F32)})
        means[state_dtype] = opt.h["w"].astype(float).mean()
    exact = means[None]
    assert abs(means["bfloat16-stochastic"] - exact) < 0.01 * exact
    assert means["bfloat16"] < 0.7 * exact


# Rules.


def stepwise(make, params, steps=4, first=0, grads_dtype=F32):
    """Return an optimizer with float32 state that is rounded after each step, and its parameters."""
    opt, low = make(state_dtype=None), {key: p.dtype for key, p in params.items()}
    wide = {key: np.array(p, F32) for key, p in params.items()}
    initial = {
        slot: value if value == "p" else float(rounded(F32(value))) for slot, value in opt.initial_state().items()
    }
    opt.initial_state = lambda: initial
    kept = COPIES | {"slow", "averaged", "gradient_mean"}
    for n in range(first, first + steps):
        opt.update(wide, {key: np.array(g, F32) for key, g in numbers(n, grads_dtype).items()})
        for slot in opt._state.keys() - kept:
            for array in opt._state[slot].values():
                array[...] = rounded(array)
        for key, p in wide.items():
            p[...] = p.astype(low[key])
    return opt, wide


def assert_rounded(opt, params, ref_opt, ref):
    for key, p in params.items():
        assert_bits(ref[key].astype(p.dtype), p, key)
    assert states(opt).keys() == states(ref_opt).keys()
    for key, array in states(opt).items():
        assert_bits(states(ref_opt)[key].astype(array.dtype), array, key)


class Chosen(Exception):
    """A kernel would be compiled."""


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize(("state_dtype", "kind"), [(BOTH[0], BFLOAT16), (BOTH[1], RANDOM_BFLOAT16)], ids=BOTH)
def test_every_rule_stores_its_state(name, state_dtype, kind, monkeypatch):
    """All of it but copies of parameters. To compile all rules would take a minute; the next test runs some."""

    def fuse_nothing(_rule, kinds, *_, **__):
        raise Chosen(kinds)

    monkeypatch.setattr(segments, "fuse", fuse_nothing)
    opt = getattr(fo, name)(state_dtype=state_dtype)
    with pytest.raises(Chosen) as found:
        run(opt, numbers(99), steps=1)
    assert found.value.args == ((F32, F32, *(F32 if slot in COPIES else kind for slot in opt.slots)),)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("flat", [False, True])
def test_rules_round_their_state_after_each_step(name, flat):
    make = getattr(fo, name)
    opt, params = make(state_dtype="bfloat16"), numbers(99)
    wrap = fo.flatten if flat else dict
    params = run(opt, wrap(params), wrap=wrap)
    ref_opt, ref = stepwise(make, numbers(99))
    assert_rounded(opt, params, ref_opt, ref)
    for slot in opt.slots:
        expected = F32 if slot in COPIES else BF
        assert {array.dtype for array in getattr(opt, slot).values()} == {np.dtype(expected)}


def test_rules_of_the_notes_in_plain_numpy():
    """Momentum and AdaGrad, written out."""
    rng, lr = np.random.default_rng(0), F32(0.01)
    for make, slot in ((fo.Momentum, "v"), (fo.AdaGrad, "h")):
        opt, p, s = make(state_dtype="bfloat16"), draw(rng, (500,), F32), np.zeros(500, F32)
        params = {"w": p.copy()}
        for _ in range(20):
            g = draw(rng, (500,), F32)
            opt.update(params, {"w": g})
            if slot == "v":
                s = F32(0.9) * s - lr * g
                p = p + s
            else:
                s = s + g * g
                p = p - lr * g / (np.sqrt(s) + F32(1e-7))
            s = rounded(s).astype(F32)
            assert_bits(p, params["w"])
            assert_bits(rounded(s), getattr(opt, slot)["w"])


TRANSFORMS = [
    {"maximize": True, "grad_scale": 0.5, "clip_value": 0.5, "l2": 0.1, "weight_decay": 0.1, "on_nonfinite": "raise"},
    {"clip_norm": 1.0, "cautious": True},
    {"accumulate": 2, "centralize": True},
    {"ema": 0.9, "lookahead": (2, 0.5)},
    {"groups": {"b": {"lr": 0.1}}, "frozen": ["s"]},
]


@pytest.mark.parametrize(
    ("on", "dtype"),
    [*((on, F32) for on in TRANSFORMS), *((on, BF) for on in TRANSFORMS if "ema" in on or "cautious" in on)],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else np.dtype(value).name,
)
def test_transforms(on, dtype):
    def make(**options):
        return fo.Adam(lr=0.01, **on, **options)

    opt, params = make(state_dtype="bfloat16"), numbers(99, dtype)
    run(opt, params, dtype=dtype)
    ref_opt, ref = stepwise(make, numbers(99, dtype), grads_dtype=dtype)
    assert_rounded(opt, params, ref_opt, ref)


def test_several_transforms_with_random_rounding():
    """Calls that only collect gradients change no state of the rule."""
    opt = fo.Adam(state_dtype=BOTH[1], accumulate=2, cautious=True, clip_norm=1.0)
    params = run(opt, numbers(99), steps=2)
    before = {key: array.copy() for key, array in states(opt).items() if key[0] in opt.slots}
    run(opt, params, first=2, steps=1)
    for key, array in before.items():
        assert_bits(array, states(opt)[key], key)
    assert states(opt)["gradient_mean", "W"].dtype == F32


@pytest.mark.parametrize(
    ("name", "grads_dtype"), [("SGD", BF), ("Adam", F32), ("Adam", BF), ("LAMB", BF), ("ScheduleFreeAdamW", BF)]
)
def test_parameters_of_bfloat16(name, grads_dtype):
    """State has the dtype of its parameters, unless it is a copy of them; arithmetic is float32."""
    make = getattr(fo, name)
    opt, params = make(lr=0.1), run(make(lr=0.1), numbers(99, BF), steps=0)
    run(opt, params, dtype=grads_dtype)
    ref_opt, ref = stepwise(lambda **_: make(lr=0.1), numbers(99, BF), grads_dtype=grads_dtype)
    assert_rounded(opt, params, ref_opt, ref)
    assert params["W"].dtype == BF


def test_gradients_of_bfloat16_alone():
    opt, ref = fo.Adam(), fo.Adam()
    params, others = run(opt, numbers(99), dtype=BF), numbers(99)
    for n in range(4):
        ref.update(others, {key: g.astype(F32) for key, g in numbers(n, BF).items()})
    assert_same(opt, ref, params, others)
    assert opt.m["W"].dtype == F32


@pytest.mark.parametrize("state_dtype", BOTH)
def test_nonfinite_numbers_spread(state_dtype):
    opt, params = fo.Adam(state_dtype=state_dtype), {"w": np.zeros(3, F32)}
    opt.update(params, {"w": np.array([np.nan, np.inf, 1.0], F32)})
    assert np.isnan(opt.m["w"][0])
    assert np.isinf(opt.m["w"][1])
    assert_bits(np.isfinite(params["w"]), np.array([False, False, True]))
    with pytest.raises(FloatingPointError, match="'w'"):
        fo.Adam(on_nonfinite="raise").update({"w": np.zeros(2, BF)}, {"w": np.array([1, np.nan], BF)})


# Memory, threads, steps.


LARGE = 300_007


@pytest.mark.parametrize("state_dtype", BOTH)
def test_bits_do_not_depend_on_threads_and_flatness(state_dtype):
    results = []
    shapes = [(LARGE // 11, 11), (7,), (), (LARGE,)]
    for threads in (1, 2, 3, 7):
        for wrap in (dict, fo.flatten):
            rng = np.random.default_rng(5)
            opt, params = fo.Adam(state_dtype=state_dtype), wrap({k: draw(rng, s, F32) for k, s in enumerate(shapes)})
            with fo.num_threads(threads):
                for _ in range(2):
                    opt.update(params, wrap({k: draw(rng, s, F32) for k, s in enumerate(shapes)}))
            results.append((opt, params))
    for opt, params in results[1:]:
        assert_same(*(pair[0] for pair in (results[0], (opt, params))), results[0][1], params)


@pytest.mark.parametrize("state_dtype", BOTH)
def test_any_chunks_give_the_same_bits(state_dtype):
    kind = BFLOAT16 if state_dtype == "bfloat16" else RANDOM_BFLOAT16
    kernel = fuse(fo.Momentum.rule, (F32, F32, kind))
    outcomes = []
    for cuts in ([], [1], [64, 65], [7, 100, 101, 500], range(1, 1000)):
        rng = np.random.default_rng(0)
        p, g, v = draw(rng, (1000,), F32), draw(rng, (1000,), F32), np.zeros(1000, np.uint16)
        row, numbers_, words = np.zeros(P + 3, np.intp), np.array([0.01, 0.9]), np.array([v.ctypes.data, 99], np.intp)
        row[STOP], row[DICE] = 1000, words.ctypes.data
        row[P:] = [array.ctypes.data for array in (p, g, v)]
        row[3] = numbers_.ctypes.data
        ends = [0, *cuts, 1000]
        for start, stop in reversed([*pairwise(ends)]):
            kernel.ctypes(row.ctypes.data, start, stop)
        outcomes.append((p, v))
    for p, v in outcomes:
        assert_bits(outcomes[0][0], p)
        assert_bits(outcomes[0][1], v)


@pytest.mark.parametrize(("state_dtype", "dtype"), [(BOTH[0], F32), (BOTH[1], BF)])
def test_strided_arrays_have_the_bits_of_others(state_dtype, dtype):
    layouts = [
        np.ascontiguousarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    ]
    results = []
    for p_layout in layouts:
        for g_layout in layouts:
            rng, opt = np.random.default_rng(1), fo.Adam(state_dtype=state_dtype)
            params = {"w": p_layout(draw(rng, (37, 41), F32).astype(dtype))}
            for _ in range(3):
                opt.update(params, {"w": g_layout(draw(rng, (37, 41), F32).astype(dtype))})
            results.append((opt, params))
    for opt, params in results:
        assert_same(results[0][0], opt, results[0][1], params)


@pytest.mark.parametrize("state_dtype", BOTH)
def test_touched_rows_have_the_bits_of_dense_gradients(state_dtype):
    """Momentum of touched rows equals that of a dense step where the gradient is not zero."""
    table, rows = draw(np.random.default_rng(0), (50, 7), F32), np.array([3, 49, 0, 17])
    values = draw(np.random.default_rng(1), (4, 7), F32)
    dense = np.zeros_like(table)
    dense[rows] = values
    opt, ref = (fo.AdaGrad(state_dtype=state_dtype) for _ in range(2))
    params, others = {"t": table.copy()}, {"t": table.copy()}
    for _ in range(3):
        opt.update(params, {"t": fo.Rows(rows, values)})
        ref.update(others, {"t": dense})
    assert_same(opt, ref, params, others)


def test_state_dtype_may_change_between_steps():
    opt, params = fo.Adam(), numbers(99)
    run(opt, params)
    m = opt.m["W"].copy()
    opt.state_dtype = "bfloat16"
    assert opt.m["W"].dtype == F32
    ref, others = copy.deepcopy((opt, params))
    ref.state_dtype = None
    for slot in ref.slots:
        for array in ref._state[slot].values():
            array[...] = rounded(array)
    run(opt, params, first=4, steps=1)
    run(ref, others, first=4, steps=1)
    assert_bits(others["W"], params["W"])
    assert_bits(rounded(ref.m["W"]), opt.m["W"])
    opt.state_dtype = None
    run(opt, params, first=5, steps=1)
    assert opt.m["W"].dtype == F32
    assert m.dtype == F32


def test_a_failed_step_leaves_state_as_it_was():
    class Failing(fo.Momentum):
        def scalars(self):
            if self.state_dtype:
                raise RuntimeError
            return super().scalars()

    opt, params = Failing(), numbers(99)
    run(opt, params)
    before = copy.deepcopy((states(opt), params))
    opt.state_dtype = "bfloat16"
    with pytest.raises(RuntimeError):
        run(opt, params, steps=1)
    assert opt.iter == 4
    for key, array in before[0].items():
        assert_bits(array, states(opt)[key], key)
    assert_bits(before[1]["W"], params["W"])


def test_state_may_be_assigned():
    opt = fo.Momentum(state_dtype="bfloat16")
    opt.v = {"w": np.array([1.0, 1.00390625], F32)}
    opt.update({"w": np.zeros(2, F32)}, {"w": np.zeros(2, F32)})
    assert_bits(rounded(F32(0.9) * np.array([1, 1], F32)), opt.v["w"])
    opt.v["w"] = np.array([2.0, 3.0], F32)
    assert_bits(np.array([2, 3], BF), opt.v["w"])
    opt = fo.Momentum(state_dtype="bfloat16")
    opt.v = {"w": np.ones(2, BF)}
    opt.update({"w": np.zeros(2, F32)}, {"w": np.zeros(2, F32)})
    assert_bits(rounded(np.full(2, 0.9, F32)), opt.v["w"])


def test_plans_are_reused_and_keep_no_arrays_alive(compiled):
    opt, params, grads = fo.Adam(state_dtype=BOTH[1]), numbers(99), numbers(0)
    opt.update(params, grads)
    plan = opt._plan
    compiled.clear()
    for _ in range(3):
        opt.update(params, numbers(1))
    assert opt._plan is plan
    assert not compiled
    gone = weakref.ref(grads["W"])
    del grads
    assert gone() is None


@pytest.mark.parametrize("state_dtype", [None, *BOTH])
def test_a_sweep_has_the_bits_of_separate_runs(state_dtype):
    start, rates = {"w": np.ones((3, 2), F32)}, [0.01, 0.1]

    def gradient(p):
        return {"w": p["w"] * F32(2)}

    result = fo.sweep(lambda **hyper: fo.Adam(state_dtype=state_dtype, **hyper), start, {"lr": rates}, gradient, 4)
    for k, lr in enumerate(rates):
        opt, params = fo.Adam(lr=lr, state_dtype=state_dtype), copy.deepcopy(start)
        for _ in range(4):
            opt.update(params, gradient(params))
        assert_bits(params["w"], result.params["w"][k])


# Copies and checkpoints.


@pytest.mark.parametrize("state_dtype", BOTH)
@pytest.mark.parametrize(
    "way", [copy.copy, copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair)), "file", "dict"]
)
def test_a_resumed_run_has_the_bits_of_the_uninterrupted_one(state_dtype, way, tmp_path):
    opt, params = fo.Adam(state_dtype=state_dtype, state_seed=7), numbers(99)
    run(opt, params, steps=3)
    if way == "file":
        opt.save(tmp_path / "a.safetensors", params)
        others = numbers(0)
        resumed = fo.load(tmp_path / "a.safetensors", others)
    elif way == "dict":
        resumed, others = fo.Adam(), numbers(0)
        resumed.load_state_dict(opt.state_dict(params), others)
    elif way is copy.copy:
        resumed, others = copy.deepcopy(opt), copy.deepcopy(params)
        resumed = copy.copy(resumed)
    else:
        resumed, others = way((opt, params))
    assert resumed.m["W"].dtype == BF
    assert (resumed.state_dtype, resumed.state_seed) == (state_dtype, 7)
    run(opt, params, first=3)
    run(resumed, others, first=3)
    assert_same(opt, resumed, params, others)


def test_parameters_of_bfloat16_are_saved(tmp_path):
    opt, params = fo.Adam(), numbers(99, BF)
    params["W"] = np.asfortranarray(params["W"])
    run(opt, params, dtype=BF)
    opt.save(tmp_path / "a.safetensors", params)
    others = numbers(0, BF)
    resumed = fo.load(tmp_path / "a.safetensors", others)
    assert_same(opt, resumed, params, others)
    with pytest.raises(ValueError, match="dtype bfloat16"):
        fo.Adam().load(tmp_path / "a.safetensors", numbers(0))


def test_other_readers_find_bf16(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    opt, params = fo.Momentum(state_dtype="bfloat16"), numbers(99)
    run(opt, params)
    opt.save(tmp_path / "a.safetensors", params)
    tensors = dict(safetensors.deserialize((tmp_path / "a.safetensors").read_bytes()))
    found = tensors['state.v["W"]']
    assert (found["dtype"], tuple(found["shape"])) == ("BF16", SHAPES["W"])
    assert bytes(found["data"]) == opt.v["W"].tobytes()


def test_repr_shows_it():
    assert "state_dtype='bfloat16-stochastic', state_seed=3" in repr(fo.SGD(state_dtype=BOTH[1], state_seed=3))
    assert "state_" not in repr(fo.SGD(state_seed=0))


# Errors.


@pytest.fixture
def without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    dtypes.bfloat16.cache_clear()
    yield
    dtypes.bfloat16.cache_clear()


@pytest.mark.usefixtures("without_ml_dtypes")
def test_without_ml_dtypes():
    with pytest.raises(ImportError, match="pip install ml_dtypes"):
        fo.Adam(state_dtype="bfloat16")
    opt = fo.Adam()
    run(opt, numbers(99), steps=1)


def test_a_file_without_ml_dtypes(tmp_path, request):
    opt = fo.Adam(state_dtype="bfloat16")
    run(opt, numbers(99), steps=1)
    opt.save(tmp_path / "a.safetensors")
    request.getfixturevalue("without_ml_dtypes")
    with pytest.raises(ImportError, match="pip install ml_dtypes"):
        fo.load(tmp_path / "a.safetensors")


def test_the_package_does_not_import_it(tmp_path):
    source = """
        import sys
        import numpy as np
        import fastoptim as fo
        fo.Adam().update({"w": np.ones(3, np.float32)}, {"w": np.ones(3, np.float32)})
        print("ml_dtypes" in sys.modules)
    """
    assert script.run(source, tmp_path) == "False"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"state_dtype": "float8"}, ValueError, "'bfloat16', 'bfloat16-stochastic' or None"),
        ({"state_dtype": BF}, TypeError, "'bfloat16', 'bfloat16-stochastic' or None"),
        ({"state_seed": -1}, ValueError, "state_seed must be an integer >= 0"),
        ({"state_seed": 0.5}, ValueError, "state_seed must be an integer >= 0"),
        ({"groups": {"b": {"state_dtype": "bfloat16"}}}, ValueError, "cannot have 'state_dtype'"),
    ],
)
def test_a_wrong_option_is_an_error(options, error, message):
    with pytest.raises(error, match=message):
        fo.Adam(**options)


ONES = np.ones(3, F32)
SWAPPED = ONES.astype(">f4" if sys.byteorder == "little" else "<f4")


@pytest.mark.parametrize(
    ("p", "g", "message"),
    [
        (np.ones(3), np.ones(3), "parameter 'w' is of dtype float64, expected float32 or bfloat16"),
        (np.ones(3, np.float16), ONES, "parameter 'w' is of dtype float16, expected float32 or bfloat16"),
        (ONES.copy(), np.ones(3), "the gradient of 'w' is of dtype float64, expected float32 or bfloat16"),
        (ONES.copy(), np.ones(3, int), "the gradient of 'w' is of dtype int"),
        (F32(1), 1.0, "the gradient of 'w' is of dtype float64"),
        (1.0, 1.0, "parameter 'w' is of dtype float64"),
        (SWAPPED, ONES, "parameter 'w' is of dtype .f4"),
        (np.broadcast_to(ONES[:1], 3).copy(), None, "memory overlaps"),
    ],
    ids=["p64", "p16", "g64", "integers", "number", "numbers", "swapped", "aliased"],
)
def test_what_bfloat16_does_not_take(p, g, message):
    opt = fo.Momentum(state_dtype="bfloat16")
    params = {"first": ONES.copy(), "w": p}
    grads = {"first": ONES.copy(), "w": p if g is None else g}
    with pytest.raises(TypeError, match=message):
        opt.update(params, grads)
    assert (opt.iter, opt.v) == (0, None)
    assert_bits(ONES, params["first"])


def test_bfloat16_beside_float64_is_an_error():
    with pytest.raises(TypeError, match="parameter 'w' is of dtype float64, expected float32 or bfloat16 beside"):
        fo.SGD().update({"w": np.ones(3)}, {"w": np.ones(3, BF)})
    with pytest.raises(TypeError, match="the gradient of 'w' is of dtype float64"):
        fo.SGD().update({"w": np.ones(3, BF)}, {"w": np.ones(3)})


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_whole_arrays_are_an_error(name):
    opt, params = getattr(fo, name)(state_dtype="bfloat16"), numbers(99)
    with pytest.raises(TypeError, match="'W' is updated as a whole"):
        run(opt, params)
    assert_bits(numbers(99)["W"], params["W"])
    with pytest.raises(TypeError, match="expected float32"):
        run(getattr(fo, name)(), numbers(99, BF))


def test_a_wrong_rule_is_an_error():
    class Wrong(fo.Optimizer):
        slots = ("m",)

        def scalars(self):
            return ()

        @staticmethod
        def rule(p, g, m):  # noqa: ARG004
            return p

    with pytest.raises(TypeError, match="returns 1 value, expected 2"):
        Wrong(state_dtype="bfloat16").update({"w": ONES.copy()}, {"w": ONES})
