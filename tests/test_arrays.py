"""Rules of whole arrays: those of matrices, and the mechanism, which a user's class may use as well."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastoptim as fo
from fastoptim.kernels.matrix import orthogonalized
from naive import assert_bits
from test_rules import adafactor

SHAPES = {"W": (30, 20), "V": (3, 50), "b": (20,), "empty": (0, 3), "s": ()}


class RowSteps(fo.Optimizer):
    """A user's rule: matrices step by the mean of each row, whose state is a number a row; others by the gradient."""

    slots = ("m", "rows")

    def __init__(self, lr=0.1, decay=0.5, **options):
        super().__init__(**options)
        self.lr, self.decay = lr, decay

    def scalars(self):
        return (self.lr,)

    @staticmethod
    def rule(p, g, m, rows, lr):
        m = m + g
        return p - lr * m, m, rows

    def array_slots(self, shape):
        return {"m": (0,), "rows": (shape[0], 1)} if len(shape) == 2 else None

    def array_rule(self, p, g, m, rows, lr):
        if np.isnan(g).any():
            raise ValueError("no step")
        rows *= self.decay
        rows += g.mean(axis=1, keepdims=True) if g.size else 0
        p -= lr * rows
        return p, m, rows


def numbers(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {key: rng.standard_normal(shape).astype(dtype) for key, shape in SHAPES.items()}


def run(opt, steps=4, first=0, params=None, flat=False):
    params = params or numbers(99)
    params = fo.flatten(params) if flat else params
    for n in range(first, first + steps):
        opt.update(params, fo.flatten(numbers(n)) if flat else numbers(n))
    return params


def test_a_users_rule_of_whole_arrays_in_groups_and_with_transforms():
    opt = RowSteps(weight_decay=0.1, clip_array_norm=1.0, groups={"V": {"lr": 0.5, "decay": 0.25}}, frozen=("s",))
    params, p, rows = run(opt), numbers(99), {}
    for n in range(4):
        for key, lr, decay in (("W", 0.1, 0.5), ("V", 0.5, 0.25)):
            g = numbers(n)[key]
            g = g * min(1, 1 / (np.linalg.norm(g) + 1e-6))
            rows[key] = decay * rows.get(key, 0) + g.mean(axis=1, keepdims=True)
            p[key] = p[key] * (1 - lr * 0.1) - lr * rows[key]
    for key in "WV":
        assert_allclose(params[key], p[key], rtol=1e-13)
        assert_allclose(opt.rows[key], rows[key], rtol=1e-12)
    assert {key: array.shape for key, array in opt.m.items()} == {"W": (0,), "V": (0,), "b": (20,), "empty": (0,)}
    assert_bits(params["s"], numbers(99)["s"])


ON = {"clip_norm": 1.0, "cautious": True, "accumulate": 2, "ema": 0.9, "lookahead": (2, 0.5)}


@pytest.mark.parametrize("shape", [(300, 400), (2, 150, 200), (40_000, 2), (70_000,), ()])
def test_adafactor_in_blocks(shape):
    rng = np.random.default_rng(0)
    opt, step, state = fo.Adafactor(0.01, weight_decay=0.1), adafactor(0.1), {"v": 0.0}
    params = {"w": rng.standard_normal(shape) + np.zeros(shape)}
    p = params["w"].copy()
    for t in range(1, 4):
        g = rng.standard_normal(shape) + np.zeros(shape)
        opt.update(params, {"w": g})
        p = step(p, g, state, t)
    assert_allclose(params["w"], p, rtol=0, atol=1e-13)
    if len(shape) > 1:
        assert_allclose(opt.rows["w"], state["rows"], rtol=1e-12)
        assert_allclose(opt.columns["w"], state["columns"], rtol=1e-12)
    else:
        assert_allclose(opt.v["w"], state["v"], rtol=1e-12)


@pytest.mark.parametrize("on", [{}, ON], ids=["plain", "transforms"])
def test_layouts_of_both_kinds_of_arrays(on):
    opt, other = fo.Muon(0.01, **on), fo.Muon(0.01, **on)
    params, flat = run(opt), run(other, flat=True)
    wide = np.zeros((30, 40))
    wide[:, ::2] = numbers(99)["W"]
    strided = run(fo.Muon(0.01, **on), params={**numbers(99), "W": wide[:, ::2]})
    for key, p in params.items():
        assert_bits(p, flat[key], key)
        assert_bits(p, strided[key], key)
        assert p.size == 0 or (p != numbers(99)[key]).any()
        if on:
            assert opt.averaged[key].shape == p.shape


@pytest.mark.parametrize(("cls", "on"), [(RowSteps, {}), (fo.Muon, ON), (fo.Adafactor, ON)])
def test_a_resumed_run_has_the_bits_of_the_uninterrupted_one(cls, on, tmp_path):
    opt = cls(0.01, **on)
    params = run(opt, 3)
    twin, other = copy.deepcopy(params), cls()
    opt.save(tmp_path / "opt")
    other.load(tmp_path / "opt")
    run(opt, first=3, params=params)
    run(other, first=3, params=twin)
    for key, p in params.items():
        assert_bits(p, twin[key], key)
    bad = opt.state_dict()
    bad["state"][cls.slots[1]].pop("V")
    with pytest.raises(ValueError, match="lacks the keys"):
        cls().load_state_dict(bad)


def test_an_array_of_a_flat_dict_is_a_whole_of_its_own():
    class Means(fo.Optimizer):
        slots = ("m",)
        rule = staticmethod(lambda p, g, m: (p - g.mean(), m))
        scalars = array_slots = lambda *_: {}

    params = {"W": np.ones((2, 2)), "b": np.ones(3)}
    flat = fo.flatten(params)
    Means().update(flat, fo.flatten({"W": params["W"], "b": 2 * params["b"]}))
    assert_bits(flat["W"], np.zeros((2, 2)))
    assert_bits(flat["b"], -np.ones(3))


def test_a_step_that_fails_leaves_everything():
    opt = RowSteps(clip_array_norm=1.0)
    params = run(opt)
    before = copy.deepcopy((params, opt.state_dict()))
    bad = numbers(5)
    bad["V"][0, 0] = np.nan
    with pytest.raises(ValueError, match="no step"):
        opt.update(params, bad)
    after = params, opt.state_dict()
    assert after[1]["iter"] == before[1]["iter"]
    for slot, arrays in [("params", before[0]), *before[1]["state"].items()]:
        for key, array in arrays.items():
            assert_bits(array, (after[0] if slot == "params" else after[1]["state"][slot])[key], key)


def test_shapes_that_do_not_fit_the_state():
    opt = RowSteps()
    params = run(opt)
    for shape, match in [((31, 20), r"shape \(31, 20\), so its state 'rows' must have \(31, 1\), not \(30, 1\)"),
                         ((600,), r"shape \(600,\), expected \(0,\) as in its state 'm'")]:  # fmt: skip
        other = {**params, "W": np.ones(shape)}
        with pytest.raises(ValueError, match=match):
            opt.update(other, {**numbers(0), "W": np.ones(shape)})
    grads = {**numbers(0), "W": fo.Rows(np.array([0]), np.ones((1, 20)))}
    with pytest.raises(TypeError, match="its update as a whole needs all elements"):
        opt.update(params, grads)


def test_a_matrix_that_shares_memory_with_a_vector_and_with_its_gradient():
    base, twin = np.arange(16.0), np.arange(16.0)
    RowSteps().update({"W": base.reshape(4, 4), "v": base}, {"W": np.ones((4, 4)), "v": np.ones(16)})
    assert_bits(base, np.arange(16.0) - 0.1 - 0.1)
    RowSteps().update({"W": twin.reshape(4, 4)}, {"W": twin.reshape(4, 4)})
    assert_allclose(twin, np.arange(16.0) - 0.1 * np.repeat(np.arange(16.0).reshape(4, 4).mean(axis=1), 4))


@pytest.mark.parametrize("shape", [(5, 5), (4, 30), (300, 7), (1, 3)])
def test_orthogonalized_keeps_the_directions_and_levels_the_singular_values(shape):
    u = np.random.default_rng(0).standard_normal(shape)
    left, values, right = np.linalg.svd(u, full_matrices=False)
    inner = left.T @ orthogonalized(u, 0.0, 0.0) @ right.T
    x = values / np.linalg.norm(values)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    assert_allclose(inner, np.diag(x), atol=1e-12)
    half = u.astype(np.float16)
    assert_bits(orthogonalized(half, 0.0, 0.0), orthogonalized(half.astype(np.float32), 0.0, 0.0))
    assert ((x > 0.6) & (x < 1.3)).all()
    huge = np.float32(1e30) * u.astype(np.float32)
    assert_allclose(orthogonalized(huge, 0.0, 0.0), orthogonalized(u, 0.0, 0.0), atol=1e-5)


@pytest.mark.parametrize("cls", [fo.Muon, fo.Adafactor])
@pytest.mark.parametrize(
    ("dtype", "bound"), [(np.float16, 2e-2), (np.float32, 1e-5), (np.longdouble, 1e-13), (">f8", 0)]
)
def test_other_dtypes(cls, dtype, bound):
    params, expected = {"W": numbers(99, dtype)["W"]}, {"W": numbers(99)["W"]}
    for opt, own in ((cls(0.01), params), (cls(0.01), expected)):
        for n in range(3):
            opt.update(own, {"W": numbers(n, own["W"].dtype)["W"]})
    assert params["W"].dtype == dtype
    assert_allclose(params["W"].astype(float), expected["W"], rtol=0, atol=bound)
