"""The rules beyond the notes, against their formulas in plain NumPy: one table."""

import copy
import pickle
from math import sqrt

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastoptim as fo
from fastoptim.family import FAMILY
from naive import assert_bits

LR, B1, B2 = 0.01, 0.9, 0.999


def ema(x, new, beta):
    return beta * x + (1 - beta) * new


def halved(k):
    """A learning rate that drops, by which velocities with and without it can be told apart."""
    return LR if k < 30 else LR / 2


# A step returns the new parameter; `s` is the state, a dict of zeros at first, and `t` counts from 1.


def sgd(p, g, _s, _t):
    return p - LR * g


def momentum(like, dampening=0.0):
    def step(p, g, s, t):
        lr, share = halved(t - 1), 1 - dampening if t > 1 else 1.0
        if like in {"torch", "optax"}:
            s["b"] = 0.9 * s["b"] + share * g
            return p - lr * s["b"]
        s["b"] = 0.9 * s["b"] + lr * share * g
        return p - s["b"]

    return step


def nesterov(like):
    def step(p, g, s, t):
        lr = halved(t - 1)
        if like in {"torch", "optax"}:
            s["b"] = 0.9 * s["b"] + g
            return p - lr * (g + 0.9 * s["b"])
        s["b"] = 0.9 * s["b"] + lr * g
        return p - (lr * g + 0.9 * s["b"])

    return step


def adagrad(like, lr_decay=0.0):
    start, eps = {"notes": (0, 1e-7), "torch": (0, 1e-10)}.get(like, (0.1, 1e-7))

    def step(p, g, s, t):
        s["h"] = (s["h"] if t > 1 else start) + g * g
        root = np.sqrt(s["h"] + eps) if like in {"optax", "keras"} else np.sqrt(s["h"]) + eps
        return p - halved(t - 1) / (1 + (t - 1) * lr_decay) * g / root

    return step


def rmsprop(like, centered, momentum):
    rho, eps = {"notes": (0.99, 1e-7), "torch": (0.99, 1e-8), "optax": (0.9, 1e-8), "keras": (0.9, 1e-7)}[like]

    def step(p, g, s, t):
        lr = halved(t - 1)
        s["h"], s["a"] = ema(s["h"], g * g, rho), ema(s["a"], g, rho)
        variance = s["h"] - s["a"] ** 2 if centered else s["h"]
        is_inside = like in {"optax", "keras"}
        scaled = g / (np.sqrt(variance + eps) if is_inside else np.sqrt(np.maximum(variance, 0)) + eps)
        if is_inside:
            s["b"] = momentum * s["b"] + lr * scaled
            return p - s["b"]
        s["b"] = momentum * s["b"] + scaled
        return p - lr * s["b"]

    return step


def amsgrad(like):
    def step(p, g, s, t):
        c1, c2 = 1 - B1**t, 1 - B2**t
        s["m"], s["v"] = ema(s["m"], g, B1), ema(s["v"], g * g, B2)
        s["h"] = np.maximum(s["h"], s["v"] / c2 if like == "optax" else s["v"])
        root = {"torch": np.sqrt(s["h"] / c2) + 1e-8, "optax": np.sqrt(s["h"]) + 1e-8}.get(like)
        if like == "keras":
            return p - LR * sqrt(c2) / c1 * s["m"] / (np.sqrt(s["h"]) + 1e-7)
        return p - LR * s["m"] / c1 / root

    return step


def adamax(like):
    def step(p, g, s, t):
        s["m"] = ema(s["m"], g, B1)
        s["u"] = np.maximum(B2 * s["u"], abs(g) + (0 if like == "keras" else 1e-8))
        return p - LR / (1 - B1**t) * s["m"] / (s["u"] + (1e-7 if like == "keras" else 0))

    return step


def nadam(like):
    psi, eps = {"torch": (4e-3, 1e-8), "keras": (1.0, 1e-7), "optax": (0, 1e-8)}[like]

    def step(p, g, s, t):
        mu, after = (B1 * (1 - 0.5 * 0.96 ** (psi * k)) for k in (t, t + 1))
        s["product"] = s.get("product", 1) * mu
        s["m"], s["v"] = ema(s["m"], g, B1), ema(s["v"], g * g, B2)
        mean = after * s["m"] / (1 - s["product"] * after) + (1 - mu) * g / (1 - s["product"])
        if like == "optax":
            mean = B1 * s["m"] / (1 - B1 ** (t + 1)) + (1 - B1) * g / (1 - B1**t)
        return p - LR * mean / (np.sqrt(s["v"] / (1 - B2**t)) + eps)

    return step


