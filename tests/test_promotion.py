"""A compiled rule has the bits of its own text on arrays of all dtypes and memory layouts."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fastoptim as fo
import naive
from fastoptim.parameters import FlatDict, Layout
from fastoptim.update.composition import compose_optimizer
from fastoptim.update.fallback import RuleArray
from naive import assert_bits

# Kernels that run as Python warn as NumPy does, and promote nothing.
INTEGERS = [f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)]
SLOTS = "m", "n", "a", "b"
# Few bits each, so that sums and products of them are exact in float32 as well.
LR, BETA = 0.25, 1.75
THIRD, FOUR = 1 / 3, 4

# NumPy 2.0 takes the bound in each case.
IS_ZERO_KEPT = np.signbit(np.clip(np.array([-0.0]), 0.0, 1.0))[0]

# Each example is compiled, so failing ones are not made smaller.
PROFILE = settings(
    deadline=None, suppress_health_check=list(HealthCheck), phases=set(Phase) - {Phase.explain, Phase.shrink}
)


def helper(x, y):
    x = x * y
    x -= 1.5
    return x


def scaled(x):
    return 3 * x - 1


class Rule(fo.Optimizer):
    """An optimizer with any rule."""

    slots = SLOTS

    def __init__(self, rule, state):
        super().__init__()
        self.rule = rule
        # There is no public way to begin with slots of several dtypes.
        self._state = {name: FlatDict.zeros(Layout.of([("w", array)])) for name, array in state.items()}
        for name, array in state.items():
            self._state[name]["w"] = array

    def scalars(self):
        return LR, BETA


def compiled(text):
    names = {"np": np, "math": math, "helper": helper, "scaled": scaled, "THIRD": THIRD, "FOUR": FOUR}
    exec(text, {"__name__": "rules"} | names, names)
    return names["rule"]


def as_arrays(rule, arrays, scalars):
    """What the text of a rule makes of arrays; element by element if it has a branch."""
    arrays = [array.view(RuleArray) for array in arrays]
    with np.errstate(all="ignore"):
        try:
            results = rule(*arrays, *scalars)
            return list(map(np.asarray, results if isinstance(results, tuple) else (results,)))
        except ValueError:
            columns = zip(
                *(rule(*(a[k : k + 1] for a in arrays), *scalars) for k in range(arrays[0].size)), strict=True
            )
            return [np.concatenate([np.broadcast_to(value, 1) for value in column]) for column in columns]


def assert_same(expected, result, message):
    with np.errstate(all="ignore"):
        expected = np.broadcast_to(expected, result.shape).astype(result.dtype)
    # The sign and payload of a NaN are the processor's choice.
    same = (expected == result) & (np.signbit(expected) == np.signbit(result))
    same |= np.isnan(expected) & np.isnan(result)
    # Kernels flush subnormal numbers to zero.
    same |= (expected != 0) & (abs(expected) < np.finfo(result.dtype).smallest_normal) & (result == 0)
    assert same.all(), f"{message}\nexpected {expected[~same]}, got {result[~same]}"


def numbers(seed, dtype, size=9, limits=False):
    """Numbers far from subnormal ones; integers up to the limits of their dtype if asked."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "f":
        values = (rng.choice([-1, 1], size) * rng.uniform(0.5, 2, size)).astype(dtype)
        values[: size // 4] = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0], size // 4)
        return values
    # Of 64 bits some that float64 does not hold, but not so large that products of their inverses are subnormal.
    ends = np.iinfo(dtype)
    largest = 2**55 if limits else 9
    low, high = max(ends.min, -largest), min(ends.max, largest)
    return rng.integers(low, high, size, dtype, endpoint=True)


def strided(a):
    wide = np.full(3 * a.size, 7, a.dtype)
    wide[::3] = a
    return wide[::3]


# Random rules.

ATOMS = "p", "g", "m", "n", "p", "g", "m", "lr", "beta", "2", "3", "0.5", "-1.5", "math.pi", "np.e", "THIRD", "FOUR"


@st.composite
def floats(draw, depth, weak):
    """The text of an expression that is an array of floats; ``weak`` is whether it may compute with numbers alone."""
    if depth == 0:
        return draw(st.sampled_from(["p", "m", "n", "(g * 0.5)"]))
    inner, other = draw(floats(depth - 1, weak)), draw(operands(depth - 1, weak))
    first, second = draw(st.permutations([inner, other]))
    form = draw(
        st.sampled_from(
            ["({0} + {1})", "({0} - {1})", "({0} * {1})", "({0} / {1})", "helper({0}, {1})"] * 2
            # Which of two zeros is the larger one depends on NumPy's loop.
            + ["(np.maximum({0}, {1}) + 0.0)", "(np.minimum({0}, {1}) + 0.0)", "np.where({0} < {1}, {0}, {1})"]
            # A zero of either sign that equals a bound that is an array: NumPy itself is not consistent there.
            + ["np.where(({0} >= {1}) & ({2} != 1), {2}, {1})", "np.clip({2}, -1.5, 2)", "np.clip({2}, -1.0, 0.5)"]
            + ["(-{2})", "abs({2})", "np.sqrt({2})", "np.sign({2})", "({2} ** 2)", "scaled({2})", "np.abs({2})"]
        )
    )
    return form.format(first, second, inner, other)


def operands(depth, weak):
    atoms = st.sampled_from(ATOMS)
    numbers_alone = st.sampled_from(["(1 - beta)", "lr * beta", "(-lr)", "2 / FOUR", "(math.pi - 1)", "beta ** 2"])
    return st.one_of(atoms, floats(depth, weak), *([numbers_alone] if weak else []))


@st.composite
def rules(draw, weak, branches):
    body = []
    for target in draw(st.permutations(["p", *SLOTS]))[:4]:
        sign = draw(st.sampled_from(["=", "+=", "-=", "*=", "/="]))
        form = draw(st.sampled_from(["plain", "plain", "scalar", "branch" if branches else "gradient"]))
        if form == "scalar":
            body.append(draw(st.sampled_from(["lr *= 0.5", "beta = 0.5", "lr = lr * 2", "lr += 0.25", "beta = FOUR"])))
        if form == "gradient":
            body.append("g = g + 0.5 * p")
        if form == "branch":
            body += [f"if {draw(floats(1, weak))} > {draw(operands(0, weak))}:", f"    {target} *= 0.5"]
        body.append(f"{target} {sign} {draw(floats(2, weak))}")
    lines = "".join(f"    {line}\n" for line in body)
    return f"def rule(p, g, m, n, a, b, lr, beta):\n{lines}    return p, m, n, a, b\n"


kinds = st.tuples(
    st.sampled_from(["f4", "f8", "f2"]),
    st.sampled_from(["f4", "f8", "f2", *INTEGERS]),
    st.lists(st.sampled_from(["f4", "f8", "f2"]), min_size=len(SLOTS), max_size=len(SLOTS)),
)


def check(text, p_kind, g_kind, slot_kinds, seed, layout=np.array, limits=False):
    """Take two steps and compare each with the text of the rule; return whether a kernel took the second."""
    rule, message = compiled(text), f"{text}\n{p_kind}, {g_kind}, {slot_kinds}"
    p, *state = (numbers([seed, k], kind) for k, kind in enumerate((p_kind, *slot_kinds)))
    opt = Rule(rule, dict(zip(SLOTS, state, strict=True)))
    params = {"w": layout(p)}
    for step in range(2):
        g = numbers([seed, step, 9], g_kind, limits=limits)
        before = [params["w"].copy(), g.copy(), *(opt._state[name]["w"].copy() for name in SLOTS)]
        expected = as_arrays(rule, before, (LR, BETA))
        gradient = layout(g)
        opt.update(params, {"w": gradient})
        assert_bits(g, np.array(gradient), "gradient")
        for name, value, result in zip(
            ["p", *SLOTS], expected, [params["w"], *(opt._state[name]["w"] for name in SLOTS)], strict=True
        ):
            assert_same(value, result, f"{name} in step {step} of\n{message}")
            if name != "p" and "if" not in text and value.shape == result.shape:
                assert result.dtype == (value.dtype if value.dtype.kind == "f" else before[2].dtype), name
    return opt._plan is not None and not opt._plan._fallbacks


@pytest.mark.parametrize("branches", [False, True])
def test_random_rules_and_dtypes(branches):
    @settings(PROFILE, max_examples=4)
    @given(rules(True, branches), kinds, st.integers(0, 999), st.sampled_from([np.array, strided]), st.booleans())
    def run(text, dtypes, seed, layout, limits):
        p, g, slots = dtypes
        if {p, g, *slots} == {"f4"}:
            # In pure float32, scalars are rounded before they are computed with.
            g = "f8"
        check(text, p, g, slots, seed, layout, limits)

    run()
    body = "    m += g\n    if m > p:\n        m *= 0.5\n" if branches else "    m += g\n"
    text = f"def rule(p, g, m, n, a, b, lr, beta):\n{body}    p -= lr * m\n    return p, m, n, a, b\n"
    assert check(text, "f4", "f8", ["f4"] * len(SLOTS), 0), "no kernel took the step"


@pytest.mark.parametrize("kind", ["f4", "f8", "f2"])
def test_random_rules_of_one_dtype(kind):
    @settings(PROFILE, max_examples=3)
    @given(rules(kind != "f4", True), st.integers(0, 999), st.sampled_from([np.array, strided]))
    def run(text, seed, layout):
        # A slot of another dtype comes from arithmetic with scalars of NumPy, as np.sqrt(lr) is.
        check(text, kind, kind, [kind] * len(SLOTS), seed, layout)

    run()


# Chosen rules.


def text_of(line):
    return f"def rule(p, g, m, n, a, b, lr, beta):\n    {line}\n    return p, m, n, a, b\n"


PAIRS = [("f4", "f4"), ("f8", "f8"), ("f4", "f8"), ("f8", "i2"), ("f4", "u8"), ("f2", "f2"), ("f2", "i1")]


@pytest.mark.parametrize(("p_kind", "g_kind"), PAIRS)
def test_every_augmented_assignment(p_kind, g_kind):
    lines = "p += g; m -= lr * g; n *= g; a /= beta; g += 0.5 * p; b -= g; g -= 1; n += g; g = 2 * g; p -= g"
    for line in lines if g_kind[0] == "f" else lines.replace("g += 0.5 * p; ", "").replace("g -= 1; ", ""), "g //= 2":
        check(text_of(line), p_kind, g_kind, [p_kind] * 4, 0)
    check(text_of("p %= beta; m //= g; n **= 2; a -= g; g //= 2; b *= g"), p_kind, g_kind, [p_kind] * 4, 1)


@pytest.mark.parametrize(
    "kinds", [("f4", "f4", "f4"), ("f8", "f8", "f8"), ("f4", "f8", "f4"), ("f8", "f4", "f4"), ("f2",) * 3]
)
@pytest.mark.parametrize(
    ("bounds", "others"),
    [("m, n", "-1.0, 1.0"), ("m, 0.5", "0, n"), ("1, 1", "lr, beta"), ("0.0, 1.0", "-0.0, 0.0"), ("-1, 0", "2, 1")],
)
def test_clip(kinds, bounds, others):
    """Of NaN, zeros of both signs, infinities, and equal or exchanged bounds."""
    p_kind, g_kind, kind = kinds
    rule = compiled(text_of(f"p = np.clip(g, {bounds}); a = np.clip(b, {others})"))
    ends = np.array([np.nan, -np.inf, -1.0, -0.0, 0.0, 0.5, 1.0, np.inf])
    g, low, high = (axis.ravel() for axis in np.meshgrid(ends, ends, ends))
    state = {"m": low.astype(kind), "n": high.astype(kind), "a": np.ones(g.size, kind), "b": g.astype(kind)}
    params, opt = {"w": np.ones(g.size, p_kind)}, Rule(rule, state)
    arrays = [params["w"].copy(), g.astype(g_kind), *(state[name].copy() for name in SLOTS)]
    for _ in range(2):
        expected = as_arrays(rule, arrays, (LR, BETA))
        opt.update(params, {"w": g.astype(g_kind)})
        for value, result in (expected[0], params["w"]), (expected[3], opt._state["a"]["w"]):
            if {"m", "n"} & set(bounds) or not IS_ZERO_KEPT:
                # Of two zeros NumPy takes the bound if one is an array, and the number if both are numbers.
                value, result = value + 0.0, result + 0.0
            assert_same(value, result, bounds)


def test_sign():
    for p_kind, g_kind in ("f4", "f4"), ("f8", "f8"), ("f4", "f8"), ("f2", "f2"):
        g = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 2, -3], g_kind)
        opt = Rule(compiled(text_of("p = np.sign(g)")), {name: np.zeros(7, p_kind) for name in SLOTS})
        params = {"w": np.zeros(7, p_kind)}
        opt.update(params, {"w": g})
        assert_same(np.sign(g), params["w"], "np.sign")


