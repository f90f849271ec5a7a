"""The oracle: the notes' code in plain NumPy, slow and obvious. It imports nothing from fastoptim."""

from collections.abc import Mapping
from copy import copy
from itertools import pairwise
from math import sqrt
from types import MappingProxyType

import numpy as np


def keys(values):
    """The keys of a mapping or the positions of a list."""
    return list(values) if isinstance(values, Mapping) else range(len(values))


class Optimizer:
    """The loop around every rule: keys in order, arrays in place, scalars replaced by new ones of the same type.

    `step` updates the parameter and the state in place; if the notes rebind the state, it returns the new state.
    """

    slots = ()
    iter = 0
    groups = MappingProxyType({})
    """Hyperparameters of some keys."""

    def begin(self, params):
        for slot in self.slots:
            if getattr(self, slot) is None:
                setattr(self, slot, {key: np.zeros_like(params[key], subok=False) for key in keys(params)})

    def update(self, params, grads):
        self.begin(params)
        self.iter += 1
        for key in keys(params):
            value = params[key]
            # A scalar becomes a 0-d array, which the in-place statements of a step can update.
            p = value if isinstance(value, np.ndarray) else np.array(value)
            rule = copy(self)
            vars(rule).update(self.groups.get(key, {}))
            rebound = rule.step(p, grads[key], *(getattr(self, slot)[key] for slot in self.slots))
            for slot, array in zip(self.slots, rebound or (), strict=rebound is not None):
                state = getattr(self, slot)
                if state[key].dtype == array.dtype:
                    # The library keeps the array, which matters if it is also a gradient.
                    state[key][...] = array
                else:
                    state[key] = np.asarray(array)
            if p is not value:
                params[key] = type(value)(p)


class SGD(Optimizer):
    def __init__(self, lr=0.01):
        self.lr = lr

    def step(self, p, g):
        p -= self.lr * g


class Momentum(Optimizer):
    slots = ("v",)

    def __init__(self, lr=0.01, momentum=0.9):
        self.lr, self.momentum, self.v = lr, momentum, None

    def step(self, p, g, v):
        # The notes rebind v, so a float64 gradient makes it float64 even if the parameter is float32.
        v = self.momentum * v - self.lr * g
        p += v
        return (v,)


class Nesterov(Optimizer):
    slots = ("v",)

    def __init__(self, lr=0.01, momentum=0.9):
        self.lr, self.momentum, self.v = lr, momentum, None

    def step(self, p, g, v):
        p += (self.momentum * self.momentum) * v
        p -= ((1 + self.momentum) * self.lr) * g
        v *= self.momentum
        v -= self.lr * g


class AdaGrad(Optimizer):
    slots = ("h",)

    def __init__(self, lr=0.01):
        self.lr, self.h = lr, None

    def step(self, p, g, h):
        h += g * g
        p -= (self.lr * g) / (np.sqrt(h) + 1e-7)


class RMSprop(Optimizer):
    slots = ("h",)

    def __init__(self, lr=0.01, decay_rate=0.99):
        self.lr, self.decay_rate, self.h = lr, decay_rate, None

    def step(self, p, g, h):
        h *= self.decay_rate
        h += ((1 - self.decay_rate) * g) * g
        p -= (self.lr * g) / (np.sqrt(h) + 1e-7)


class Adam(Optimizer):
    slots = ("m", "v")

    def __init__(self, lr=0.001, beta1=0.9, beta2=0.999):
        self.lr, self.beta1, self.beta2, self.m, self.v = lr, beta1, beta2, None, None

    def step_size(self):
        # np.sqrt returns a np.float64, which promotes the last line of the step, and only that, to float64.
        return self.lr * np.sqrt(1 - self.beta2**self.iter) / (1 - self.beta1**self.iter)

    def step(self, p, g, m, v):
        m += (1 - self.beta1) * (g - m)
        v += (1 - self.beta2) * (g * g - v)
        p -= (self.step_size() * m) / (np.sqrt(v) + 1e-7)