def rectified(m, v, t, eps, after):
    m, limit = m / (1 - B1**t), 2 / (1 - B2) - 1
    rho = limit - 2 * t * B2**t / (1 - B2**t)
    if rho <= 5:
        return m
    r = sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    if after:
        return r * m / (np.sqrt(v / (1 - B2**t)) + eps)
    return r * m * sqrt(1 - B2**t) / (np.sqrt(v) + eps)


def radam(like):
    def step(p, g, s, t):
        s["m"], s["v"] = ema(s["m"], g, B1), ema(s["v"], g * g, B2)
        return p - LR * rectified(s["m"], s["v"], t, 1e-8, after=like == "optax")

    return step


def corrected(p, m, v, t, eps):
    return p - LR * (m / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + eps)


def adam(eps, first):
    def step(p, g, s, t):
        s["m"], s["v"] = ema(s["m"], g, B1), ema(s["v"], g * g, B2)
        if first:
            return corrected(p, s["m"], s["v"], t, eps)
        return p - LR * sqrt(1 - B2**t) / (1 - B1**t) * s["m"] / (np.sqrt(s["v"]) + eps)

    return step


def adabelief(like):
    def step(p, g, s, t):
        s["m"] = ema(s["m"], g, B1)
        s["s"] = ema(s["s"], (g - s["m"]) ** 2, B2) + 1e-16
        if like == "optax":
            return corrected(p, s["m"], s["s"], t, 1e-16)
        return p - LR * rectified(s["m"], s["s"], t, 1e-16, after=False)

    return step


def yogi(p, g, s, t):
    if t == 1:
        s["m"], s["v"] = 1e-6 + 0 * p, 1e-6 + 0 * p
    s["m"] = ema(s["m"], g, B1)
    s["v"] = s["v"] - (1 - B2) * np.sign(s["v"] - g * g) * g * g
    return corrected(p, s["m"], s["v"], t, 1e-3)


def grams(p, g, s, t):
    s["m"], s["v"] = ema(s["m"], g, B1), ema(s["v"], g * g, B2)
    return p - abs(corrected(0, s["m"], s["v"], t, 1e-8)) * np.sign(g)


def adopt(exponent):
    def step(p, g, s, t):
        if t > 1:
            bound = (t - 1) ** exponent
            s["m"] = ema(s["m"], np.clip(g / np.maximum(np.sqrt(s["v"]), 1e-6), -bound, bound), B1)
            p = p - LR * s["m"]
        s["v"] = ema(s["v"], g * g, 0.9999) if t > 1 else g * g
        return p

    return step


def ademamix(p, g, s, t):
    s["m"], s["n"], s["v"] = ema(s["m"], g, B1), ema(s["n"], g, 0.9999), ema(s["v"], g * g, B2)
    return p - LR * (s["m"] / (1 - B1**t) + 5 * s["n"]) / (np.sqrt(s["v"] / (1 - B2**t)) + 1e-8)


def adan(decay):
    def step(p, g, s, t):
        d = g - s.get("previous", g)
        s["m"], s["v"], s["n"] = ema(s["m"], g, 0.98), ema(s["v"], d, 0.92), ema(s["n"], (g + 0.92 * d) ** 2, 0.99)
        s["previous"] = g
        mean = s["m"] / (1 - 0.98**t) + 0.92 * s["v"] / (1 - 0.92**t)
        return (p - LR * mean / (np.sqrt(s["n"] / (1 - 0.99**t)) + 1e-8)) / (1 + LR * decay)

    return step


def adadelta(like):
    rho, eps = {"keras": (0.95, 1e-7)}.get(like, (0.9, 1e-6))

    def step(p, g, s, _t):
        s["s"] = ema(s["s"], g * g, rho)
        step = np.sqrt(s["a"] + eps) / np.sqrt(s["s"] + eps) * g
        s["a"] = ema(s["a"], step * step, rho)
        return p - LR * step

    return step


def lamb(like, decay):
    def step(p, g, s, t):
        s["m"], s["v"] = ema(s["m"], g, B1), ema(s["v"], g * g, B2)
        if like == "keras":
            p = p - LR * decay * p
        step = s["m"] / (1 - B1**t) / (np.sqrt(s["v"] / (1 - B2**t)) + (1e-7 if like == "keras" else 1e-6))
        step = step + (0 if like == "keras" else decay) * p
        norms = np.linalg.norm(p), np.linalg.norm(step), decay or like != "timm"
        return p - LR * (norms[0] / norms[1] if all(norms) else 1) * step

    return step


