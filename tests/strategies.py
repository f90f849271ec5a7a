"""Hypothesis strategies for random sequences of updates, and the errors expected of each update."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.lib.array_utils import byte_bounds

import fastoptim as fo
import naive
from naive import keys

LARGE = 3_001


class Adam(naive.Adam):
    """Adam with a Python float as step size: float32 updates stay in float32, as the library documents."""

    def step_size(self):
        return float(super().step_size())


def is_storable(opt):
    """Return whether a file can hold the state: its dtypes and keys mean the same on every machine."""
    # Transforms have slots too.
    arrays = [item for slot in (opt.state_dict()["state"] or {}).values() for item in slot.items()]
    return all(
        a.dtype in (np.float16, np.float32, np.float64) and isinstance(key, str | int | float | tuple | None)
        for key, a in arrays
    )


class NaiveEnvelope(naive.Optimizer):
    slots = ("m", "n")

    def __init__(self, lr=0.1, beta=0.9):
        self.lr, self.beta, self.m, self.n = lr, beta, None, None

    def step(self, p, g, m, n):
        new_m = self.beta * m + (1 - self.beta) * g
        new_n = np.maximum(n, abs(new_m))
        new_p = p - self.lr * new_m / (1 + new_n)
        np.copyto(p, new_p, casting="same_kind")
        # The rule rebinds its state, which then has the dtype of the new value.
        return new_m, new_n


class Envelope(fo.Optimizer):
    """A typical custom rule: it makes new values, while the built-in rules assign in place."""

    slots = ("m", "n")

    def __init__(self, lr=0.1, beta=0.9):
        super().__init__()
        self.lr, self.beta = lr, beta

    def scalars(self):
        return self.lr, self.beta, 1 - self.beta

    @staticmethod
    def rule(p, g, m, n, lr, beta, one_minus_beta):
        m = beta * m + one_minus_beta * g
        n = np.maximum(n, abs(m))
        return p - lr * m / (1 + n), m, n


OPTIMIZERS = {name: (ref, getattr(fo, name)) for name, ref in naive.RULES.items()}
OPTIMIZERS |= {"Adam": (Adam, fo.Adam), "Envelope": (NaiveEnvelope, Envelope)}

TRANSFORMS = {
    "SGD": {"maximize": True, "grad_scale": 0.5, "clip_value": 0.7, "l2": 0.1},
    "Momentum": {"clip_norm": 1.5, "weight_decay": 0.1},
    "Adam": {"accumulate": 2, "centralize": True, "clip_array_norm": 0.5, "ema": 0.9},
    "AdaGrad": {"cautious": True, "lookahead": (2, 0.5)},
}
"""Transforms that are drawn with a rule; few, because each composition is compiled for itself."""


EXTRAS = [(name, extra) for name in OPTIMIZERS for extra in (None, None, "group", "frozen", "schedule")]
EXTRAS += [(name, "transforms") for name in TRANSFORMS] * 5
"""Rules, and what an optimizer has beside its rule."""
ROUNDING = {np.dtype(T): bound for T, bound in [(np.float16, 1e-2), (np.float32, 1e-4), (np.float64, 1e-11)]}
"""How far numbers may differ where the sums of norms are rounded otherwise."""


@dataclass(frozen=True)
class IsKey:
    """A pattern of groups, and of what is frozen, which can be pickled."""

    key: Any

    def __call__(self, key, _array):
        return key == self.key


KEYS = ["W1", "", 0, (2, "b"), None, 2.5, frozenset({1}), b"x", True, -1]
SHAPES = [(3,), (), (2, 3), (0,), (1,), (5, 1), (2, 3, 4), (3, 0), (7, 9), (130,), (LARGE,), (LARGE // 7, 7)]
FLOATS = [np.float64, np.float32, np.float16, np.longdouble]
NUMBERS = [float, np.float64, np.float32, np.float16]
# With more, each rule would be compiled for hundreds of combinations; in the order of the rules, all of them are used.
OTHER_DTYPES = [np.uint8, np.float64, np.float32, np.int64, np.int8, np.float64, np.int32, np.float64]
OTHERS = dict(zip(OPTIMIZERS, OTHER_DTYPES, strict=True))
"""The dtype of gradients, and of state, that differs from that of the parameters, for each rule."""
BAD_GRADIENTS = [None, "text", [1.0], 1j, True, np.ones(3, bool), np.ones(3, complex), np.ones(3, object)]
BAD_GRADIENTS += [np.ma.ones(3), np.array(["a"] * 3), np.ones(3, "M8[s]"), np.bool_(True)]
BAD_PARAMETERS = [None, "text", [1.0], 1j, 3, np.ones(3, int), np.ones(3, bool), np.ones(3, complex), np.ma.ones(3)]
BAD_HYPERPARAMETERS = ["0.1", None, 1j, [0.1]]
MODES = ["plain", "zero", "special", "tiny", "huge"]

# A layout is (order, step, before, shift): the order of the axes in memory; the stride between neighbours in elements,
# negative for a reversed axis; the number of unused elements before each axis; the misalignment in bytes.
PLAIN = ("C", 1, 0, 0)
LAYOUTS = [
    (order, step, before, shift)
    for order in ("C", "F", "rotated")
    for step in (1, 2, -1, -3)
    for before in (0, 2)
    for shift in (0, 1)
]

seeds = st.integers(0, 2**16)
indices = st.integers(0, 5)
layouts = st.just(PLAIN) | st.sampled_from(LAYOUTS)
parameters = st.tuples(st.sampled_from([*FLOATS[:2] * 3, *FLOATS, *NUMBERS]), st.sampled_from(SHAPES), layouts, seeds)
# None stands for the dtype of the parameter, "other" for the one that the rule has in `OTHERS`.
gradients = st.tuples(st.sampled_from([None] * 6 + ["other"] * 3 + NUMBERS), st.none(), layouts, seeds)

# Dicts of one kind, which mixtures of all kinds would rarely give: strided arrays, gradients of another dtype, numbers.
floats = st.sampled_from(FLOATS[:2])
strided = st.sampled_from([layout for layout in LAYOUTS if layout != PLAIN])
strided_entries = st.tuples(
    st.tuples(floats, st.sampled_from(SHAPES), strided, seeds), st.tuples(st.none(), st.none(), layouts, seeds)
)
mixed_entries = st.tuples(
    st.tuples(floats, st.sampled_from(SHAPES), layouts, seeds),
    st.tuples(st.just("other"), st.none(), layouts, seeds),
)
number_entries = st.tuples(
    st.tuples(st.sampled_from([float, *NUMBERS]), st.just(()), st.just(PLAIN), seeds),
    st.tuples(st.sampled_from([None, None, *NUMBERS]), st.none(), st.just(PLAIN), seeds),
)
kinds_of_entries = [st.tuples(parameters, gradients), strided_entries, mixed_entries, number_entries]
entries = st.one_of(*kinds_of_entries)
dicts = st.one_of(*(st.lists(kind, min_size=1, max_size=4) for kind in kinds_of_entries))


def at_a_new_address(a):
    """Return a copy of an array with the same strides and alignment."""
    if not a.size:
        return a.copy()
    start, stop = byte_bounds(a)
    first = a.__array_interface__["data"][0]
    memory = np.empty(stop - start + 64, np.uint8)
    offset = (start - memory.ctypes.data) % 64 + first - start
    copy = np.ndarray(a.shape, a.dtype, memory, offset, a.strides)
    copy[...] = a
    return copy


# A kernel flushes subnormal numbers to zero. Its result may differ by what a rule makes of the smallest normal number,
# which is divided by a root plus 1e-7.
NEAR_ZERO = {np.dtype(T): 1e3 * float(np.finfo(T).smallest_normal) / 1e-7 for T in (np.float32, np.float64)}


def draw(seed, shape, dtype, mode="plain"):
    """Return numbers with absolute values in 0.5 … 2, or zeros, special, tiny or huge numbers."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    a = rng.choice([-1, 1], shape) * rng.uniform(0.5, 2, shape)
    if dtype.kind != "f":
        # At most 10, so that a square does not wrap around in eight bits.
        return np.asarray(abs(5 * a) if dtype.kind == "u" else 5 * a).astype(dtype)
    if mode == "special":
        a = np.where(rng.random(shape) < 0.5, a, rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf], shape))
    a = np.asarray(a).astype(dtype)
    ends = np.finfo(dtype)
    if mode == "tiny":
        return a * (ends.smallest_normal * dtype.type(10.0 ** rng.integers(-5, 4)))
    return a * dtype.type({"zero": 0, "huge": ends.max / 4}.get(mode, 1))


