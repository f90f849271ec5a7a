"""A state machine of Hypothesis that runs random sequences of operations on the oracle and the library.

After each update both must have the same bits, or the library must raise an expected error and change nothing.
`make fuzz` runs more examples. If CI is set in the environment, Hypothesis repeats the same examples every time.
"""

import copy
import pickle
import tempfile
from collections import OrderedDict
from contextlib import nullcontext
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import fastoptim as fo
import naive
from fastoptim import threads
from naive import keys
from strategies import (
    BAD_GRADIENTS,
    BAD_HYPERPARAMETERS,
    BAD_PARAMETERS,
    EXTRAS,
    FLOATS,
    KEYS,
    MODES,
    NEAR_ZERO,
    NUMBERS,
    OPTIMIZERS,
    OTHERS,
    PLAIN,
    ROUNDING,
    SHAPES,
    TRANSFORMS,
    Envelope,
    IsKey,
    at_a_new_address,
    dicts,
    draw,
    entries,
    expected_errors,
    gradients,
    indices,
    is_array,
    is_number,
    is_storable,
    parameters,
    seeds,
    strides_of,
)


class Updates(RuleBasedStateMachine):
    """One optimizer and its dicts, twice: the first of each pair is the oracle's, the second the library's."""

    count = 0
    """Number of examples that have been run."""

    def __init__(self):
        super().__init__()
        # Then small arrays run in parallel as well.
        self.parallel_from, threads._PARALLEL_FROM = threads._PARALLEL_FROM, 64
        self.memory = []
        self.had_tiny = False
        self.writes_to_state = False
        self.good_hyper = {}
        self.threads, self.mode, self.pause, self.steps = None, "plain", 0, 0
        self.transforms, self.frozen, self.schedule = None, (), None

    def teardown(self):
        threads._PARALLEL_FROM = self.parallel_from
        Updates.count += 1

    # Making pairs of values.

    def array(self, dtype, shape, layout, seed, mode="plain"):
        dtype = np.dtype(dtype)
        strides, start, size = strides_of(shape, layout)
        shift = layout[3]
        self.had_tiny |= mode in ("tiny", "huge")
        values = draw(seed, size, dtype, mode)
        pair, wholes = [], []
        for _ in range(2):
            memory = np.empty(values.nbytes + shift, np.uint8)
            wholes.append(memory[shift:].view(dtype))
            wholes[-1][...] = values
            steps = [dtype.itemsize * n for n in strides]
            pair.append(np.ndarray(shape, dtype, memory, shift + dtype.itemsize * start, steps))
        self.memory.append(wholes)
        return tuple(pair)

    def value(self, kind, shape, layout, seed, mode="plain"):
        if kind in NUMBERS and shape == () and layout == PLAIN:
            number = kind(draw(seed, (), np.float64))
            return number, number
        return self.array(np.float64 if kind is float else kind, shape, layout, seed, mode)

    def gradient_like(self, p, spec, mode="plain"):
        kind, _, layout, seed = spec
        if kind == "other" or (kind in NUMBERS and not is_number(p)):
            kind = self.other
        kind = kind or (type(p) if is_number(p) else getattr(p, "dtype", np.dtype(float)).type)
        if not isinstance(p, np.ndarray) and not is_number(p):
            kind = float
        return self.value(kind, np.shape(p), layout, seed, mode)

    # Changing pairs of containers.

    def key(self, index):
        known = list(keys(self.params[0]))
        return known[index % len(known)]

    def put(self, name, key, pair):
        """Bind a key to another value in both containers; immutable ones are replaced by dicts or lists."""
        containers = getattr(self, name)
        if isinstance(containers[0], fo.parameters.FlatDict):
            # A value that fits is copied into the buffer, if that was not made read-only.
            old = containers[0].get(key)
            fits = old is not None and is_array(pair[0]) and (old.shape, old.dtype) == (pair[0].shape, pair[0].dtype)
            if not (fits and old.flags.writeable):
                containers = tuple(map(dict, containers))
        elif isinstance(containers[0], MappingProxyType | OrderedDict):
            containers = tuple(map(dict, containers))
        elif isinstance(containers[0], tuple):
            containers = tuple(map(list, containers))
        for container, value in zip(containers, pair, strict=True):
            if isinstance(container, dict) or (isinstance(key, int) and 0 <= key < len(container)):
                container[key] = value
        setattr(self, name, containers)

    def remember(self):
        """Keep the contents of the containers for `mend`."""
        contents = [(c, c.copy()) for c in (*self.params, *self.grads) if type(c) in (dict, list)]
        self.good = self.params, self.grads, contents

    def mend(self):
        """Restore what was accepted last, so that most steps of a sequence are updates and not errors."""
        self.params, self.grads, contents = self.good
        for container, content in contents:
            container.clear()
            (container.update if isinstance(container, dict) else container.extend)(content)
        for params in self.params:
            for key in keys(params):
                if isinstance(params[key], np.ndarray):
                    params[key].flags.writeable = True
        # A parameter that was made read-only may have been an array of the state.
        for opt in self.opts:
            for slot in opt.slots:
                for array in (getattr(opt, slot) or {}).values():
                    array.flags.writeable = True
        if self.expected_errors():
            self.forget_state()

    def expected_errors(self):
        params, errors = self.params[1], expected_errors(self.opts[1], self.params[1], self.grads[1], self.frozen)
        active = [key for key in keys(params) if key not in self.frozen]
        patterns = [(key, active) for key in self.opts[0].groups] + [(key, list(keys(params))) for key in self.frozen]
        if any(known and key not in known for key, known in patterns):
            errors.add(ValueError)
        return errors

    def pack(self, containers, form):
        """Return the same values in containers of another form; a dict, if they cannot be flat."""
        values = [c if isinstance(c, dict | MappingProxyType) else dict(enumerate(c)) for c in containers]
        floating = (is_number(v) or (type(v) is np.ndarray and v.dtype.kind == "f") for v in values[0].values())
        if form == "flat" and not all(floating):
            form = "dict"
        if form == "flat":
            first = next(iter(values[0].values()), 0.0)
            with np.errstate(over="ignore"):
                packed = tuple(fo.flatten(v, np.asarray(first).dtype) for v in values)
            self.memory.extend(zip(*(p.buffers.values() for p in packed), strict=True))
            return packed
        make = {
            "dict": dict,
            "reversed": lambda v: dict(reversed(v.items())),
            "ordered": OrderedDict,
            "proxy": lambda v: MappingProxyType(dict(v)),
            "list": lambda v: list(v.values()),
            "tuple": lambda v: tuple(v.values()),
        }[form]
        return tuple(map(make, values))

    # Operations.

    @initialize(
        drawn=st.sampled_from(EXTRAS),
        entries=dicts,
        only=st.sampled_from([None, None, None, np.float64, np.float32]),
        form=st.sampled_from(["dict", "dict", "list", "flat"]),
    )
    def begin(self, drawn, entries, only, form):
        name, extra = drawn
        self.other = OTHERS[name]
        self.opts = tuple(cls() for cls in OPTIMIZERS[name])
        params, grads = ({}, {}), ({}, {})
        for key, ((kind, *p), (g_kind, *g)) in zip(KEYS, entries, strict=False):
            values = self.value(only or kind, *p)
            gradients = self.gradient_like(values[0], (None if only else g_kind, *g))
            for i in range(2):
                params[i][key], grads[i][key] = values[i], gradients[i]
        self.params, self.grads = self.pack(params, form), self.pack(grads, form)
        self.extend(extra, TRANSFORMS.get(name))
        self.remember()

    def extend(self, extra, transforms):
        """Give the optimizer what it has beside its rule."""
        ref, comp = self.opts
        last = list(keys(self.params[0]))[-1]
        if extra == "transforms":
            self.transforms = naive.Transforms(**transforms)
            for name, value in transforms.items():
                setattr(comp, name, value)
        elif extra == "group":
            ref.groups, comp.groups = {last: {"lr": 0.5}}, {IsKey(last): {"lr": 0.5}}
        elif extra == "frozen":
            self.frozen, comp.frozen = (last,), (IsKey(last),)
        elif extra == "schedule" and type(comp) is not Envelope:
            self.schedule = comp.lr = fo.schedules.exponential(0.1, 0.9)

    @invariant()
    def update_twice(self):
        """Update after each operation: the first update may need a new plan, the second may reuse it."""
        if self.pause:
            self.pause -= 1
            return
        for _ in range(2):
            self.refill(self.steps, self.mode)
            self.step_once(self.threads)
            self.steps += 1
        self.mode = "plain"

    @precondition(lambda self: len(self.params[0]))
    @rule(times=st.integers(1, 3))
    def rebind_all(self, times):
        """Bind all arrays of the parameters to copies before each of some updates, as ``params[key] = ...`` does."""
        for _ in range(times):
            for key in keys(self.params[0]):
                pair = tuple(params[key] for params in self.params)
                if type(pair[0]) is np.ndarray and pair[0].flags.writeable:
                    moved = tuple(map(at_a_new_address, pair))
                    self.memory.append(moved)
                    self.put("params", key, moved)
            self.update_twice()

    @precondition(lambda self: len(self.params[0]) and not self.good_hyper)
    @rule(data=st.data(), count=st.integers(1, 3))
    def update_dicts_in_turn(self, data, count):
        """Let the optimizer update up to three more dicts of the same keys and shapes, one after the other."""
        pairs = [(self.params, self.grads)]
        for _ in range(count):
            params, grads = ({}, {}), ({}, {})
            for key in keys(self.params[0]):
                shape = np.shape(self.params[0][key])
                (kind, _, *p), g_spec = data.draw(entries)
                pair = self.value(kind, shape, *p)
                gradient = self.gradient_like(pair[0], g_spec)
                for i in range(2):
                    params[i][key], grads[i][key] = pair[i], gradient[i]
            pairs.append((params, grads))
        for _ in range(3):
            for self.params, self.grads in pairs:
                self.refill(self.steps, "plain")
                self.step_once(self.threads)
                self.steps += 1

    @rule(mode=st.sampled_from(MODES), threads=st.sampled_from([None, 1, 2, 3, 7]))
    def change_numbers_and_threads(self, mode, threads):
        self.mode, self.threads = mode, threads

    @rule(count=st.integers(1, 3))
    def let_more_happen_before_the_next_update(self, count):
        self.pause = count

    @rule()
    def make_gradients_anew(self):
        for key in keys(self.params[0]):
            self.put("grads", key, self.gradient_like(self.params[0][key], (None, None, PLAIN, self.steps)))

    def refill(self, seed, mode):
        if self.transforms and mode == "huge":
            # The factor that clips such gradients is less than the smallest normal number.
            mode = "plain"
        self.had_tiny |= mode in ("tiny", "huge")
        for number, key in enumerate(keys(self.grads[0])):
            old = self.grads[0][key], self.grads[1][key]
            if type(old[0]) is np.ndarray and old[0].dtype.kind in "iuf":
                values = draw([seed, number], old[0].shape, old[0].dtype, mode)
                if self.writes_to_state:
                    # The root of a negative number is NaN, but that of one that was flushed to zero is zero.
                    values = abs(values)
                for g in old:
                    if g.flags.writeable:
                        g[...] = values
            elif is_number(old[0]) and type(self.grads[0]) in (dict, list):
                self.put("grads", key, [type(old[0])(draw([seed, number], (), np.float64))] * 2)

    def step_once(self, threads):
        (ref_opt, comp_opt), (ref, comp), (ref_grads, comp_grads) = self.opts, self.params, self.grads
        errors = self.expected_errors()
        active = [key for key in keys(comp) if key not in self.frozen]
        skips = False
        if not errors and comp_opt.on_nonfinite != "ignore":
            with np.errstate(invalid="ignore"):
                nonfinite = not all(np.all(np.isfinite(comp_grads[key])) for key in active)
            skips = nonfinite and comp_opt.on_nonfinite == "skip"
            errors |= {FloatingPointError, ValueError} if nonfinite and not skips else set()
        # A skipped step asks for no scalars.
        if self.good_hyper and not skips and (len(comp) or not errors):
            errors |= {TypeError, ValueError}
        skipped = getattr(comp_opt, "skipped", 0)
        held = {key: comp[key] for key in keys(comp)}
        with fo.num_threads(threads) if threads else nullcontext():
            if errors:
                with pytest.raises(tuple(errors)):
                    comp_opt.update(comp, comp_grads)
            else:
                assert comp_opt.update(comp, comp_grads) is None
                if not skips:
                    vars(ref_opt).update((slot, None) for slot in ref_opt.slots if getattr(ref_opt, slot) == {})
                    with np.errstate(all="ignore"):
                        self.update_oracle(ref_opt, ref, ref_grads, active)
        for key, value in held.items():
            assert comp[key] is value or (is_number(value) and not errors and not skips), f"{key!r} was rebound"
        assert getattr(comp_opt, "skipped", 0) == skipped + skips
        self.compare(exact=bool(errors) or skips)
        if errors:
            self.mend()
        else:
            self.remember()

    def update_oracle(self, opt, params, grads, active):
        if self.schedule:
            opt.lr = self.schedule(opt.iter)
        if not self.transforms and not self.frozen:
            opt.update(params, grads)
            return
        values = {key: params[key] for key in active}
        if self.transforms:
            opt.begin(values)
            self.transforms.update(opt, values, grads)
        else:
            opt.update(values, {key: grads[key] for key in active})
        for key, value in values.items():
            if value is not params[key]:
                params[key] = value

    @precondition(lambda self: len(self.params[0]))
    @rule(index=indices, spec=parameters, other_shape=st.booleans(), mode=st.sampled_from(MODES))
    def rebind_parameter(self, index, spec, other_shape, mode):
        key = self.key(index)
        kind, shape, layout, seed = spec
        old = self.params[0][key]
        if not other_shape:
            shape = np.shape(old)
        pair = self.value(kind, shape, layout, seed, mode)
        self.put("params", key, pair)
        if other_shape:
            self.put("grads", key, self.gradient_like(pair[0], (None, None, PLAIN, seed)))

    @precondition(lambda self: len(self.params[0]))
    @rule(index=indices, spec=gradients, mode=st.sampled_from(MODES))
    def rebind_gradient(self, index, spec, mode):
        key = self.key(index)
        self.put("grads", key, self.gradient_like(self.params[0][key], spec, mode))

    @rule(entry=st.tuples(parameters, gradients), both=st.booleans())
    def add_key(self, entry, both):
        pair = self.value(*entry[0])
        gradient = self.gradient_like(pair[0], entry[1])
        if isinstance(self.params[0], list | tuple):
            self.params = tuple([*c, v] for c, v in zip(self.params, pair, strict=True))
            if both and isinstance(self.grads[0], list | tuple):
                self.grads = tuple([*c, v] for c, v in zip(self.grads, gradient, strict=True))
        else:
            key = next(key for key in KEYS if key not in self.params[0] or key == KEYS[-1])
            self.put("params", key, pair)
            if both:
                self.put("grads", key, gradient)

    @precondition(lambda self: isinstance(self.params[0], dict) and len(self.params[0]))
    @rule(index=indices, names=st.sampled_from([("params",), ("params", "grads"), ("grads",)]))
    def drop_key(self, index, names):
        key = self.key(index)
        for name in names:
            containers = self.pack(getattr(self, name), "dict")
            for container in containers:
                container.pop(key, None)
            setattr(self, name, containers)

    @rule(value=st.sampled_from([None, "text"]))
    def add_surplus_gradient(self, value):
        if isinstance(self.grads[0], list):
            for container in self.grads:
                container.append(value)
        else:
            self.put("grads", "surplus", (value, value))

    @precondition(lambda self: len(self.params[0]))
    @rule(
        index=indices,
        spoiled=st.one_of(
            st.tuples(st.just("grads"), st.sampled_from(BAD_GRADIENTS)),
            st.tuples(st.just("params"), st.sampled_from(BAD_PARAMETERS)),
            st.tuples(st.just("grads"), st.sampled_from(SHAPES).map(np.ones)),
        ),
    )
    def spoil(self, index, spoiled):
        name, bad = spoiled
        pair = copy.copy(bad), copy.copy(bad)
        if is_array(bad) and bad.dtype.kind == "f":
            self.memory.append(pair)
        self.put(name, self.key(index), pair)

    @precondition(lambda self: len(self.params[0]) and not self.transforms)
    @rule(
        index=indices,
        other=indices,
        name=st.sampled_from(["grads", "params"]),
        source=st.sampled_from(["params", "grads", "state"]),
        backwards=st.booleans(),
    )
    def alias(self, index, other, name, source, backwards):
        """Bind a key to an array of the same shape that is already a parameter, a gradient or state."""
        key = self.key(index)
        shape = np.shape(self.params[0][key])
        sources = self.params if source == "params" else self.grads
        if source == "state" and type(self.opts[1]) in (fo.Momentum, Envelope):
            # These rules assign their state anew. The notes give it a new array at each step, the library one where the
            # dtype of any key changes, so a gradient that was state is not state afterwards.
            return
        if source == "state":
            if not self.opts[0].slots or getattr(self.opts[0], self.opts[0].slots[other % 2 - 1]) is None:
                return
            sources = tuple(getattr(opt, opt.slots[other % 2 - 1]) for opt in self.opts)
            self.writes_to_state = True
        known = list(keys(sources[0]))
        fitting = [k for k in known if type(sources[0][k]) is np.ndarray and sources[0][k].shape == shape]
        if not fitting:
            return
        chosen = fitting[other % len(fitting)]
        pair = tuple(container[chosen] for container in sources)
        if backwards:
            pair = tuple(np.flip(a) for a in pair)
        self.memory.append(pair)
        self.put(name, key, pair)

    @precondition(lambda self: len(self.params[0]) and not self.transforms)
    @rule(
        index=indices,
        other=indices,
        name=st.sampled_from(["grads", "params"]),
        size=st.sampled_from([4, 200]),
        shift=st.sampled_from([1, 3, -1]),
        dtype=st.sampled_from(FLOATS[:2]),
        seed=seeds,
    )
    def overlap(self, index, other, name, size, shift, dtype, seed):
        """Bind two keys to overlapping views of one buffer; the second is shifted or reversed."""
        wholes = self.array(dtype, (size + 3,), PLAIN, seed)
        first = tuple(a[:size] for a in wholes)
        second = tuple(a[size - 1 :: -1] if shift < 0 else a[shift : shift + size] for a in wholes)
        first_key, second_key = self.key(index), self.key(other)
        self.put("params", first_key, first)
        self.put(name, second_key, second)
        fresh = self.array(dtype, (size,), PLAIN, seed + 1)
        if name == "params":
            self.put("grads", first_key, fresh)
            self.put("grads", second_key, self.array(dtype, (size,), PLAIN, seed + 2))
        elif first_key != second_key:
            self.put("grads", first_key, fresh)

    @precondition(lambda self: len(self.params[0]))
    @rule(index=indices, writeable=st.booleans())
    def freeze_or_thaw(self, index, writeable):
        for container in self.params:
            value = container[self.key(index)]
            if isinstance(value, np.ndarray):
                value.flags.writeable = writeable

    @rule(
        what=st.sampled_from([("params",), ("grads",), ("params", "grads"), ("params", "grads")]),
        form=st.sampled_from(["dict", "reversed", "ordered", "list", "tuple", "flat", "flat"]),
    )
    def repack(self, what, form):
        for name in what:
            setattr(self, name, self.pack(getattr(self, name), form))

    @rule()
    def proxy_of_gradients(self):
        if isinstance(self.grads[0], dict):
            self.grads = self.pack(self.grads, "proxy")

    @rule(index=indices, value=st.floats(0.01, 0.99), whole=st.booleans())
    def set_hyperparameter(self, index, value, whole):
        ref, comp = self.opts
        names = [name for name in vars(ref) if name not in (*ref.slots, "iter", "groups")]
        name = names[index % len(names)]
        value = 1 if whole and name == "lr" else value
        setattr(ref, name, float(value))
        setattr(comp, name, value)
        self.good_hyper.pop(name, None)
        self.schedule = None if name == "lr" else self.schedule

    @rule(bad=st.sampled_from(BAD_HYPERPARAMETERS))
    def set_bad_hyperparameter(self, bad):
        comp = self.opts[1]
        good = self.good_hyper.get("lr", comp.lr)
        try:
            comp.lr = bad
        except (TypeError, ValueError):
            assert comp.lr == good
        else:
            self.good_hyper["lr"] = good

    @precondition(lambda self: self.good_hyper)
    @rule()
    def restore_hyperparameter(self):
        self.opts[1].lr = self.good_hyper.pop("lr")

    @rule(count=st.sampled_from([0, 10]))
    def set_iter(self, count):
        for opt in self.opts:
            opt.iter = count

    @precondition(lambda self: self.opts[0].slots)
    @rule()
    def forget_state(self):
        for opt in self.opts:
            for slot in opt.slots:
                setattr(opt, slot, None)
        if self.transforms:
            self.transforms.reset()

    @precondition(lambda self: self.opts[0].slots)
    @rule(
        index=indices, dtype=st.sampled_from([None, None, "other", np.longdouble]), seed=seeds, lacks=st.integers(0, 5)
    )
    def assign_state(self, index, dtype, seed, lacks):
        """Assign a dict to a slot, which copies it into the state, or makes the state if there is none."""
        ref, comp = self.opts
        dtype = dtype if dtype != "other" else self.other if np.dtype(self.other).kind == "f" else None
        slot = ref.slots[index % len(ref.slots)]
        old = getattr(ref, slot)
        like = self.params[0] if old is None else old
        like = {key: like[key] for key in keys(like)}
        if any(not is_number(v) and type(v) is not np.ndarray for v in like.values()):
            return
        if lacks == 0 and len(like):
            del like[next(iter(like))]
        new = {
            key: abs(draw([seed, i], np.shape(v), dtype or np.asarray(v).dtype))
            for i, (key, v) in enumerate(like.items())
        }
        if old is not None and len(new) < len(old):
            with pytest.raises(KeyError):
                setattr(comp, slot, new)
            return
        setattr(comp, slot, new)
        for name in ref.slots if old is None else ():
            setattr(ref, name, {key: np.zeros_like(a) for key, a in new.items()})
        for key, a in new.items():
            getattr(ref, slot)[key][...] = a

    @precondition(lambda self: self.opts[0].slots)
    @rule(index=indices, factor=st.sampled_from([0, 0.5]))
    def write_to_state(self, index, factor):
        for opt in self.opts:
            for a in (getattr(opt, opt.slots[index % len(opt.slots)]) or {}).values():
                with np.errstate(invalid="ignore"):
                    a *= a.dtype.type(factor)

    @rule(how=st.sampled_from([copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))]))
    def copy_optimizer(self, how):
        # Arrays that alias the state alias that of the old optimizer, not of the copy.
        self.opts = copy.deepcopy(self.opts[0]), how(self.opts[1])

    @precondition(lambda self: not self.good_hyper)
    @rule(through_file=st.booleans())
    def save_and_load(self, through_file):
        old = self.opts[1]
        new = type(old)()
        new.groups, new.frozen = old.groups, old.frozen
        if through_file:
            with tempfile.TemporaryDirectory() as folder:
                if not is_storable(old):
                    with pytest.raises(TypeError):
                        old.save(f"{folder}/optimizer")
                    return
                old.save(f"{folder}/optimizer")
                new.load(f"{folder}/optimizer")
        else:
            new.load_state_dict(old.state_dict())
        # Arrays that alias the state alias that of the old optimizer, not of the copy.
        self.opts = copy.deepcopy(self.opts[0]), new

    @rule(choice=st.sampled_from(["ignore", "raise", "skip"]))
    def set_on_nonfinite(self, choice):
        # The means that are subtracted from huge gradients may be infinite.
        self.opts[1].on_nonfinite = choice if not self.opts[1].centralize else "ignore"

    # Comparing.

    def compare(self, exact):
        ref_opt, comp_opt = self.opts
        assert comp_opt.iter == ref_opt.iter
        for ref, comp in self.memory:
            self.agree(ref, comp, exact)
        for slot in ref_opt.slots:
            ref, comp = getattr(ref_opt, slot), getattr(comp_opt, slot)
            assert (ref is None) == (comp is None), slot
            if ref is not None:
                assert list(keys(ref)) == list(comp), slot
                for key in keys(ref):
                    assert (ref[key].shape, ref[key].dtype) == (comp[key].shape, comp[key].dtype), (slot, key)
                    self.agree(ref[key], comp[key], exact)
        for slot, arrays in self.transforms.state.items() if self.transforms else ():
            for key, ref in arrays.items() if slot in (comp_opt._state or {}) else ():
                assert ref.dtype == comp_opt._state[slot][key].dtype
                self.agree(ref, comp_opt._state[slot][key], exact)
        ref, comp = self.params
        assert list(keys(ref)) == list(keys(comp))
        for key in keys(ref):
            if is_number(ref[key]):
                assert type(ref[key]) is type(comp[key]), key
                self.agree(np.array(ref[key]), np.array(comp[key]), exact)
                if ref[key] != comp[key] and not isinstance(comp, tuple):
                    comp[key] = ref[key]

    def agree(self, ref, comp, exact):
        if ref.tobytes() == comp.tobytes():
            return
        with np.errstate(all="ignore"):
            # The processor chooses sign and payload of a NaN, and six bytes of a longdouble are padding.
            same = ((ref == comp) & (np.signbit(ref) == np.signbit(comp))) | (np.isnan(ref) & np.isnan(comp))
            if self.had_tiny and not exact:
                same |= abs(ref - comp) <= NEAR_ZERO.get(ref.dtype, 0)
            if self.transforms and not exact:
                same |= abs(ref - comp) <= ROUNDING.get(ref.dtype, 1e-11) * np.max(
                    abs(ref), where=np.isfinite(ref), initial=1
                )
        assert same.all(), f"expected {ref[~same]}, got {comp[~same]}"
        # The next step must start from the same bits.
        comp[...] = ref


SETTINGS = settings(
    deadline=None,
    max_examples=30,
    stateful_step_count=8,
    phases=set(Phase) - {Phase.explain},
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_any_sequence_of_updates():
    run_state_machine_as_test(Updates, settings=SETTINGS)