def lars(like, decay):
    def step(p, g, s, _t):
        r = np.linalg.norm
        u, norm = g + decay * p, r(g + decay * p) if like == "optax" else r(g) + decay * r(p) + 1e-8 * (like == "timm")
        ratio = 0.1 * r(p) / norm if r(p) and r(g) and (decay or like != "timm") else 1
        s["v"] = 0.8 * s["v"] + (ratio * u if like == "timm" else LR * ratio * u)
        return p - s["v"] * (LR if like == "timm" else 1)

    return step


def sign_sgd(p, g, _s, _t):
    return p - LR * np.sign(g)


def signum(p, g, s, _t):
    s["m"] = ema(s["m"], g, B1)
    return p - LR * np.sign(s["m"])


def lion(decay):
    def step(p, g, s, _t):
        p = p - LR * (np.sign(ema(s["m"], g, B1)) + decay * p)
        s["m"] = ema(s["m"], g, 0.99)
        return p

    return step


def rprop(p, g, s, _t):
    agreement = np.sign(g * s.get("previous", 0))
    s["step"] = np.clip(s.get("step", LR) * np.choose(agreement.astype(int) + 1, [0.5, 1, 1.2]), 0.004, 0.02)
    s["previous"] = g * (agreement >= 0)
    return p - s["step"] * np.sign(s["previous"])


def schedule_free(scaled, decay=0, warmup=0, rho=0, power=2):
    """The paper's three sequences, of which the optimizer keeps two."""

    def step(p, g, s, t):
        lr = LR * min(1, t / warmup) if warmup else LR
        weight = t**rho * lr**power
        s["weights"] = s.get("weights", 0) + weight
        c = weight / s["weights"]
        if scaled:
            s["v"] = ema(s["v"], g * g, 0.99)
            g = g / (np.sqrt(s["v"] / (1 - 0.99**t)) + 1e-8)
        s["z"] = s.get("z", p) - lr * (g + decay * p)
        s["x"] = (1 - c) * s.get("x", p) + c * s["z"]
        return 0.1 * s["z"] + 0.9 * s["x"]

    return step


def prodigy(d_coef, corrected=False, safeguard=False):
    def step(p, g, s, t):
        d, p0, beta3 = s.setdefault("d", 1e-6), s.setdefault("p0", p), sqrt(B2)
        delta = d * LR * (sqrt(1 - B2**t) / (1 - B1**t) if corrected else 1)
        s["A"] = ema(s.get("A", 0), 0, beta3) + d / 1e-6 * delta * (g * (p0 - p)).sum()
        s["m"], s["v"] = ema(s["m"], d * g, B1), ema(s["v"], (d * g) ** 2, B2)
        s["s"] = beta3 * s["s"] + d / 1e-6 * (d if safeguard else delta) * g
        s["d"] = max(d, d_coef * s["A"] / abs(s["s"]).sum())
        # `p0 - p` cancels at first, so `p` must round alike.
        return p - delta * 0.1 * p - delta * s["m"] / (np.sqrt(s["v"]) + s["d"] * 1e-8)

    return step


def muon(like, nesterov=True, rms=0):
    torch, mu = like == "torch", 0.95

    def step(p, g, s, t):
        if p.ndim != 2:
            return nadam("optax")(p, g, s, t) if like == "optax" and nesterov else adam(1e-8, first=True)(p, g, s, t)
        s["m"] = ema(s["m"], g, mu)
        u = ema(s["m"], g, mu) if nesterov else s["m"]
        if not torch:
            u = mu * s["m"] / (1 - mu ** (t + 1)) + (1 - mu) * g / (1 - mu**t) if nesterov else s["m"] / (1 - mu**t)
        norm = np.linalg.norm(u)
        x = u.T / (max(norm, 1e-7) if torch else norm + 1e-8)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        rows, columns = p.shape
        factor = rms * sqrt(rows) if rms else sqrt(rows / columns) if torch else 1
        return p - LR * factor * x.T

    return step