@pytest.mark.parametrize(
    ("line", "p_kind", "g_kind"),
    [
        ("p -= np.sqrt(g)", "f4", "u1"),
        ("p -= np.sqrt(g)", "f8", "i8"),
        ("p -= g ** 2", "f4", "i1"),
        ("p -= abs(g)", "f4", "i2"),
        ("p -= g + 1", "f4", "i1"),
        ("p -= np.sqrt(lr) * g", "f4", "f8"),
        ("p **= 2", "f4", "f8"),
        ("p -= np.clip(g, a_min=0, a_max=1)", "f4", "f8"),
        ("p = g if g > 0 else 2", "f4", "f8"),
    ],
)
def test_a_rule_that_promotion_cannot_compile_gives_the_same_bits(line, p_kind, g_kind):
    text = text_of(line)
    check(text, p_kind, g_kind, [p_kind] * 4, 0)
    check(text, p_kind, g_kind, [p_kind] * 4, 0, strided)


@pytest.mark.parametrize("kind", ["f4", "f8", "f2"])
def test_a_branch_beside_assignments_that_round(kind):
    """In the fallback, element by element, as in a kernel; also where there are no elements."""
    rule = compiled(text_of("m *= 0.3; n = m * 2; n += g; p -= (n if g > 0 else m) * THIRD; p *= 1.1"))
    for size in 9, 0:
        w, g = numbers(0, "f4", size).astype(kind), numbers(1, "f8", size)
        state = {name: numbers(2, "f4", size).astype(kind) for name in SLOTS}
        params, opt = {"w": w.copy()}, Rule(rule, state)
        expected = as_arrays(rule, [w, g, *(state[name] for name in SLOTS)], (LR, BETA)) if size else [w]
        opt.update(params, {"w": g})
        assert_same(expected[0], params["w"], kind)


