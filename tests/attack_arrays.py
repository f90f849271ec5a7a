"""Alter arrays between and during updates, between guard pages: each update does what NumPy does, or raises an error.

``python tests/attack_arrays.py 1000`` alters a thousand times. All arrays, and the state, begin or end at a page that
must not be touched. The oracle updates a copy of their memory, which must then equal it, beside the arrays as well.
"""

import copy
import mmap
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from ctypes import CDLL, addressof, c_char, c_int, c_size_t, c_void_p
from types import SimpleNamespace

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.lib.stride_tricks import as_strided

import fastoptim as fo
from fastoptim.parameters import FlatDict, Layout
from fastoptim.update.layout import address
from strategies import BAD_GRADIENTS, BAD_PARAMETERS, LAYOUTS, OPTIMIZERS, PLAIN, expected_errors, is_array, strides_of

DTYPES = [np.float64] * 4 + [np.float32] * 3 + [np.longdouble]
SHAPES = [(3,), (), (2, 3), (0,), (1,), (2, 3, 4), (3, 0), (7, 9), (130,), (523,), (11, 50)]
LAYOUTS = [PLAIN] * 24 + [layout for layout in LAYOUTS if abs(layout[1]) < 3]
DOCUMENTED = KeyError, TypeError, ValueError, RuntimeError
DURING = ["shape", "strides", "dtype", "flags", "repeat", "turn", "bind", "bind all", "exchange", "overlap", "buffer"]
DURING += ["state", "alias state", "forget state", "spoil", "number", "drop"]
# Memory that is freed while an update runs is not protected; and NaN would hide what the oracle writes.
BETWEEN = [*DURING, "resize", "nan"]
GUARD, SIZE, N_BLOCKS, PATTERN = mmap.PAGESIZE, 10 * mmap.PAGESIZE, 60, 0xA5
PITCH = GUARD + SIZE
MEMORY = mmap.mmap(-1, N_BLOCKS * PITCH + GUARD)
BLOCKS = [(c_char * SIZE).from_buffer(MEMORY, GUARD + k * PITCH) for k in range(N_BLOCKS)]
START = addressof(BLOCKS[0])
ALL = as_strided(np.frombuffer(BLOCKS[0], np.uint8), (N_BLOCKS, SIZE), (PITCH, 1))
protect = CDLL(None).mprotect
protect.argtypes = c_void_p, c_size_t, c_int
assert not any(protect(START - GUARD + k * PITCH, GUARD, 0) for k in range(N_BLOCKS + 1))


class Meddling(dict):
    """A dict that calls a function when it is asked for an item or its length."""

    def __getitem__(self, key):
        Meddling.act()
        return super().__getitem__(key)

    def __len__(self):
        Meddling.act()
        return super().__len__()