def adafactor(decay=0.0, threshold=1.0):
    def rms(x):
        return np.sqrt(np.mean(x * x))

    def step(p, g, s, t):
        eps, share = np.finfo(p.dtype).eps, t**-0.8
        size = max(1e-3, rms(p)) * min(LR, t**-0.5)
        if p.ndim > 1:
            s["rows"] = ema(s.get("rows", 0), (g * g).mean(axis=-1, keepdims=True), 1 - share)
            s["columns"] = ema(s.get("columns", 0), (g * g).mean(axis=-2, keepdims=True), 1 - share)
            v = s["rows"] * s["columns"] / np.maximum(s["rows"].mean(axis=-2, keepdims=True), eps)
        else:
            v = s["v"] = ema(s["v"], g * g, 1 - share)
        u = g / np.sqrt(np.maximum(v, eps**2))
        return p * (1 - LR * decay) - size * u / max(1, rms(u) / threshold)

    return step


LIBRARIES = "notes", "torch", "optax", "keras"
CASES = [
    *((fo.SGD, {"like": like}, sgd) for like in LIBRARIES),
    *((fo.Momentum, {"like": like, "lr": halved}, momentum(like)) for like in LIBRARIES),
    *((fo.Momentum, {"like": x, "lr": halved, "dampening": 0.5}, momentum(x, 0.5)) for x in ("notes", "torch")),
    *((fo.Nesterov, {"like": like, "lr": halved}, nesterov(like)) for like in LIBRARIES),
    *((fo.AdaGrad, {"like": like, "lr": halved}, adagrad(like)) for like in LIBRARIES),
    (fo.AdaGrad, {"lr": halved, "lr_decay": 0.1}, adagrad("notes", 0.1)),
    *(
        (fo.RMSprop, {"like": like, "lr": halved, "centered": centered, "momentum": mu}, rmsprop(like, centered, mu))
        for like in LIBRARIES
        for centered in (False, True)
        for mu in (0.0, 0.9)
    ),
    (fo.Adam, {"like": "torch"}, adam(1e-8, first=True)),
    (fo.Adam, {"like": "optax"}, adam(1e-8, first=True)),
    (fo.Adam, {"like": "keras"}, adam(1e-7, first=False)),
    *((fo.AMSGrad, {"like": like}, amsgrad(like)) for like in ("torch", "optax", "keras")),
    *((fo.AdaMax, {"like": like}, adamax(like)) for like in ("torch", "optax", "keras")),
    *((fo.NAdam, {"like": like}, nadam(like)) for like in ("torch", "optax", "keras")),
    *((fo.RAdam, {"like": like}, radam(like)) for like in ("torch", "optax")),
    *((fo.AdaBelief, {"like": like}, adabelief(like)) for like in ("optax", "timm")),
    (fo.Yogi, {}, yogi),
    (fo.Grams, {}, grams),
    *((fo.ADOPT, {"like": like}, adopt(exponent)) for like, exponent in {"optax": 0.25, "timm": 0.333}.items()),
    (fo.AdEMAMix, {}, ademamix),
    *((fo.Adan, {"weight_decay": decay}, adan(decay or 0)) for decay in (None, 0.1)),
    *((fo.AdaDelta, {"like": like}, adadelta(like)) for like in ("torch", "optax", "keras")),
    (fo.LAMB, {}, lamb("optax", 0)),
    *((fo.LAMB, {"like": like, "weight_decay": 0.1}, lamb(like, 0.1)) for like in ("optax", "keras", "timm")),
    (fo.LAMB, {"like": "timm", "weight_decay": None}, lamb("timm", 0)),
    *(
        (fo.LARS, {"momentum": 0.8, "trust_coefficient": 0.1, "like": like, "weight_decay": decay}, lars(like, decay))
        for like, decay in [("paper", 0.1), ("optax", 0.1), ("timm", 0.1), ("timm", 0)]
    ),
    (fo.SignSGD, {}, sign_sgd),
    (fo.Signum, {}, signum),
    *((fo.Lion, {"like": like}, lion(decay)) for like, decay in {"paper": 0, "optax": 1e-3, "keras": 0}.items()),
    (fo.ScheduleFreeSGD, {}, schedule_free(scaled=False)),
    (
        fo.ScheduleFreeSGD,
        {"weight_decay": 0.1, "warmup": 20, "rho": 1, "power": 1},
        schedule_free(scaled=False, decay=0.1, warmup=20, rho=1, power=1),
    ),
    (fo.ScheduleFreeAdamW, {"beta2": 0.99}, schedule_free(scaled=True)),
    (fo.ScheduleFreeAdamW, {"beta2": 0.99, "weight_decay": 0.1, "warmup": 20}, schedule_free(True, 0.1, 20)),
    (fo.Rprop, {"step_min": 0.004, "step_max": 0.02}, rprop),
    *(
        (fo.Muon, {"like": x, "nesterov": y, "weight_decay": None}, muon(x, y))
        for x in ("torch", "optax")
        for y in (False, True)
    ),
    (fo.Muon, {"consistent_rms": 0.2}, muon("optax", rms=0.2)),
    (fo.Adafactor, {}, adafactor()),
    (fo.Adafactor, {"weight_decay": 0.1, "clip_threshold": 0.5}, adafactor(0.1, 0.5)),
    (fo.Prodigy, {"d_coef": 2000, "weight_decay": 0.1, "safeguard_warmup": True}, prodigy(2000, safeguard=True)),
    (fo.Prodigy, {"d_coef": 20, "weight_decay": 0.1, "bias_correction": True}, prodigy(20, corrected=True)),
]
SHAPES = {"W": (6, 5), "zero": (4,), "tiny": (7,), "tiny from zero": (5,)}
"""Where gradients are near epsilon, and a parameter is the sum of its steps, the rules of libraries differ most."""


