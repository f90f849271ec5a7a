"""Transforms, alone and together, against the same steps in plain NumPy; groups; schedules."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastoptim as fo
import naive
import script
from fastoptim.family import FAMILY
from naive import assert_bits, norm

SHAPES = {"W": (40, 30), "b": (30,), "empty": (0, 3), "s": ()}
LR = 0.01
TRANSFORMS = {
    "maximize": True,
    "grad_scale": 0.5,
    "accumulate": 3,
    "centralize": True,
    "clip_value": 0.5,
    "clip_norm": 1.0,
    "clip_array_norm": 0.5,
    "l2": 0.1,
    "weight_decay": 0.1,
    "cautious": True,
    "ema": 0.9,
    "lookahead": (2, 0.5),
}


def numbers(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {key: rng.standard_normal(shape).astype(dtype) for key, shape in SHAPES.items()}


def surrounded(rule, steps, on):
    """Return the parameters and their averages after some steps of a rule with transforms."""
    params, transforms = numbers(99), naive.Transforms(**on)
    for n in range(steps):
        transforms.update(rule, params, numbers(n))
    return params, transforms.state["averaged"]


def run(opt, steps=7, flat=False, dtype=np.float64, first=0, params=None):
    params = params or numbers(99, dtype)
    params = fo.flatten(params) if flat else params
    for n in range(first, first + steps):
        opt.update(params, fo.flatten(numbers(n, dtype)) if flat else numbers(n, dtype))
    return params


def combinations():
    yield {}
    for count in (1, 2):
        for names in itertools.combinations(TRANSFORMS, count):
            yield {name: TRANSFORMS[name] for name in names}
    yield TRANSFORMS


def spread():
    """Six choices of eight or so, in which each pair is on together, and each one of it without the other."""
    columns = dict(zip(TRANSFORMS, itertools.combinations(range(6), 4), strict=False))
    for number in range(6):
        yield {name: value for name, value in TRANSFORMS.items() if number in columns[name]}


SWAPPED = np.dtype(np.float64).newbyteorder()
"""The text of a composition runs on such arrays, which takes a thousandth of the time of its compilation."""


@pytest.mark.parametrize(
    ("on", "dtype"),
    [(on, SWAPPED) for on in combinations()] + [(on, np.float64) for on in ({}, *spread(), TRANSFORMS)],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "text" if value is SWAPPED else "compiled",
)
def test_alone_and_in_pairs(on, dtype):
    opt = fo.Adam(LR, **on)
    params, (expected, averages) = run(opt, dtype=dtype), surrounded(naive.Adam(LR), 7, on)
    for key, p in params.items():
        assert_allclose(p, expected[key], rtol=1e-12, atol=1e-13)
        if "ema" in on:
            assert_allclose(opt.averaged[key], averages[key], rtol=1e-12, atol=1e-13)


def kind(cls):
    """What composition asks of a class, besides its rule."""
    has = cls.measure, cls.running, cls.shared, cls.array_slots is not fo.Optimizer.array_slots
    return (*map(bool, has), cls.in_rule, cls.before, cls.after)


def assert_surrounded(name, on, params, err_msg=""):
    """Compare parameters after seven steps with those of the plain rule, with transforms in NumPy around it."""
    cls = getattr(fo, name)
    # A decay that is a part of the rule is no transform of it.
    within = {key: value for key, value in on.items() if key in cls.in_rule}
    around = {key: value for key, value in on.items() if key not in within}
    expected, _ = surrounded(cls(LR, **({"weight_decay": None} | within)), 7, around)
    for key, p in params.items():
        assert_allclose(p, expected[key], rtol=1e-12, atol=1e-13, err_msg=f"{err_msg} {key}")


KINDS = list({kind(getattr(fo, name)): name for name in FAMILY}.values())


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_rule_takes_all(name):
    """The text of all is run, and one of the choices of most is compiled."""
    chosen = list(spread())[KINDS.index(name) % 6]
    for on, dtype in (TRANSFORMS, SWAPPED), (chosen, np.float64):
        assert_surrounded(name, on, run(getattr(fo, name)(LR, **on), dtype=dtype), f"{dtype}:")


@pytest.mark.parametrize("name", FAMILY)
def test_each_rule_takes_each_transform_alone(name):
    """To compile all of these compositions would take minutes, so byte-swapped arrays run their text.

    One transform of each rule is compiled, if most of them are not: see the test before.
    """
    compiled = None if name in KINDS else list(TRANSFORMS)[list(FAMILY).index(name) % len(TRANSFORMS)]
    for transform, value in TRANSFORMS.items():
        for dtype in (SWAPPED, np.float64) if transform == compiled else (SWAPPED,):
            opt = getattr(fo, name)(LR, **{"weight_decay": None, transform: value})
            assert_surrounded(name, {transform: value}, run(opt, dtype=dtype), f"{transform}, {dtype}:")


class Mine(fo.Optimizer):
    """A user's copy of Adam."""

    slots = ("m", "v")

    def __init__(self, lr, beta1=0.9, beta2=0.999, **options):
        super().__init__(**options)
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2

    def scalars(self):
        corrected = self.lr * (1 - self.beta2**self.iter) ** 0.5 / (1 - self.beta1**self.iter)
        return corrected, 1 - self.beta1, 1 - self.beta2

    @staticmethod
    def rule(p, g, m, v, lr, b1, b2):
        m = m + b1 * (g - m)
        v = v + b2 * (g * g - v)
        return p - lr * m / (np.sqrt(v) + 1e-7), m, v


