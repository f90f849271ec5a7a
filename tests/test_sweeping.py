"""A sweep has the bits of runs of their own, in one kernel call a step where that is possible."""

from functools import partial

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import schedules
from fastoptim.family import FAMILY
from naive import assert_bits

SLOPES = {"a": np.array([[0.1, 2.0, 1.0], [0.5, 0.2, 3.0]]), "b": np.array(0.7)}
LRS = [0.003, 0.1, 0.7]


def start(dtype=np.float64):
    return {"a": np.array([[-7, 2, 0.5], [1, -1, 3]], dtype), "b": np.array(1.5, dtype)}


def gradient(params):
    return {key: params[key] * slope.astype(params[key].dtype) for key, slope in SLOPES.items()}


def loss(params):
    a, b = params["a"], params["b"]
    return (a * a * SLOPES["a"]).sum(axis=(-2, -1)) + 0.7 * b * b


def separate_runs(make, values, steps, dtype=np.float64):
    """Yield the losses and the last parameters of each run."""
    for each in zip(*values.values(), strict=True):
        opt, params = make(**dict(zip(values, each, strict=True))), start(dtype)
        losses = [loss(params)]
        for _ in range(steps):
            opt.update(params, gradient(params))
            losses.append(loss(params))
        yield losses, params


def check(make, values, steps=6, dtype=np.float64):
    params = start(dtype)
    for vectorized in (True, False):
        result = fo.sweep(make, params, values, gradient, steps, loss=loss, vectorized=vectorized)
        for k, (losses, expected) in enumerate(separate_runs(make, values, steps, dtype)):
            assert_bits(np.array(losses, float), result.losses[k])
            for key, p in expected.items():
                assert_bits(p, result.params[key][k], (key, vectorized, k))
    for key, p in start(dtype).items():
        assert_bits(p, params[key])


@pytest.mark.parametrize("name", FAMILY)
def test_every_optimizer(name):
    check(getattr(fo, name), {"lr": LRS})


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (fo.Adam, {"lr": LRS, "beta2": [0.9, 0.99, 0.0], "beta1": [0.5, 0.9, 0.3]}),
        (fo.AMSGrad, {"beta2": [0.9, 0.99, 0.999], "lr": LRS}),
        (fo.Adam, {"like": ["notes", "torch", "keras"]}),
        (fo.AdamW, {"weight_decay": [0.0, 0.1, 1.0], "lr": LRS}),
        (partial(fo.SGD, clip_value=1.0, l2=0.1, maximize=True, grad_scale=0.5, lookahead=(2, 0.5)), {"lr": LRS}),
        (partial(fo.SGD, 0.1), {"lookahead": [(2, 0.5), (3, 0.9)]}),
        (partial(fo.SGD, 0.1), {"l2": [None, 0.5]}),
        (partial(fo.Momentum, clip_norm=1.0), {"lr": LRS}),
        (partial(fo.Momentum, groups={"b": {"lr": 0.5}}, frozen=["a"]), {"lr": LRS}),
        (partial(fo.Momentum, ema=0.5, accumulate=2, centralize=True), {"lr": LRS}),
        (fo.Momentum, {"lr": [schedules.cosine(0.1, 3), schedules.constant(0.2)]}),
        (lambda lr: fo.SGD(lr) if lr < 0.1 else fo.SignSGD(lr), {"lr": LRS}),
        (fo.Momentum, {"lr": [0.1]}),
    ],
)
def test_hyperparameters_of_all_kinds(make, values):
    check(make, values)


def test_float32():
    check(fo.Adam, {"lr": LRS}, dtype=np.float32)


def counted(launches, make, vectorized=True, **values):
    launches.clear()
    fo.sweep(make, start(), values, gradient, 4, vectorized=vectorized)
    return launches


def test_one_kernel_call_a_step(launches):
    # Seven elements in each of three copies.
    for values in ({"lr": LRS}, {"beta2": [0.9, 0.99, 0.5]}, {"eps": LRS}):
        assert counted(launches, fo.AdamW, **values) == [(21, False)] * 4, values
    assert counted(launches, fo.Adam, vectorized=False, lr=LRS) == [(21, False)] * 4
    assert counted(launches, fo.NAdam, lr=LRS) == [(7, False)] * 12


class Powers(fo.Optimizer):
    """Its scalars have powers and, later, a condition."""

    slots = ("m",)

    def __init__(self, beta, turn=1e9):
        self.beta, self.turn, self.calls = beta, turn, None

    def scalars(self):
        t = self.iter
        if t > self.turn:
            return max(self.beta, 0.9), 0.5
        return self.beta**t / (1 - self.beta ** (t / 3)), 0.3**self.beta

    @staticmethod
    def rule(p, g, m, lr, decay):
        m = decay * m + g
        return p - lr * m, m


def test_powers_round_as_those_of_single_numbers():
    check(Powers, {"beta": np.linspace(0.01, 0.99, 50)}, steps=30)


def test_scalars_that_turn_into_conditions_later(launches):
    values = {"beta": [0.5, 0.95, 0.1], "turn": [2.0] * 3}
    check(Powers, values)
    launches.clear()
    fo.sweep(Powers, start(), values, gradient, 4)
    assert launches == [(21, False)] * 4


def test_scalars_are_computed_once_for_all_copies():
    class Counted(fo.SGD):
        calls = 0

        def scalars(self):
            Counted.calls += 1
            return (self.lr,)

    fo.sweep(Counted, start(), {"lr": LRS}, gradient, 5)
    assert Counted.calls == 5