def parameters():
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(shape) * ("zero" not in key) for key, shape in SHAPES.items()}


def gradients(t):
    rng = np.random.default_rng([1, t])
    grads = {key: rng.standard_normal(shape) for key, shape in SHAPES.items()}
    grads["W"][rng.random((6, 5)) < 0.1] = 0
    for key in grads:
        grads[key] *= 1e-7 if "tiny" in key else 1
    return grads


def joined(arrays):
    return {"all": np.concatenate([array.ravel() for array in arrays.values()])}


def named(value):
    """Return a name of a case that is the same in each process of pytest-xdist."""
    if isinstance(value, dict):
        return " ".join(f"{key}={named(each)}" for key, each in value.items())
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("cls", "keywords", "step"), CASES, ids=named)
def test_each_follows_its_formula(cls, keywords, step):
    opt, params = cls(**{"lr": LR, **keywords}), parameters()
    # What sums over all arrays takes them as one.
    taken = joined if cls.shared else dict
    expected = taken(parameters())
    state = {key: dict.fromkeys("abhmnsuv", 0.0) for key in expected}
    for t in range(1, 61):
        # Prodigy's estimate grows where gradients agree.
        grads = gradients(1 if cls.shared and t < 30 else t)
        opt.update(params, grads)
        for key, g in taken(grads).items():
            expected[key] = step(expected[key], g, state[key], t)
    params = taken(params)
    assert all(vars(opt)[name] != first for name, first in cls.shared.items())
    for key, p in params.items():
        assert_allclose(p, expected[key], rtol=0, atol=1e-12 * abs(expected[key]).max(), err_msg=key)


@pytest.mark.parametrize("name", FAMILY)
def test_a_run_that_is_resumed(name):
    opt, params = getattr(fo, name)(), parameters()
    for t in range(1, 4):
        opt.update(params, gradients(t))
    other, twin = type(opt)(), fo.flatten(params)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert repr(other) == repr(opt)
    for t in range(4, 8):
        opt.update(params, gradients(t))
        other.update(twin, fo.flatten(gradients(t)))
    for key, p in params.items():
        assert_bits(p, twin[key], key)


@pytest.mark.parametrize("name", FAMILY)
def test_zero_gradients_and_descent(name):
    opt, params = getattr(fo, name)(), {"w": np.array([1.0, -1.0, 0.5])}
    for _ in range(3):
        opt.update(params, {"w": np.zeros(3)})
    assert np.isfinite(params["w"]).all()
    opt, params = getattr(fo, name)(lr=0.05), {"w": np.array([1.0, -1.0, 0.5])}
    for _ in range(20):
        opt.update(params, {"w": params["w"].copy()})
    assert (params["w"] ** 2).sum() < 2.25


@pytest.mark.parametrize("like", ["paper", "timm"])
def test_ratios_of_groups(like):
    """Each array's ratio follows from the hyperparameters of its group."""
    own = {"weight_decay": None, "trust_coefficient": 0.5, "eps": 0.1}
    opt, params = fo.LARS(like=like, weight_decay=0.1, groups={"W": own | {"weight_decay": 0.0}}), parameters()
    alone = {"W": fo.LARS(like=like, **own), "tiny": fo.LARS(like=like, weight_decay=0.1)}
    for t in range(1, 4):
        opt.update(params, gradients(t))
    for key, other in alone.items():
        p = {key: parameters()[key]}
        for t in range(1, 4):
            other.update(p, {key: gradients(t)[key]})
        assert_bits(params[key], p[key], key)