@pytest.mark.parametrize("groups", [None, {"b": {"lr": 0.5, "weight_decay": 0.0, "clip_value": 0.1}}])
def test_a_users_rule_takes_all_as_the_built_in_one_does(groups):
    expected, params = (run(cls(LR, groups=groups, **TRANSFORMS)) for cls in (fo.Adam, Mine))
    for key, p in params.items():
        assert_bits(expected[key], p, key)


@pytest.mark.parametrize(
    ("on", "dtype"), [({"clip_norm": 1.0}, np.float32), (TRANSFORMS, np.float64)], ids=["norm", "all"]
)
def test_bits_do_not_depend_on_threads_and_layout(on, dtype, monkeypatch):
    monkeypatch.setattr(fo.threads, "_PARALLEL_FROM", 64)
    expected = run(fo.Adam(LR, **on), dtype=dtype)
    for flat, parts in itertools.product([False, True], [1, 2, 3, 7]):
        with fo.num_threads(parts):
            params = run(fo.Adam(LR, **on), flat=flat, dtype=dtype)
        for key, p in params.items():
            assert_bits(expected[key], p, key)


def test_sums_without_compiled_code(tmp_path):
    source = """
        import numpy as np
        import fastoptim as fo

        for opt in fo.SGD(1.0, clip_norm=1.0), fo.LAMB(0.25):
            params = {"a": np.array([3.0, 4.0]), "b": np.zeros(2)}
            opt.update(params, {"a": np.array([3.0, 4.0]), "b": np.zeros(2)})
            print(params["a"].round(3).tolist())
    """
    assert script.run(source, tmp_path, NUMBA_DISABLE_JIT="1") == "[2.4, 3.2]\n[2.116, 3.116]"