def test_attributes_that_follow_from_a_hyperparameter():
    class Derived(fo.SGD):
        def __init__(self, lr):
            super().__init__(lr)
            self._half = lr / 2

        def scalars(self):
            return (self._half,)

    check(Derived, {"lr": LRS})
    check(lambda lr: fo.SGD(lr) if lr < 0.1 else Derived(lr), {"lr": LRS})


@pytest.mark.parametrize(
    ("p_dtypes", "g_dtype"), [(("f4", "f8"), None), (("f4", "f4"), "f8"), (("f2", "f2"), None), (("f8", "f8"), "i8")]
)
def test_mixed_dtypes(p_dtypes, g_dtype):
    def gradient(params):
        return {key: np.round(p).astype(g_dtype or p.dtype) for key, p in params.items()}

    def begin():
        return {"x": np.array([1, 5, -3], p_dtypes[0]), "y": np.array(2, p_dtypes[1])}

    result = fo.sweep(fo.Momentum, begin(), {"lr": LRS}, gradient, 5, vectorized=True)
    for k, lr in enumerate(LRS):
        opt, params = fo.Momentum(lr), begin()
        for _ in range(5):
            opt.update(params, gradient(params))
        for key, p in params.items():
            assert_bits(p, result.params[key][k], key)


def test_numbers_and_lists():
    result = fo.sweep(fo.SGD, [-7.0, np.float32(2)], {"lr": np.array(LRS)}, lambda p: [p[0] / 10, 2 * p[1]], 3)
    assert result.losses is None
    assert result.values == {"lr": LRS}
    x, y = result.params
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((3,), np.float64, (3,), np.float32)
    assert x[2] == pytest.approx(-7 * (1 - 0.07) ** 3)


def test_runs_that_leave_the_numbers():
    result = fo.sweep(fo.SGD, {"x": 1.0}, {"lr": [0.1, 1e200]}, lambda p: {"x": p["x"] ** 3}, 9, vectorized=True)
    assert np.isfinite(result.params["x"]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"optimizer": fo.Adam()}, TypeError, r"a class such as fo.Adam, or a function .* not Adam\(lr=0.001"),
        ({"values": [0.1]}, TypeError, r"values must be a dict such as \{'lr': \[0.01, 0.1\]\}, not \[0.1\]"),
        ({"values": {}}, ValueError, r"sequences of one length, but their lengths are \{\}"),
        ({"values": {"lr": [1], "beta1": [0.1, 0.2]}}, ValueError, r"lengths are \{'lr': 1, 'beta1': 2\}"),
        ({"values": {"lr": []}}, ValueError, r"\{'lr': 0\}"),
        ({"values": {"lr": 0.1}}, TypeError, r"the values of 'lr' must be a list such as \[0.01, 0.1\], not 0.1"),
        ({"values": {"lr": [1, -1]}}, ValueError, "lr must be a finite number"),
        ({"values": {"rate": [1]}}, TypeError, "rate"),
        ({"params": {"x": 1}}, TypeError, "parameter 'x' is of type int"),
        ({"gradient": lambda p: {"x": p["x"][0]}}, ValueError, r"of 'x' has shape \(\), expected \(2,\): with"),
        ({"gradient": lambda p: {"y": p["x"]}}, KeyError, "grads has no gradient of 'x'"),
        ({"gradient": lambda p: {"y": p["x"]}, "vectorized": False}, KeyError, "grads has no gradient of 'x'"),
        ({"gradient": lambda _: None}, TypeError, "not params of type dict with grads of type NoneType"),
        ({"gradient": lambda p: p["x"], "vectorized": False}, TypeError, "with grads of type ndarray"),
        ({"loss": lambda _: None, "vectorized": False}, TypeError, "loss must return real numbers, not None"),
        ({"values": {"lr": "0.1"}}, TypeError, r"the values of 'lr' must be a list such as .* not '0.1'"),
        ({"loss": lambda p: p["x"].sum()}, ValueError, r"the loss has shape \(\), expected \(2,\): with"),
        ({"loss": lambda p: [p["x"]], "vectorized": False}, ValueError, r"the loss has shape \(1,\), expected \(\)"),
        ({"gradient": lambda p: p, "params": {"x": np.ones(2)}, "vectorized": False, "loss": lambda p: p["x"]},
         ValueError, r"the loss has shape \(2,\), expected \(\)"),
    ],
)  # fmt: skip
def test_errors(change, error, message):
    given = {"params": {"x": 1.0}, "values": {"lr": [0.1, 0.2]}, "gradient": lambda p: p, "steps": 2} | change
    with pytest.raises(error, match=message):
        fo.sweep(given.pop("optimizer", fo.Adam), **{"vectorized": True, **given})


def test_scalars_that_do_not_fit():
    class Wrong(fo.SGD):
        def scalars(self):
            return (self.lr, 1.0)

    with pytest.raises(TypeError, match=r"after its state, 1 number, but it returned"):
        fo.sweep(Wrong, start(), {"lr": LRS}, gradient, 1)


def test_gradients_that_change_their_dtype():
    dtypes = iter([np.float32, np.float64])
    with pytest.raises(TypeError, match="gradient of 'x' is of dtype float64, and was of float32 before"):
        fo.sweep(
            fo.SGD,
            {"x": np.ones(2, "f4")},
            {"lr": LRS},
            lambda p: {"x": p["x"].astype(next(dtypes))},
            2,
            vectorized=True,
        )