@pytest.mark.parametrize("name", FAMILY)
def test_descent_into_the_valley_of_rosenbrock(name):
    opt, params = getattr(fo, name)(lr=1e-3), {"x": np.array([-1.2, 1.0])}

    def loss(x, y):
        return (1 - x) ** 2 + 100 * (y - x * x) ** 2

    losses = [loss(*params["x"])]
    for _ in range(300):
        x, y = params["x"]
        opt.update(params, {"x": np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])})
        losses.append(loss(*params["x"]))
    # Steps of one length go to and fro across the valley.
    assert max(losses[100:]) < losses[0]


@pytest.mark.parametrize("name", FAMILY)
def test_flat_dicts_threads_and_groups_have_the_same_bits(name, compiled, monkeypatch):
    cls = getattr(fo, name)
    monkeypatch.setattr(fo.threads, "_PARALLEL_FROM", 16)

    def ends(opt, layout=dict, n_threads=1):
        params = layout(parameters())
        with fo.num_threads(n_threads):
            for t in range(1, 5):
                opt.update(params, layout(gradients(t)))
        return {key: np.array(p) for key, p in params.items()}

    expected = ends(cls())
    # The parallel loop is compiled once for all rules, here if the cache is empty.
    ends(cls(), n_threads=2)
    compiled.clear()
    for n_threads in 1, 2:
        for key, p in ends(cls(), fo.flatten, n_threads).items():
            assert_bits(expected[key], p, key)
    groups = {"tiny": {"lr": 0.5}}
    other, both = ends(cls(lr=0.5)), ends(cls(groups=groups), fo.flatten, 2)
    # What Prodigy estimates belongs to all arrays.
    for key, p in both.items() if not cls.shared else ():
        assert_bits((other if key in groups else expected)[key], p, key)
    assert compiled == []


@pytest.mark.parametrize("name", FAMILY)
def test_a_missing_gradient_changes_nothing(name):
    opt, params = getattr(fo, name)(), parameters()
    opt.update(params, gradients(1))
    before, state = copy.deepcopy(params), pickle.dumps(opt)
    with pytest.raises(KeyError, match="no gradient of 'tiny'"):
        opt.update(params, {key: g for key, g in gradients(2).items() if key != "tiny"})
    assert pickle.dumps(opt) == state
    for key, p in params.items():
        assert_bits(before[key], p, key)


def test_a_decay_that_is_off_stays_off_in_copies():
    opt = fo.AdamW(weight_decay=None)
    assert copy.copy(opt).weight_decay is None
    assert repr(pickle.loads(pickle.dumps(opt))) == repr(opt)


def test_a_failed_step_leaves_the_running_numbers():
    opt, params = fo.NAdam(groups={"b": {"beta1": 0.5}}), {"a": np.ones(2), "b": np.ones(2)}
    opt.update(params, {"a": np.ones(2), "b": np.ones(2)})
    before = repr(opt)
    assert opt.product != opt.product_1
    with pytest.raises(ValueError, match="shape"):
        opt.update(params, {"a": np.ones(2), "b": np.ones(3)})
    assert repr(opt) == before


def test_groups_share_the_estimate_and_a_failed_step_leaves_it():
    class Failing(fo.Prodigy):
        def ratios(self, *args):
            return super().ratios(*args) if self.iter < 5 else int("x")

    opt, params = Failing(groups={"zero": {"lr": 0.5}}), parameters()
    other, twin = fo.Prodigy(groups={"zero": {"lr": 0.5}}), fo.flatten(parameters())
    for _ in range(1, 5):
        opt.update(params, gradients(1))
        other.update(twin, fo.flatten(gradients(1)))
    for key, p in params.items():
        assert_bits(p, twin[key], key)
    before = opt.d, opt.numerator
    assert before == (other.d, other.numerator)
    assert opt.d > opt.d0
    with pytest.raises(ValueError, match="invalid literal"):
        opt.update(params, gradients(5))
    assert (opt.d, opt.numerator, opt.iter) == (*before, 4)
    with pytest.raises(ValueError, match="a group cannot have 'd'"):
        opt.groups = {"W": {"d": 1.0}}