def test_sums_of_arrays_of_many_blocks():
    for size in (511, 512, 513, 1024, 5000):
        params, g = {"w": np.zeros(size)}, np.random.default_rng(size).standard_normal(size)
        fo.SGD(1.0, clip_norm=1.0).update(params, {"w": g})
        assert_allclose(params["w"], -g / (norm([g]) + 1e-6), rtol=1e-13)
        params = {"w": np.zeros((size, 2))[:, 0]}
        fo.SGD(1.0, clip_array_norm=1.0).update(params, {"w": np.stack([g, g], 1)[:, 0]})
        assert_allclose(params["w"], -g / (norm([g]) + 1e-6), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norms_are_the_same_whether_or_not_gradients_are_copied(dtype):
    """Plain gradients are summed where they lie, others from a copy of each block."""
    for size in (511, 512, 1600):
        g = np.random.default_rng(size).standard_normal(size).astype(dtype)
        strided = np.stack([g, g], 1)[:, 0]
        expected = None
        for gradient, options in (g, {}), (g, {"clip_value": 1e30}), (strided, {}), (strided, {"clip_value": 1e30}):
            params = {"w": np.zeros(size, dtype), "b": np.zeros(3, dtype)}
            fo.SGD(1.0, clip_norm=1.0, **options).update(params, {"w": gradient, "b": np.ones(3, dtype)})
            expected = params["w"] if expected is None else expected
            assert_bits(expected, params["w"])
        factor = 1 / (norm([g, np.ones(3)]) + 1e-6)
        assert_allclose(expected, -g * factor, rtol=1e-6 if dtype is np.float32 else 1e-13)


def test_the_fallback_sums_as_well():
    params, g = {"w": np.zeros(50, np.longdouble)}, np.arange(50, dtype=np.longdouble)
    fo.SGD(1.0, clip_norm=1.0, cautious=True).update(params, {"w": g})
    agree = 49 / 50
    assert_allclose(params["w"].astype(float), -(g / (norm([g]) + 1e-6)).astype(float) / agree, rtol=1e-12)


def test_cautious_steps_hide_no_nan():
    params = {"w": np.zeros(4)}
    fo.SGD(1.0, cautious=True).update(params, {"w": np.array([1.0, np.nan, -1.0, 0.0])})
    np.testing.assert_array_equal(params["w"], [-2.0, np.nan, 2.0, 0.0])


def test_they_are_switched_on_and_off_between_steps(compiled):
    opt, params = fo.Adam(LR), numbers(0)
    run(opt, 2, params=params)
    opt.clip_norm = 1.0
    run(opt, 2, params=params)
    compiled.clear()
    opt.clip_norm = 0.5
    run(opt, 2, params=params)
    opt.clip_norm = None
    run(opt, 2, params=params)
    assert compiled == []
    assert opt.clip_norm is None
    assert opt.iter == 8
    opt.ema = 0.5
    assert opt.averaged is None
    run(opt, 1, params=params)
    assert_bits(opt.averaged["W"], params["W"])


@pytest.mark.parametrize(
    ("keyword", "value", "error", "match"),
    [
        ("clip_norm", -1, ValueError, "clip_norm must be a finite number >= 0"),
        ("clip_value", "1", TypeError, "clip_value must be a finite number >= 0"),
        ("ema", 1.0, ValueError, r"ema must be a number in \[0, 1\)"),
        ("accumulate", 0, ValueError, "accumulate must be an integer >= 1"),
        ("accumulate", 1.5, ValueError, "accumulate must be an integer >= 1"),
        ("lookahead", 5, TypeError, r"lookahead must be a pair \(k, alpha\)"),
        ("lookahead", (5, 0), ValueError, r"alpha of lookahead must be in \(0, 1\]"),
        ("maximize", 1, TypeError, "maximize must be True or False"),
        ("clip_nrom", 1, TypeError, "takes no argument 'clip_nrom'; did you mean 'clip_norm'"),
        ("learning_rate", 1, TypeError, "takes no argument 'learning_rate'; did you mean 'lr'"),
        ("epsilon", 1, TypeError, "takes no argument 'epsilon'; did you mean 'eps'"),
        ("groups", 3, TypeError, "groups must be a dict such as"),
    ],
)
def test_wrong_values(keyword, value, error, match):
    with pytest.raises(error, match=match):
        fo.Adam(**{keyword: value})


def test_the_mean_of_infinite_gradients_is_no_warning():
    params = {"W": np.ones((2, 2))}
    fo.SGD(0.5, centralize=True).update(params, {"W": np.array([[np.inf, 1.0], [-np.inf, 3.0]])})
    assert_bits(np.isnan(params["W"]), np.array([[True, False], [True, False]]))
    assert_bits(params["W"][:, 1], np.array([1.5, 0.5]))


def test_a_false_of_numpy_turns_a_switch_off():
    opt = fo.Adam(maximize=np.True_)
    assert opt.maximize is True
    opt.maximize = np.False_
    assert opt.maximize is False


def test_an_error_leaves_everything_as_it_was():
    opt, params = fo.Adam(LR, clip_norm=1.0, ema=0.9, accumulate=2, on_nonfinite="raise"), numbers(0)
    run(opt, 3, params=params)
    before, state = copy.deepcopy(params), pickle.dumps(opt)
    bad = numbers(1)
    bad["W"][0, 0] = np.nan
    with pytest.raises(FloatingPointError):
        opt.update(params, bad)
    assert pickle.dumps(opt) == state
    for key, p in params.items():
        assert_bits(before[key], p)


class Signs(fo.Optimizer):
    """A user's rule with transforms of its own before and after it."""

    slots = ("m", "noise")

    def __init__(self, lr=0.1, beta=0.9, **options):
        super().__init__(**options)
        self.lr, self.beta, self.floor = lr, beta, 0.25

    def scalars(self):
        return self.lr, self.beta

    @staticmethod
    def rule(p, g, m, lr, beta):
        m = beta * m + (1 - beta) * g
        return p - lr * np.sign(m), m

    @staticmethod
    def _smooth(g, noise, beta):
        noise = beta * noise + g
        return noise, noise

    @staticmethod
    def _bound(p, floor):
        return np.maximum(p, -floor)

    before = (_smooth,)
    after = (_bound,)


def test_transforms_of_a_users_class():
    opt = Signs(weight_decay=0.5, clip_norm=1.0)
    params = run(opt, 3)
    p, m, noise = numbers(99)["W"], 0.0, 0.0
    for n in range(3):
        grads = numbers(n)
        g = grads["W"] * min(1, 1 / (norm(grads.values()) + 1e-6))
        noise = 0.9 * noise + g
        m = 0.9 * m + (1 - 0.9) * noise
        p = np.maximum(p * (1 - 0.1 * 0.5) - 0.1 * np.sign(m), -0.25)
    assert_allclose(params["W"], p, rtol=1e-13)
    assert_allclose(opt.noise["W"], noise, rtol=1e-12)


# Groups.


@pytest.mark.parametrize("accumulate", [None, 3])
@pytest.mark.parametrize("flat", [False, True])
def test_groups_are_optimizers_of_their_own(flat, accumulate):
    groups = {"b*": {"lr": 0.5, "weight_decay": 0.0}, lambda _, a: a.ndim == 0: {"beta1": 0.5}}
    opt = fo.Adam(LR, weight_decay=0.1, groups=groups, accumulate=accumulate)
    params = run(opt, flat=flat)
    alone = {
        "W": fo.Adam(LR, weight_decay=0.1),
        "b": fo.Adam(0.5),
        "s": fo.Adam(LR, beta1=0.5, weight_decay=0.1),
    }
    for key, other in alone.items():
        expected = {key: numbers(99)[key]}
        other.accumulate = accumulate
        for n in range(7):
            other.update(expected, {key: numbers(n)[key]})
        assert_bits(expected[key], params[key], key)
    for mapping, key in ((opt.groups, "b*"), (next(iter(opt.groups.values())), "lr")):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping[key] = {}
    opt.groups = {**opt.groups, "s": {"lr": 0.5}}
    opt.groups = None
    assert opt.groups == {}


def test_groups_of_a_class_without_a_constructor():
    class Plain(fo.Optimizer):
        lr = 0.5
        n_ratios = 0

        def scalars(self):
            return (self.lr,)

        @staticmethod
        def rule(p, g, lr):
            return p - lr * g

    params = {"W": 1.0, "b": 1.0}
    Plain(groups={"b": {"lr": 0.25}}).update(params, {"W": 1.0, "b": 1.0})
    assert params == {"W": 0.5, "b": 0.75}
    expected = r"a group cannot have 'rate'; it may have clip_array_norm, clip_value, grad_scale, l2, lr, weight_decay$"
    with pytest.raises(ValueError, match=expected):
        Plain(groups={"b": {"rate": 0.25}})
    with pytest.raises(TypeError, match="no argument 'lr'; set the attribute, or write an __init__ that does"):
        Plain(lr=0.25)
    with pytest.raises(TypeError, match="no argument 'speed'; its own are none"):
        Plain(speed=0.25)


def test_what_changes_between_steps_reaches_the_groups():
    groups = {"b": {"lr": 0.5}}
    opt, other = fo.Adam(LR, groups=groups), fo.Adam(0.3, 0.1, groups=groups)
    alone = {key: fo.Adam(0.5 if key == "b" else LR) for key in SHAPES}
    params, expected = numbers(99), numbers(99)
    for n in range(6):
        if n == 2:
            for each in (opt, *alone.values()):
                each.beta1 = 0.25
        if n == 4:
            other.update(numbers(0), numbers(1))
            other.load_state_dict(copy.deepcopy(opt.state_dict()))
            opt = other
        run(opt, 1, first=n, params=params)
        for key, one in alone.items():
            one.update({key: expected[key]}, {key: numbers(n)[key]})
    for key, p in params.items():
        assert_bits(expected[key], p, key)


def test_a_wrong_hyperparameter_is_an_error_also_if_all_parameters_are_in_groups():
    opt, params = Signs(groups={"*": {"lr": 0.5}}), numbers(0)
    run(opt, 1, params=params)
    opt.lr = "0.1"
    with pytest.raises(TypeError, match=r"hyperparameters must be numbers.*it returned \('0.1', 0.9\)"):
        run(opt, 1, params=params)


def test_scalars_of_groups_see_the_state_of_this_step():
    class Follower(Signs):
        def scalars(self):
            seen.append(None if self._state is None else self.m["b"])
            return self.lr, self.beta

    seen = []
    opt, params = Follower(groups={"b": {"lr": 0.5}}), numbers(0)
    run(opt, 2, params=params)
    opt.m = None
    run(opt, 2, params=params)
    assert [each is None for each in seen] == [True, True, False, False, True, True, False, False]
    assert seen[-1] is opt.m["b"]


def test_frozen_parameters_need_no_gradients():
    opt = fo.Adam(LR, frozen=("W", "e*"))
    params = numbers(99)
    for n in range(3):
        opt.update(params, {key: numbers(n)[key] for key in ("b", "s")})
    assert_bits(params["W"], numbers(99)["W"])
    assert params["b"][0] != numbers(99)["b"][0]
    assert opt.m.keys() == {"b", "s"}
    with pytest.raises(KeyError, match="no gradient of 's'"):
        opt.update(params, {"b": numbers(0)["b"]})


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ({"b*": {"learning_rate": 1}}, "a group cannot have 'learning_rate'"),
        ({"b*": {"ema": 0.5}}, "a group cannot have 'ema'"),
        ({"b*": {"lr": -1}}, "lr must be a finite number"),
        ({"x*": {"lr": 1}}, r"the pattern 'x\*' of groups matches no parameter; the keys are 'W', 'b'"),
    ],
)
def test_wrong_groups(groups, match):
    with pytest.raises(ValueError, match=match):
        run(fo.Adam(groups=groups))