@pytest.mark.parametrize("name", naive.RULES)
def test_the_family_on_random_dtypes(name):
    optimizer = getattr(fo, name)

    @settings(PROFILE, max_examples=3)
    @given(kinds, st.integers(0, 999), st.booleans())
    def run(dtypes, seed, limits):
        p_kind, g_kind, (kind, *_) = dtypes
        opt = optimizer()
        if opt.slots:
            for slot in opt.slots:
                setattr(opt, slot, {"w": abs(np.nan_to_num(numbers(seed, kind), posinf=1, neginf=1))})
        params = {"w": numbers(seed, p_kind)}
        for step in range(3):
            g = numbers([seed, step], g_kind, limits=limits)
            state = [getattr(opt, slot)["w"] for slot in opt.slots]
            arrays = [array.copy() for array in (params["w"], g, *state)]
            opt.update(params, {"w": g})
            composition = compose_optimizer(opt)
            scalars = [*opt.scalars(), *(value(opt) for value in composition.scalars)]
            expected = as_arrays(composition.rule, arrays, scalars)
            if {p_kind, g_kind, kind} == {"f4"}:
                # Scalars of a rule in pure float32 are rounded to it first.
                expected = as_arrays(composition.rule, arrays, [np.float32(scalar) for scalar in scalars])
            results = [params["w"], *(getattr(opt, slot)["w"] for slot in opt.slots)]
            for value, result in zip(expected, results, strict=True):
                assert_same(value, result, f"{name} on {dtypes} in step {step}")

    run()