def strides_of(shape, layout):
    """Return strides, start and size of the memory, all in elements."""
    order, step, before, _ = PLAIN if 0 in shape else layout
    axes = list(range(len(shape)))
    axes = {"C": axes[::-1], "F": axes, "rotated": axes[1:] + axes[:1]}[order]
    strides, start, size = [0] * len(shape), 0, 1
    for axis in axes:
        strides[axis] = step * size
        start += size * (before + (-step * max(shape[axis] - 1, 0) if step < 0 else 0))
        size *= abs(step) * shape[axis] + before
    return strides, start, size


def is_number(value):
    return isinstance(value, float | np.floating)


def is_array(value):
    return isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray)


def expected_errors(opt, params, grads, frozen=()):
    """Return the types of all errors that this update may raise, without use of the library's own validation."""
    if isinstance(params, list | tuple) != isinstance(grads, list | tuple):
        return {TypeError}
    errors = set()
    for key in keys(params):
        if key in frozen:
            continue
        p = params[key]
        if not (is_number(p) or is_array(p)) or np.asarray(p).dtype.kind != "f":
            errors.add(TypeError)
        elif is_number(p) and isinstance(params, tuple):
            # A tuple cannot take the new number.
            errors.add(TypeError)
        elif isinstance(p, np.ndarray) and not p.flags.writeable:
            errors.add(ValueError)
        if not (key in grads if not isinstance(grads, list | tuple) else key < len(grads)):
            errors.add(KeyError)
            continue
        g = grads[key]
        if (
            not (is_number(g) or is_array(g) or isinstance(g, int | np.integer))
            or np.asarray(g).dtype.kind not in "iuf"
        ):
            errors.add(TypeError)
        elif np.shape(g) != np.shape(p):
            errors.add(ValueError)
        for slot in opt.slots:
            state = getattr(opt, slot)
            # State without any key, from an update of nothing, is made for the keys that come next.
            if state and key not in state:
                errors.add(KeyError)
            elif state and state[key].shape != np.shape(p):
                errors.add(ValueError)
    return errors