def test_the_first_pattern_that_matches_decides():
    opt = fo.SGD(1.0, groups={"b": {"lr": 0.0}, "*": {"lr": 2.0}})
    params = {"b": np.ones(2), "c": np.ones(2)}
    opt.update(params, {"b": np.ones(2), "c": np.ones(2)})
    assert (params["b"] == 1).all()
    assert (params["c"] == -1).all()


# Schedules.


def test_any_hyperparameter_takes_a_function_of_the_number_of_updates():
    opt = fo.Momentum(lr=lambda k: 1 / (k + 1), momentum=lambda k: 0.5 + k / 100, clip_norm=lambda k: k + 1.0)
    params = {"w": np.zeros(1)}
    p = v = 0.0
    for k in range(5):
        assert (opt.lr, opt.momentum, opt.clip_norm) == (1 / (k + 1), 0.5 + k / 100, k + 1.0)
        opt.update(params, {"w": np.ones(1)})
        v = (0.5 + k / 100) * v - 1 / (k + 1) * min(1, (k + 1) / (1 + 1e-6))
        p += v
    assert_allclose(params["w"], p, rtol=1e-14)
    opt.iter = 0
    assert opt.lr == 1
    opt.lr = 0.25
    opt.update(params, {"w": np.ones(1)})
    assert opt.lr == 0.25


