"""Row-sparse gradients: the bits of the notes' code on the touched rows, and not a byte beside them written."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastoptim as fo
import naive
from fastoptim import optimizer, threads
from fastoptim.rows import _sorted
from naive import assert_bits, draw
from test_strided import Laid

INDICES = {
    "some": [3, 0, 4],
    "duplicates": [3, 0, 3, 3, 0, 1],
    "none": [],
    "all": [4, 2, 0, 1, 3],
    "one": [2],
    "two axes": [[0, 4], [4, 1]],
}
SHAPES = {"elements": (5,), "rows": (5, 3), "long rows": (5, 1100), "matrices": (5, 2, 3), "no columns": (5, 0)}


def touch(ref, p, gradient, key="E"):
    """The step of the oracle, one row after the other."""
    ref.iter += 1
    sums = {}
    for k in np.ndindex(gradient.indices.shape):
        i, v = int(gradient.indices[k]), gradient.values[k]
        sums[i] = sums[i] + v if i in sums else v
    for i, g in sums.items():
        rows = [getattr(ref, slot)[key][i : i + 1] for slot in ref.slots]
        for row, new in zip(rows, ref.step(p[i : i + 1], np.array(g)[np.newaxis], *rows) or (), strict=False):
            row[...] = new


def start(ref, p, key="E"):
    for slot in ref.slots:
        setattr(ref, slot, {key: np.zeros_like(p)})


def gradients(p, dtype=None, seed=0, indices=INDICES):
    rng = np.random.default_rng(seed)
    for each in indices.values():
        where = np.array(each, int)
        yield fo.Rows(where, draw(rng, where.shape + p.shape[1:], dtype or p.dtype))


def table(shape=(5, 3), dtype=np.float64, seed=1):
    return draw(np.random.default_rng(seed), shape, dtype)


def assert_same(opt, p, ref, expected):
    assert_bits(expected, p, "parameter")
    for slot in ref.slots:
        assert_bits(getattr(ref, slot)["E"], np.array(getattr(opt, slot)["E"], order="C"), slot)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_bits_of_the_notes(pair, shape):
    ref, opt = pair()
    p, expected = table(shape), table(shape)
    start(ref, p)
    for gradient in gradients(p):
        opt.update({"E": p}, {"E": gradient})
        touch(ref, expected, gradient)
        assert_same(opt, p, ref, expected)
    assert opt.iter == len(INDICES)


@pytest.mark.parametrize(
    ("name", "p_dtype", "g_dtype"),
    [("AdaGrad", "f4", "f4"), ("AdaGrad", "f4", "f8"), ("Momentum", "f8", "f4"), ("Momentum", "f4", "f8"),
     ("SGD", "f2", "f2"), ("AdaGrad", "g", "g"), ("AdaGrad", ">f8", ">f8"), ("SGD", "f4", ">f4")],
)  # fmt: skip
def test_dtypes(name, p_dtype, g_dtype):
    ref, opt = getattr(naive, name)(), getattr(fo, name)()
    p, expected = table(dtype=p_dtype), table(dtype=p_dtype)
    start(ref, p)
    if (name, p_dtype, g_dtype) == ("Momentum", "f4", "f8"):
        ref.v["E"] = ref.v["E"].astype("f8")
    for gradient in gradients(p, g_dtype):
        opt.update({"E": p}, {"E": gradient})
        touch(ref, expected, gradient)
        assert_same(opt, p, ref, expected)


LAYOUTS = {
    "every other column": ((0, 1), (1, 2), 0),
    "every other row": ((0, 1), (2, 1), 0),
    "backwards": ((0, 1), (-1, -1), 0),
    "F order": ((1, 0), (1, 1), 0),
    "unaligned": ((0, 1), (1, 1), 3),
}


@pytest.mark.parametrize("name", ["SGD", "AdaGrad"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_of_the_table(name, layout):
    ref, opt = getattr(naive, name)(), getattr(fo, name)()
    laid, expected = Laid(table(), layout), table()
    start(ref, expected)
    for gradient in gradients(expected):
        opt.update({"E": laid.array}, {"E": gradient})
        touch(ref, expected, gradient)
        assert_same(opt, np.array(laid.array), ref, expected)
        laid.assert_gaps_untouched()


def test_tables_of_which_only_the_first_row_is_aligned():
    records = np.zeros(5, [("row", float, 3), ("gap", "i1")])
    p, expected = records["row"], table()
    p[...] = expected
    ref, opt, plans = naive.AdaGrad(), fo.AdaGrad(), []
    start(ref, expected)
    for gradient in gradients(expected):
        opt.update({"E": p}, {"E": gradient})
        touch(ref, expected, gradient)
        assert_same(opt, np.array(p), ref, expected)
        plans.append(opt._plan)
    assert len({*map(id, plans)}) == (1 if plans[0] else len(plans))
    assert not records["gap"].any()


def test_table_whose_rows_overlap():
    p, expected = np.lib.stride_tricks.as_strided(np.ones(7), (5, 3), (8, 8)), np.ones((5, 3))
    ref, opt = naive.AdaGrad(), fo.AdaGrad()
    start(ref, expected)
    gradient = fo.Rows([4, 0], draw(np.random.default_rng(0), (2, 3)))
    opt.update({"E": p}, {"E": gradient})
    touch(ref, expected, gradient)
    assert_bits(expected[[0, 4]], p[[0, 4]])


@pytest.mark.parametrize("order", ["C", "F"])
def test_values_of_any_layout(order):
    """Values are not copied if they lie without gaps; others are."""
    opts, tables = (fo.Adam(), fo.Adam()), (table((5, 2, 3)), table((5, 2, 3)))
    for seed in range(3):
        values = draw(np.random.default_rng(seed), (4, 2, 3))
        for opt, p, v in zip(opts, tables, (values, np.array(values, order=order)[:, ::-1][:, ::-1]), strict=True):
            opt.update({"E": p}, {"E": fo.Rows([1, 0, 4, 2], v)})
    assert_bits(*tables)


def test_order_of_rows_does_not_matter_and_that_of_duplicates_does():
    v = np.array([1e16, 1.0, -1e16, 5.0])
    results = []
    for order in itertools.permutations(range(4)):
        p = np.zeros(3)
        fo.SGD(1.0).update([p], [fo.Rows(np.array([2, 2, 2, 0])[list(order)], v[list(order)])])
        assert p[0] == -5
        results.append(p[2])
        expected = 0.0
        for k in order:
            expected += v[k] if k < 3 else 0
        assert p[2] == -expected
    assert len(set(results)) > 1


def test_many_duplicates():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        indices, p = rng.integers(0, 50, 5000), np.zeros((60, 7), dtype)
        values = rng.standard_normal((5000, 7)).astype(dtype)
        fo.SGD(1.0).update([p], [fo.Rows(indices, values)])
        expected = np.zeros_like(p)
        np.add.at(expected, indices, values)
        assert_bits(0 - expected, p)


def test_sum_of_negative_zeros():
    for indices in ([0], [0, 0]):
        p = np.array([-0.0])
        fo.SGD(1.0).update([p], [fo.Rows(indices, np.full(len(indices), -0.0))])
        assert_bits(np.array([0.0]), p)


def test_positions_do_not_fit_below_the_largest_indices():
    for high in (7, 2**62):
        indices = np.array([high, 5, high, 0, 5], np.intp)
        rows, order = _sorted(indices, high)
        assert rows.tolist() == [0, 5, 5, high, high]
        assert order.tolist() == [3, 1, 4, 0, 2]


@pytest.mark.parametrize("on", [{}, {"clip_norm": 0.5, "cautious": True, "clip_value": 0.7}], ids=["plain", "sums"])
def test_bits_do_not_depend_on_threads(on, monkeypatch, launches):
    monkeypatch.setattr(threads, "_PARALLEL_FROM", 64)
    rng = np.random.default_rng(0)
    grads = [fo.Rows(rng.integers(0, 300, 200), rng.standard_normal((200, 9))) for _ in range(3)]
    results = []
    for parts in (1, 2, 3, 7):
        p, opt = table((300, 9)), fo.Adam(0.1, **on)
        with fo.num_threads(parts):
            for gradient in grads:
                opt.update({"E": p}, {"E": gradient})
        results.append((p, opt.m["E"], opt.v["E"]))
    assert all(is_parallel for _, is_parallel in launches[-6:])
    for one in results[1:]:
        for expected, array in zip(results[0], one, strict=True):
            assert_bits(expected, array)


ELEMENTWISE = {"maximize": True, "grad_scale": 0.5, "clip_value": 0.5, "l2": 0.1, "weight_decay": 0.1}
SUMMED = {"clip_norm": 1.0, "clip_array_norm": 0.5, "cautious": True}


@pytest.mark.parametrize("on", [ELEMENTWISE, SUMMED], ids=["elementwise", "summed"])
@pytest.mark.parametrize("dtype", [np.float64, np.longdouble], ids=["kernel", "fallback"])
def test_transforms_see_the_touched_rows_alone(on, dtype):
    """The reference updates arrays that have only these rows."""
    rng = np.random.default_rng(0)
    rows, p, b = np.array([7, 1, 4]), table((9, 600), dtype), table((40,), dtype)
    few, other = p[rows].copy(), b.copy()
    rest = np.delete(p, rows, axis=0)
    opt, ref = fo.AdamW(0.1, **on), fo.AdamW(0.1, **on)
    for _ in range(3):
        g, h = rng.standard_normal(few.shape).astype(dtype), rng.standard_normal(40).astype(dtype)
        opt.update({"E": p, "b": b}, {"E": fo.Rows(rows, g), "b": h})
        ref.update({"E": few, "b": other}, {"E": g, "b": h})
    if on is ELEMENTWISE:
        assert_bits(few, p[rows])
    else:
        # The blocks of the sums are those of each row.
        assert_allclose(p[rows].astype(float), few.astype(float), rtol=1e-13)
        assert_allclose(b.astype(float), other.astype(float), rtol=1e-13)
    assert_bits(rest, np.delete(p, rows, axis=0))
    assert_bits(np.zeros_like(rest), np.delete(opt.m["E"], rows, axis=0))


def test_number_of_touched_rows_changes():
    p, opt = np.zeros((100, 600)), fo.SGD(1.0, cautious=True, clip_norm=1.0)
    for count in (2, 1, 90):
        before, g = p.copy(), np.zeros((count, 600))
        g[0, 0] = 1
        opt.update([p], [fo.Rows(np.arange(count), g)])
        # One element of those that are touched moves, so its step is as many times as long, but at most a thousand.
        assert_allclose(before[0, 0] - p[0, 0], min(count * 600, 1000), rtol=1e-5)
        assert (p.ravel()[1:] == 0).all()


def test_norm_is_that_of_the_sums():
    p = np.zeros((4, 2))
    fo.SGD(1.0, clip_norm=1.0).update([p], [fo.Rows([1, 3, 1], np.array([[1.0, 0], [0, 4.0], [2.0, 0]]))])
    assert_allclose(p, [[0, 0], [-0.6, 0], [0, 0], [0, -0.8]], rtol=1e-6)


class Double(fo.Optimizer):
    """A custom rule with a transform of its own, which also writes to a slot."""

    slots = ("m", "seen")
    before = (lambda g, seen, factor: (g * factor, seen + 1),)

    def __init__(self, lr=0.1, factor=2.0):
        super().__init__()
        self.lr, self.factor = lr, factor

    def scalars(self):
        return (self.lr,)

    @staticmethod
    def rule(p, g, m, lr):
        m += g
        return p - lr * m, m


def test_custom_rule():
    p, opt = np.ones((4, 2)), Double()
    for _ in range(2):
        opt.update([p], [fo.Rows([2], np.ones((1, 2)))])
    assert_bits(opt.seen[0], np.array([[0.0], [0], [2], [0]]) * np.ones(2))
    assert_bits(opt.m[0], np.array([[0.0], [0], [4], [0]]) * np.ones(2))
    assert_allclose(p, np.array([[1], [1], [0.4], [1]]) * np.ones(2))


class Average(fo.SGD):
    slots = ("mean",)

    def initial_state(self):
        return {"mean": "p"}

    @staticmethod
    def rule(p, g, mean, lr):
        p -= lr * g
        return p, 0.9 * mean + 0.1 * p


@pytest.mark.parametrize(
    ("opt", "what"),
    [(fo.Adam(accumulate=2), "accumulate"), (fo.Adam(centralize=True), "centralize"), (fo.Adam(ema=0.9), "ema"),
     (fo.Adam(lookahead=(2, 0.5)), "lookahead"), (fo.LAMB(), "a rule with a measure"), (Average(), "state 'mean'")],
)  # fmt: skip
def test_what_needs_all_elements_is_an_error(opt, what):
    p = np.ones((4, 2))
    with pytest.raises(TypeError, match=f"the gradient of 'E' is Rows, expected an array: {what} needs all elements"):
        opt.update({"b": np.ones(3), "E": p}, {"E": fo.Rows([0], np.ones((1, 2))), "b": np.ones(3)})
    assert (p == 1).all()
    assert opt.iter == 0


WRONG = {
    "too large": ([0, 5], np.ones((2, 3)), IndexError, "index 5, expected indices from 0 to 4"),
    "negative": ([0, -1], np.ones((2, 3)), IndexError, "index -1, expected indices from 0 to 4"),
    "beyond int64": (np.array([2**64 - 1], np.uint64), np.ones((1, 3)), IndexError, "expected indices from 0 to 4"),
    "longer rows": ([0, 1], np.ones((2, 4)), ValueError, r"shape \(2, 4\), expected \(2, 3\)"),
    "no rows": ([0, 1], np.ones(2), ValueError, r"shape \(2,\), expected \(2, 3\)"),
    "wrong and empty": ([], np.ones((0, 4)), ValueError, r"shape \(0, 4\), expected \(0, 3\)"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_errors_leave_everything_as_it_was(wrong, first):
    indices, values, error, message = wrong
    params, opt = {"b": np.ones(3), "E": table()}, fo.Adam(0.1)
    right = {"b": np.ones(3), "E": fo.Rows([0, 0, 1], np.ones((3, 3)))}
    if not first:
        opt.update(params, right)
        opt.update(params, right)
    before = [a.copy() for a in (*params.values(), *(opt.m or {}).values(), *(opt.v or {}).values())]
    steps = opt.iter
    with pytest.raises(error, match=f"the gradient of 'E' is Rows with .*{message}"):
        opt.update(params, {"b": np.ones(3), "E": fo.Rows(indices, values)})
    assert opt.iter == steps
    assert (opt.m is None) is first
    for expected, array in zip(
        before, (*params.values(), *(opt.m or {}).values(), *(opt.v or {}).values()), strict=True
    ):
        assert_bits(expected, array)
    opt.update(params, right)
    assert opt.iter == steps + 1


@pytest.mark.parametrize("value", [np.array(1.0), 1.0, np.float32(1)], ids=["no axes", "float", "float32"])
def test_parameters_without_rows_are_an_error(value):
    with pytest.raises(ValueError, match="the gradient of 'x' is Rows, but its parameter has no axes"):
        fo.SGD().update({"x": value}, {"x": fo.Rows([0], np.ones(1))})


@pytest.mark.parametrize(
    ("indices", "values", "error", "message"),
    [([0.5], np.ones(1), TypeError, "indices of Rows are of dtype float64, expected integers"),
     ([True], np.ones(1), TypeError, r"np.flatnonzero\(mask\)"),
     (["a"], np.ones(1), TypeError, "expected integers"),
     (np.ma.array([0]), np.ones(1), TypeError, "indices of Rows are a masked array"),
     ([0], [1.0], TypeError, "values of Rows are of type list, expected a NumPy array"),
     ([0], np.ones(1, int), TypeError, "values of Rows are of dtype int64, expected"),
     ([0], np.ones(1, complex), TypeError, "values of Rows are of dtype complex128, expected"),
     ([0], np.ma.array([1.0]), TypeError, "values of Rows are a masked array"),
     ([0, 1], np.ones(3), ValueError, r"have shape \(3,\), expected \(2,\)"),
     ([0, 1], np.array(1.0), ValueError, r"have shape \(\), expected \(2,\)")],
)  # fmt: skip
def test_rows_of_nothing_sensible(indices, values, error, message):
    with pytest.raises(error, match=message):
        fo.Rows(indices, values)


def test_rows_cannot_be_changed_but_show_what_they_are():
    rows = fo.Rows([1], np.ones((1, 2)))
    assert "indices=array([1])" in repr(rows)
    with pytest.raises(AttributeError):
        rows.indices = np.array([2])


@pytest.mark.parametrize("choice", ["raise", "skip"])
def test_values_that_are_not_finite(choice):
    opt = fo.Adam(on_nonfinite=choice)
    params = {"E": table(), "b": np.ones(3)}
    grads = {"b": np.ones(3), "E": fo.Rows([0, 1], np.ones((2, 3)))}
    opt.update(params, grads)
    before = {key: p.copy() for key, p in params.items()}
    for values in (np.array([[1, 1, np.nan], [1, 1, 1]]), np.full((2, 3), 1.7e308)):
        wrong = grads | {"E": fo.Rows([2, 2], values)}
        if choice == "raise":
            with pytest.raises(FloatingPointError, match="in the gradients of 'E'"):
                opt.update(params, wrong)
        else:
            opt.update(params, wrong)
        for key, p in params.items():
            assert_bits(before[key], p, key)
    assert opt.skipped == (2 if choice == "skip" else 0)
    opt.update(params, grads)
    assert opt.iter == 2


@pytest.mark.parametrize("flat", [False, True], ids=["separate", "flat"])
def test_beside_dense_gradients_in_groups_and_frozen(flat):
    def parameters():
        params = {"E": table(), "b": np.ones(4), "F": table(seed=2), "frozen": np.ones((2, 2))}
        return fo.flatten(params) if flat else params

    groups = {"E": {"lr": 0.5}}
    opt = fo.AdaGrad(0.1, groups=groups, frozen=("frozen",))
    params, dense = parameters(), parameters()
    first = {"E": fo.Rows([4, 1], np.ones((2, 3))), "b": np.ones(4), "F": fo.Rows([0, 0], np.ones((2, 3)))}
    opt.update(params, first)
    # AdaGrad leaves elements as they are whose gradient is zero.
    full = {"E": np.zeros((5, 3)), "b": np.ones(4), "F": np.zeros((5, 3))}
    full["E"][[4, 1]] = 1
    full["F"][0] = 2
    ref = fo.AdaGrad(0.1, groups=groups, frozen=("frozen",))
    ref.update(dense, full)
    for key, p in params.items():
        assert_bits(dense[key], p, key)
    # Dense and row-sparse gradients may take turns.
    for _ in range(2):
        opt.update(params, full)
        ref.update(dense, full)
        opt.update(params, first)
        ref.update(dense, full)
    for key, p in params.items():
        assert_bits(dense[key], p, key)


def test_the_plan_is_kept(monkeypatch, compiled):
    made = []
    plan = optimizer.Plan
    monkeypatch.setattr(optimizer, "Plan", lambda *args, **kwargs: made.append(1) or plan(*args, **kwargs))
    opt, params = fo.Adam(), {"E": table(), "b": np.ones(3)}
    dicts = [params]
    # An array of one row may have any stride, which must not be expected of later ones.
    opt.update(params, {"E": fo.Rows([0], np.ones((4, 3))[::4]), "b": np.ones(3)})
    made.clear()
    for gradient in [*gradients(params["E"]), fo.Rows([2], np.ones((2, 3))[1:]), *gradients(params["E"], seed=5)]:
        opt.update(params, {"E": gradient, "b": np.ones(3)})
        # The parameters are other arrays, and all of them stay where they are.
        params = {key: p.copy() for key, p in params.items()}
        dicts.append(params)
        if len(dicts) == 3:
            compiled.clear()
    assert not made
    assert not compiled


def test_tables_of_several_sizes_in_turn():
    opt, tables = fo.SGD(1.0), [np.zeros((5, 3)), np.zeros((50, 3)), np.zeros((5, 4))]
    for k in (0, 1, 2, 0, 1, 2):
        p = tables[k]
        opt.update([p], [fo.Rows([len(p) - 1], np.ones((1, p.shape[1])))])
    for p in tables:
        assert (p[:-1] == 0).all()
        assert (p[-1] == -2).all()
    with pytest.raises(IndexError, match="from 0 to 4"):
        opt.update(tables[:1], [fo.Rows([49], np.ones((1, 3)))])


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_values_that_share_memory_with_what_is_written(name):
    results = []
    for copies in (False, True):
        opt, params = getattr(fo, name)(0.1), {"E": table(), "F": table(seed=2)}
        for _ in range(2):
            opt.update(params, {"E": fo.Rows([0, 3], np.ones((2, 3))), "F": fo.Rows([1], np.ones((1, 3)))})
        own = params["E"][1:4]
        slot = opt.m["F"][:3] if name == "Adam" else params["F"][:3]
        for values in (own, slot):
            values = values.copy() if copies else values
            opt.update(params, {"E": fo.Rows([3, 2, 1], values), "F": fo.Rows([1], np.ones((1, 3)))})
        results.append(params)
    for key in "EF":
        assert_bits(results[1][key], results[0][key], key)


def test_more_values_that_reach_into_the_table():
    results = []
    for copies in (False, True):
        buffer = draw(np.random.default_rng(0), 40)
        values, p = buffer[:12].reshape(4, 3), buffer[9:39].reshape(10, 3)
        opt = fo.SGD(1.0)
        opt.update([p], [fo.Rows([9], values[:1])])
        opt.update([p], [fo.Rows([1, 0, 2, 3], values.copy() if copies else values)])
        results.append(p)
    assert_bits(*results)


def test_error_in_scalars_writes_nothing():
    for dtype in (np.float64, np.longdouble):
        opt, p = Double(), np.ones((4, 2), dtype)
        opt.scalars = None
        with pytest.raises(TypeError):
            opt.update([p], [fo.Rows([1, 1], np.ones((2, 2), dtype))])
        assert (p == 1).all()
        assert opt.iter == 0


def test_resumed_run(tmp_path):
    grads = list(gradients(table()))
    p, opt = table(), fo.Adam(0.1)
    for gradient in grads:
        opt.update({"E": p}, {"E": gradient})
    q, other = table(), fo.Adam(0.1)
    for gradient in grads[:3]:
        other.update({"E": q}, {"E": gradient})
    other.save(tmp_path / "half.safetensors", {"E": q})
    r = {"E": np.zeros_like(q)}
    loaded = fo.load(tmp_path / "half.safetensors", r)
    for gradient in grads[3:]:
        loaded.update(r, {"E": gradient})
    assert_bits(p, r["E"])
    for slot in "mv":
        assert_bits(getattr(opt, slot)["E"], getattr(loaded, slot)["E"])


def test_torch_sparse_adam():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    p = rng.standard_normal((20, 4))
    weight = torch.nn.Parameter(torch.from_numpy(p.copy()))
    peer, opt = torch.optim.SparseAdam([weight], lr=0.1), fo.Adam(0.1, eps=1e-8)
    for _ in range(20):
        indices, values = rng.integers(0, 20, 9), rng.standard_normal((9, 4))
        weight.grad = torch.sparse_coo_tensor(indices[np.newaxis], values, (20, 4), check_invariants=True)
        peer.step()
        opt.update({"E": p}, {"E": fo.Rows(indices, values)})
    assert_allclose(p, weight.detach().numpy(), rtol=1e-12)