class Story:
    """An optimizer, and dicts whose arrays lie in blocks between guard pages."""

    def __init__(self, rng):
        self.rng, self.free, self.made, self.is_state_altered, self.countdown = rng, [*range(N_BLOCKS)], [], False, -1
        self.is_inside = np.zeros((N_BLOCKS, SIZE), bool)
        self.ref, self.opt = (cls() for cls in OPTIMIZERS[self.choice(["Momentum", "Adam"])])
        # What alters during updates is called by containers and for the scalars of a step.
        FlatDict.zeros, Meddling.act, scalars = self.zeros, self.meddle, self.opt.scalars
        vars(self.opt)["scalars"] = lambda: self.meddle() or scalars()
        self.begin({key: self.choice(SHAPES) for key in "abc"[: rng.integers(1, 4)]}, fo.flatten)

    def begin(self, shapes, *kinds):
        params = {key: self.array(shape) for key, shape in shapes.items()}
        grads = {key: self.array(p.shape, self.choice([p.dtype] * 3 + DTYPES[2:6])) for key, p in params.items()}
        kind, dtype = self.choice([dict, Meddling, *kinds]), self.choice(DTYPES[:7])
        self.params, self.grads = (kind(c, dtype) if kind is fo.flatten else kind(c) for c in (params, grads))

    def choice(self, values):
        return values[self.rng.integers(len(values))]

    def array(self, shape, dtype=None, layout=None):
        """Return an array that begins, or ends, at a guard page."""
        dtype, layout, k = np.dtype(dtype or self.choice(DTYPES)), layout or self.choice(LAYOUTS), self.free.pop(0)
        strides = [n * dtype.itemsize for n in strides_of(shape, layout)[0]]
        ends = [(n - 1) * step for n, step in zip(shape, strides, strict=True) if 0 not in shape]
        low, high = sum(min(end, 0) for end in ends), sum(max(end, 0) for end in ends) + dtype.itemsize
        start = self.choice([layout[3] - low, SIZE - layout[3] - high])
        ALL[k], self.is_inside[k, start + low : start + high] = PATTERN, True
        return self.fill(np.ndarray(shape, dtype, BLOCKS[k], start, strides))

    def fill(self, a, value=None):
        """Fill an array with a number, or with numbers in 0.5 … 2 each half of which is one in float32."""
        if type(a) is np.ndarray and a.dtype.kind in "fi" and a.flags.writeable:
            halves = self.rng.uniform(0.5, 2, 2 * a.size).astype(np.float32)
            numbers = halves.view(a.dtype) if a.itemsize == 8 else halves[: a.size]
            a[...] = numbers.reshape(a.shape) if value is None else value
        return a

    def zeros(self, layout):
        buffers = {dtype: self.fill(self.array((n,), dtype, PLAIN), 0) for dtype, n in layout.sizes.items()}
        self.made += buffers.values()
        return FlatDict(layout, buffers)

    def get(self, which, key):
        value = dict.get(getattr(self, which), key)
        return value if type(value) is np.ndarray else self.array((3,))

    def put(self, which, key, value):
        """Bind a key to a value; flat dicts become plain ones."""
        if isinstance(self.params, FlatDict):
            self.params, self.grads = dict(self.params), dict(self.grads)
        dict.__setitem__(getattr(self, which), key, value)

    def alter(self, ways):
        which, key, other = self.choice(["params", "grads"]), *(self.choice([*dict.keys(self.params)]) for _ in "ab")
        choice, state = self.choice, (self.opt._state or {}).values()
        a, p, q = self.get(which, key), self.get("params", key), self.get("params", other)
        match choice(ways):
            case "shape":
                a.shape = choice([(-1,), (1, -1), a.shape[::-1], (a.size // 2, 2), (*a.shape, 1)])
            case "strides":
                set_strides(a, choice([a.strides[::-1], [0] * a.ndim]))
            case "dtype":
                a.dtype = choice([np.float32, np.float64, np.int64] if a.itemsize < 16 else [np.complex128])
            case "flags":
                a.flags.writeable = choice([False, True])
            case "repeat":
                self.put(which, key, as_strided(a, a.shape, [0, *a.strides[1:]][: a.ndim]))
            case "turn":
                turn = choice([np.transpose, np.flip, np.ravel, lambda a: a[::-1], lambda a: a[:-1], lambda a: a[::2]])
                for name in choice([("params", "grads"), (which,)]):
                    self.put(name, key, turn(self.get(name, key)))
            case "bind":
                self.put(which, key, self.array(choice([p.shape] * 3 + SHAPES)))
            case "bind all":
                self.begin({key: np.shape(value) for key, value in dict.items(self.params)})
            case "exchange":
                self.put(which, key, self.get("grads", other))
                self.put("grads", other, a)
            case "overlap":
                both, shift, step = self.array((1500,), p.dtype, PLAIN), choice([0, 1, 3]), choice([1, -1])
                self.put(which, other, both[shift : shift + q.size][::step].reshape(q.shape))
                self.put("params", key, both[: p.size].reshape(p.shape))
            case "buffer":
                self.is_state_altered = True
                flat = choice([self.params, self.grads, *state])
                flat._flat = self.array((choice([max(flat.flat.size - 1, 0), 4999]),), np.float64, PLAIN)
            case "state":
                self.is_state_altered, a = True, choice([*state])[key]
                set_strides(a, a.strides[::-1])
                a.dtype, a.flags.writeable = choice([a.dtype, *DTYPES]), choice([False, True])
            case "alias state":
                # The state of Momentum is assigned anew, so a gradient that was state need not be it after a step.
                self.put("grads", key, self.opt.v[key][...] if type(self.opt) is fo.Adam else 1.0)
            case "forget state":
                setattr(self.opt, self.opt.slots[0], None)
            case "spoil":
                self.put(which, key, copy.copy(choice(BAD_PARAMETERS if which == "params" else BAD_GRADIENTS)))
            case "number":
                self.put(which, key, choice([float, np.float64, np.float32])(1.5))
            case "drop":
                self.put(which, key, None)
                dict.pop(getattr(self, which), key)
            case "nan":
                self.is_state_altered = True
                self.fill(self.get("grads", key), np.nan)
            case "resize" if not a.flags.owndata:
                self.put(which, key, np.array(a, order="C"))
            case "resize":
                a.resize(choice([(1,), (0,), (a.size + 1,), (4000,), (2, 3)]), refcheck=False)

    def meddle(self, ways=DURING, now=False):
        self.countdown -= 1
        if now or self.countdown == -1:
            with suppress(AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
                self.alter(ways)

    def state(self, slot):
        """Return the arrays of a slot as they were made, without later alterations."""
        arrays = (self.opt._state or {}).get(slot) or FlatDict(Layout({}, {}), {})
        fields = arrays.layout.fields.items()
        return {k: np.ndarray(f.shape, f.dtype, arrays.buffers[f.dtype], f.offset, f.strides) for k, f in fields}

    def update(self):
        """Update, and return the error, if there is a documented one."""
        params, grads = self.params, self.grads
        if not all(each.is_as_laid_out() for each in (params, grads) if isinstance(each, FlatDict)):
            # A flat dict is updated as one array; its views are compared with it when this is planned.
            self.opt.on_nonfinite = "ignore"
        try:
            self.opt.update(params, grads)
        except DOCUMENTED as error:
            return error

    def step(self):
        """Update once, and compare with the oracle; return the error, if there is one."""
        opt, ref, slots, used = self.opt, self.ref, self.opt.slots, N_BLOCKS - len(self.free)
        states, held, steps, state = {slot: self.state(slot) for slot in slots}, dict(self.params), opt.iter, opt._state
        errors = expected_errors(SimpleNamespace(slots=slots, **states), self.params, self.grads)
        copies, self.made = np.full((used + 9, SIZE), PATTERN, np.uint8), []
        copies[:used] = ALL[:used]
        before = copies.copy()
        params, grads = ({key: mirror(value, copies) for key, value in c.items()} for c in (held, self.grads))
        for slot in slots:
            setattr(ref, slot, {key: mirror(a, copies) for key, a in states[slot].items()} or None)
        if error := self.update():
            assert isinstance(error, (*errors, *[ValueError] * self.is_state_altered)), error
            assert (opt.iter, id(opt._state)) == (steps, id(state))
            assert all(self.params[key] is held[key] for key in held)
            assert np.array_equal(ALL[:used], before[:used])
            return error
        assert not errors, errors
        ref.iter = steps
        with np.errstate(all="ignore"):
            ref.update(params, grads)
        for buffer in self.made:
            mirror(buffer, copies)[...] = buffer
        pairs = [(params[key], value) for key, value in self.params.items()]
        pairs += [(getattr(ref, slot)[key], a) for slot in slots for key, a in self.state(slot).items()]
        for expected, found in pairs:
            if np.asarray(expected).tobytes() != np.asarray(found).tobytes() and is_injective(found):
                np.testing.assert_array_equal(*map(flushed, (found, expected)), strict=True)
        for _, found in pairs:
            # The processor chooses the payload of a NaN, and a longdouble has bytes without meaning.
            np.asarray(mirror(found, copies))[...] = found
        # Where the dtype of one array changes, the library makes a new dict of all, and the oracle does not.
        left = [state[slot] for slot in slots if state[slot] is not opt._state[slot]] if state else []
        for old in (buffer for arrays in left for buffer in arrays.buffers.values()):
            mirror(old, copies)[...] = mirror(old, before)
        used = N_BLOCKS - len(self.free)
        assert np.array_equal(ALL[:used], copies[:used]), "something beside the arrays was written"
        return None

    def step_while_altering(self):
        """Update while a container, `scalars` or another thread alters; return the error, if there is one."""
        used = N_BLOCKS - len(self.free)
        before = ALL[:used].copy()
        self.countdown, n = self.choice([(-1, 4), (self.choice(range(8)), 0)])
        thread = threading.Thread(target=lambda: [self.meddle(DURING, now=True) for _ in range(n)])
        thread.start()
        error = self.update()
        thread.join()
        assert error is None or np.array_equal(ALL[:used], before), error
        self.countdown, used = -1, N_BLOCKS - len(self.free)
        assert ((ALL[:used] == PATTERN) | self.is_inside[:used]).all(), "something beside the arrays was written"
        return error

    def mend(self):
        """Bind arrays, and make state if it was altered, with which the next update succeeds."""
        if self.is_state_altered:
            setattr(self.opt, self.opt.slots[0], None)
        self.is_state_altered = False
        known = {key: a.shape for slot in self.opt.slots for key, a in self.state(slot).items()}
        self.begin(known or {"a": (3,)})


def set_strides(a, strides):
    # NumPy lets strides lead out of the memory.
    (low, high), (new_low, new_high) = byte_bounds(a), byte_bounds(as_strided(a, a.shape, strides))
    if low <= new_low and new_high <= high:
        a.strides = strides


def mirror(value, copies):
    """Return the array that lies in a copy of all blocks as an array lies in the blocks, or what else was given."""
    if not is_array(value):
        return value
    low, high = byte_bounds(value) if value.size else (address(value), address(value))
    k = (low - START) // PITCH
    if 0 <= k < len(copies) and high <= START + k * PITCH + SIZE:
        return np.ndarray(
            value.shape, value.dtype, copies, k * SIZE + address(value) - START - k * PITCH, value.strides
        )
    return value.copy()


def flushed(a):
    """Return an array without the numbers near or below the smallest normal one, which are not promised."""
    a = np.asarray(a)
    return np.where(abs(a) < 4 * np.finfo(a.dtype).tiny, a.dtype.type(0), a) if a.dtype.kind == "f" else a


def is_injective(a):
    """Tell whether an array has an address for each element: else NumPy does not say which of two numbers it keeps."""
    places = sum(k * step for k, step in zip(np.indices(np.shape(a)), np.asarray(a).strides, strict=True))
    return np.unique(places).size == np.size(a)


def alterations(n, seed=0):
    """Alter ``n`` times; a signal, or an exception, is a failure."""
    warnings.filterwarnings("ignore", "Setting the", DeprecationWarning)
    sys.setswitchinterval(1e-6)
    if n < 10_000:
        # In float32 as well, a short run would only compile.
        DTYPES[4:7] = [np.float64] * 3
    story, errors = None, 0
    for number in range(n):
        if story is None or len(story.free) < 30 or story.rng.random() < 0.05:
            print(f"story {number} of seed {seed}", flush=True)
            story = Story(np.random.default_rng([seed, number]))
            story.step()
        for value in (*dict.values(story.params), *dict.values(story.grads)):
            story.fill(value)
        if story.rng.random() < 0.25:
            error = story.step_while_altering()
        else:
            story.meddle(BETWEEN, now=True)
            error = story.step()
        errors += error is not None
        if error or story.rng.random() < 0.1:
            story.mend()
    print(f"{n} alterations, {errors} of which led to an error")


def main(n):
    """Alter ``n`` times in a child, where a signal ends no test."""
    command = [sys.executable, "-X", "faulthandler", __file__, str(n)]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    last = child.stdout.splitlines()[-1]
    assert child.returncode == 0, f"{child.returncode} in {last}"
    print(last)


if __name__ == "__main__":
    alterations(*map(int, sys.argv[1:]))