def test_schedules_of_groups_and_of_users_classes():
    opt = Signs(lr=lambda k: 0.1 * (k + 1), groups={"b": {"lr": lambda k: 0.5 / (k + 1)}})
    params = run(opt, 1)
    expected = np.maximum(numbers(99)["b"] - 0.5 * np.sign(numbers(0)["b"]), -0.25)
    assert_allclose(params["b"], expected, rtol=1e-13)
    assert opt.lr == 0.2


def test_a_schedule_that_leaves_the_interval_is_an_error_before_the_step():
    opt, params = fo.SGD(lr=lambda k: 1.0 - k), {"w": np.ones(1)}
    opt.update(params, {"w": np.ones(1)})
    with pytest.raises(ValueError, match="lr must be a finite number"):
        opt.update(params, {"w": np.ones(1)})
    assert params["w"] == 0
    assert opt.iter == 1


# Checkpoints.


@pytest.mark.parametrize("through", ["state dict", "file", "pickle"])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_resumed_run_has_the_bits_of_the_uninterrupted_one(through, steps, tmp_path):
    opt, params = fo.Adam(LR, **TRANSFORMS), numbers(99)
    run(opt, steps, params=params)
    copied = copy.deepcopy(params)
    other = fo.Adam()
    if through == "pickle":
        other = pickle.loads(pickle.dumps(opt))
    elif through == "file":
        opt.save(tmp_path / "adam")
        other.load(tmp_path / "adam")
    else:
        other.load_state_dict(opt.state_dict())
    assert repr(other) == repr(opt)
    run(opt, 6, first=steps, params=params)
    run(other, 6, first=steps, params=copied)
    for key, p in params.items():
        assert_bits(p, copied[key], key)
        assert_bits(opt.averaged[key], other.averaged[key], key)
    plain = fo.Adam()
    opt.load_state_dict(plain.state_dict())
    assert repr(opt) == repr(plain)