class AdamW(Optimizer):
    slots = ("m", "v")

    def __init__(self, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        self.lr, self.beta1, self.beta2, self.eps, self.weight_decay = lr, beta1, beta2, eps, weight_decay
        self.m, self.v = None, None

    def step(self, p, g, m, v):
        root = sqrt(1 - self.beta2**self.iter)
        p *= 1 - self.lr * self.weight_decay
        m += (1 - self.beta1) * (g - m)
        v += (1 - self.beta2) * (g * g - v)
        p -= (self.lr * root / (1 - self.beta1**self.iter) * m) / (np.sqrt(v) + self.eps * root)


RULES = {rule.__name__: rule for rule in Optimizer.__subclasses__()}


def norm(arrays):
    with np.errstate(over="ignore"):
        return np.sqrt(sum(np.sum(np.asarray(a, np.float64) ** 2) for a in arrays))


class Transforms:
    """What surrounds the update of a rule, in the documented order, for parameters that share no memory."""

    def __init__(self, **on):
        self.on = on
        self.reset()

    def reset(self):
        self.accumulated = self.averages = 0
        self.state = {"gradient_mean": {}, "averaged": {}, "slow": {}}

    def update(self, rule, params, grads):
        on, means, averages, slow = self.on, *self.state.values()
        arrays = {key: np.asarray(params[key]) for key in keys(params)}
        grads = {key: grads[key] for key in arrays}
        for key, p in arrays.items():
            # Also where this call only adds to the mean of the gradients, so the dtype is that of these parameters.
            averages.setdefault(key, np.zeros_like(p))
            slow.setdefault(key, p.copy())
        if "centralize" in on:
            # This is linear, so it may come first.
            axes = {key: tuple(range(g.ndim - 1)) for key, g in grads.items() if np.ndim(g) > 1 and g.dtype.kind == "f"}
            grads |= {
                key: g - g.mean(axis, keepdims=True) for key, g in grads.items() if (axis := axes.get(key)) and g.size
            }
        if "maximize" in on or "grad_scale" in on:
            scale = (-1.0 if "maximize" in on else 1.0) * on.get("grad_scale", 1.0)
            grads = {key: g * scale for key, g in grads.items()}
        if "accumulate" in on:
            share = 1 / (self.accumulated + 1)
            for key, g in grads.items():
                mean = means.get(key, np.zeros_like(arrays[key]))
                means[key] = grads[key] = np.where(share == 1, g, mean + (g - mean) * share)
            self.accumulated = (self.accumulated + 1) % on["accumulate"]
            if self.accumulated:
                return
        if limit := on.get("clip_value"):
            grads = {key: np.clip(g, -limit, limit) for key, g in grads.items()}
        if limit := on.get("clip_norm"):
            factor = float(np.minimum(1.0, limit / (norm(grads.values()) + 1e-6)))
            grads = {key: g * factor for key, g in grads.items()}
        if limit := on.get("clip_array_norm"):
            grads = {key: g * float(np.minimum(1.0, limit / (norm([g]) + 1e-6))) for key, g in grads.items()}
        if "l2" in on:
            grads = {key: g + on["l2"] * arrays[key] for key, g in grads.items()}
        for key, p in arrays.items():
            if "weight_decay" in on:
                p *= 1 - rule.groups.get(key, {}).get("lr", rule.lr) * on["weight_decay"]
        before = {key: p.copy() for key, p in arrays.items()}
        rule.update(arrays, grads)
        for key, p in arrays.items():
            step, g = p - before[key], grads[key]
            if "cautious" in on and p.size:
                moves = step * g < 0
                factor = float(1 / np.maximum(np.mean(moves), 1e-3))
                p[...] = before[key] + np.where(moves, step * factor, 0 * step)
            if "ema" in on:
                share = 1 - on["ema"] if self.averages else 1
                averages[key] = np.where(share == 1, p, averages[key] + share * (p - averages[key]))
            if "lookahead" in on:
                k, alpha = on["lookahead"]
                is_due, moved = rule.iter % k == 0, slow[key] + alpha * (p - slow[key])
                p[...], slow[key] = np.where(is_due, moved, p), np.where(is_due, moved, slow[key])
            if p is not params[key]:
                params[key] = type(params[key])(p)
        self.averages += 1


class MultiLayerNet:
    """Fully connected layers, softmax and cross-entropy, in float64."""

    def __init__(
        self,
        input_size,
        hidden_size_list,
        output_size,
        activation="relu",
        weight_init_std="relu",
        weight_decay_lambda=0,
    ):
        self.activation, self.decay = activation, weight_decay_lambda
        sizes = [input_size, *hidden_size_list, output_size]
        self.depth = len(sizes) - 1
        self.params = {}
        for i, (n_in, n_out) in enumerate(pairwise(sizes), 1):
            gain = {"relu": 2, "he": 2, "sigmoid": 1, "xavier": 1}.get(weight_init_std)
            scale = weight_init_std if gain is None else np.sqrt(gain / n_in)
            self.params[f"W{i}"] = scale * np.random.randn(n_in, n_out)
            self.params[f"b{i}"] = np.zeros(n_out)

    def forward(self, x):
        """The inputs of each layer, then the scores."""
        signals = [np.asarray(x, dtype=np.float64)]
        for i in range(1, self.depth + 1):
            z = signals[-1] @ self.params[f"W{i}"] + self.params[f"b{i}"]
            if i < self.depth:
                z = np.maximum(z, 0) if self.activation == "relu" else 1 / (1 + np.exp(-z))
            signals.append(z)
        return signals

    def predict(self, x):
        return self.forward(x)[-1]

    @staticmethod
    def softmax(scores):
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    @staticmethod
    def labels(t):
        return t if t.ndim == 1 else t.argmax(axis=1)

    def loss(self, x, t):
        y = self.softmax(self.predict(x))
        fit = -np.log(y[np.arange(len(y)), self.labels(t)] + 1e-7).mean()
        return fit + sum(0.5 * self.decay * np.sum(self.params[f"W{i}"] ** 2) for i in range(1, self.depth + 1))

    def accuracy(self, x, t):
        return np.mean(self.predict(x).argmax(axis=1) == self.labels(t))

    def gradient(self, x, t):
        *signals, scores = self.forward(x)
        # The derivative of softmax with cross-entropy; the 1e-7, which only guards the logarithm, is left out.
        d = self.softmax(scores)
        d[np.arange(len(d)), self.labels(t)] -= 1
        d /= len(d)
        grads = {}
        for i in range(self.depth, 0, -1):
            a, W = signals[i - 1], self.params[f"W{i}"]
            grads[f"W{i}"], grads[f"b{i}"] = a.T @ d + self.decay * W, d.sum(axis=0)
            # The derivative with respect to the first layer's input is computed too and not used.
            d = (d @ W.T) * ((a > 0) if self.activation == "relu" else a * (1 - a))
        return grads

    def numerical_gradient(self, x, t, h=1e-4):
        grads = {}
        for key, p in self.params.items():
            grads[key] = np.empty_like(p)
            for index in np.ndindex(p.shape):
                middle = p[index]
                p[index] = middle + h
                above = self.loss(x, t)
                p[index] = middle - h
                grads[key][index] = (above - self.loss(x, t)) / (2 * h)
                p[index] = middle
        return grads


# How tests draw their data and compare the library with the oracle.


def draw(rng, shape=(), dtype=np.float64):
    """Numbers with absolute values in 0.5 … 2: far from overflow and subnormal numbers even in float16."""
    return np.asarray(rng.choice([-1, 1], shape) * rng.uniform(0.5, 2, shape)).astype(dtype)


def assert_bits(ref, comp, name=""):
    """Same shape, same dtype, same bytes; -0.0 is not 0.0."""
    ref, comp = np.asarray(ref), np.asarray(comp)
    if ref.dtype == np.longdouble != np.float64:
        # Six of its bytes are padding with arbitrary contents.
        np.testing.assert_array_equal(comp, ref, err_msg=str(name), strict=True)
    elif (ref.shape, ref.dtype, ref.tobytes()) != (comp.shape, comp.dtype, comp.tobytes()):
        np.testing.assert_array_equal(comp, ref, err_msg=str(name), strict=True)
        raise AssertionError(f"{name!r}: equal values with different bits")


def assert_ulps(ref, comp, before, ulps, name=""):
    """Like `assert_bits`, but allow some units in the last place of the larger value, before or after the step."""
    ref, comp, before = (np.asarray(a) for a in (ref, comp, before))
    assert (ref.shape, ref.dtype) == (comp.shape, comp.dtype), name
    unit = np.spacing(np.maximum(abs(before), abs(ref))).astype(np.float64)
    error = abs(ref.astype(np.float64) - comp) / unit
    assert np.all(error <= ulps), f"{name!r}: {error.max():.1f} units in the last place"


def assert_state(ref_opt, comp_opt):
    for slot in ref_opt.slots:
        ref, comp = getattr(ref_opt, slot), getattr(comp_opt, slot)
        assert list(keys(ref)) == list(keys(comp)), slot
        for key in keys(ref):
            assert isinstance(comp[key], np.ndarray), (slot, key)
            assert_bits(ref[key], comp[key], (slot, key))


def assert_step(ref_opt, comp_opt, ref, comp, ref_grads, comp_grads, ulps=2):
    """Step the oracle and the library once; values, identities, gradients and state must agree.

    The bits must be equal, except those of Adam's parameters below float64: the notes compute their last line in
    float64, from which pure float32 may differ by `ulps`. The parameters are then set to the oracle's values, so that
    the next step starts from the same bits.
    """
    before = {key: np.array(ref[key]) for key in keys(ref)}
    originals = {key: comp[key] for key in keys(comp)}
    ref_opt.update(ref, ref_grads)
    assert comp_opt.update(comp, comp_grads) is None
    assert list(keys(ref)) == list(keys(comp))
    for key in keys(ref):
        assert type(comp[key]) is type(originals[key]), key
        assert comp[key] is originals[key] or not isinstance(originals[key], np.ndarray), f"{key!r} was rebound"
        assert_bits(ref_grads[key], comp_grads[key], ("gradient", key))
        if isinstance(ref_opt, Adam) and before[key].dtype != np.float64:
            assert_ulps(ref[key], comp[key], before[key], ulps, key)
            if isinstance(comp[key], np.ndarray):
                comp[key][...] = ref[key]
            else:
                comp[key] = ref[key]
        else:
            assert_bits(ref[key], comp[key], key)
    assert_state(ref_opt, comp_opt)
