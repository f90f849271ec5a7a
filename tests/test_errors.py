"""An update with a bad input raises an error and changes nothing, for every optimizer and a custom rule."""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
import naive
from naive import assert_step, draw, keys

SHAPE = (3, 4)


def param(bad):
    """Return a function that replaces the parameter by a bad value, which may be computed from it."""
    return lambda params, _, key: params.update({key: bad(params[key]) if callable(bad) else bad})


def grad(bad):
    """Return a function that replaces the gradient by a bad value, which may be computed from it."""
    return lambda _, grads, key: grads.update({key: bad(grads[key]) if callable(bad) else bad})


def read_only(params, _, key):
    """Make the parameter read-only; the dict holds the same array as before."""
    params[key].flags.writeable = False


def read_only_view(a):
    view = a[:]
    view.flags.writeable = False
    return view


class Custom(fo.Optimizer):
    """A custom rule, whose inputs are checked like those of the built-in ones."""

    slots = ("m",)

    def __init__(self, lr=0.01):
        super().__init__()
        self.lr = lr

    def scalars(self):
        return (self.lr,)

    @staticmethod
    def rule(p, g, m, lr):
        m *= 0.5
        m += g
        p -= lr * m
        return p, m


class NaiveCustom(naive.Optimizer):
    slots = ("m",)

    def __init__(self, lr=0.01):
        self.lr, self.m = lr, None

    def step(self, p, g, m):
        m *= 0.5
        m += g
        p -= self.lr * m


@pytest.fixture(params=[*naive.RULES, "Custom"])
def pair(request):
    """A function that makes the oracle's and the library's optimizer, for each built-in rule and a custom one."""
    if request.param == "Custom":
        return lambda **hyper: (NaiveCustom(**hyper), Custom(**hyper))
    return lambda **hyper: tuple(getattr(module, request.param)(**hyper) for module in (naive, fo))


def structured(a):
    return np.zeros(a.shape, [("x", float), ("y", float)])


# A function that spoils (params, grads, key), the expected error, and what its message contains besides the key.
FLOATS, EXPECTED_SHAPE = "float", r"\(3, 4\)"
BAD = {
    "missing gradient": (lambda _, grads, key: grads.pop(key), KeyError, "grad"),
    "gradient None": (grad(None), TypeError, "grad|None"),
    "gradient of another shape": (grad(np.zeros((4, 3))), ValueError, EXPECTED_SHAPE),
    "gradient of another ndim": (grad(np.ravel), ValueError, EXPECTED_SHAPE),
    "gradient with one row": (grad(lambda g: g[:1]), ValueError, EXPECTED_SHAPE),
    "gradient of one row's shape": (grad(lambda g: g[0]), ValueError, EXPECTED_SHAPE),
    "gradient of one element": (grad(lambda g: g[:1, :1]), ValueError, EXPECTED_SHAPE),
    "gradient with one axis more": (grad(lambda g: g[None]), ValueError, EXPECTED_SHAPE),
    "empty gradient": (grad(lambda g: g[:0]), ValueError, EXPECTED_SHAPE),
    "0-d gradient": (grad(np.array(0.5)), ValueError, EXPECTED_SHAPE),
    "NumPy scalar gradient": (grad(np.float64(0.5)), ValueError, EXPECTED_SHAPE),
    "float gradient": (grad(0.5), (ValueError, TypeError), EXPECTED_SHAPE),
    "complex gradient": (grad(lambda g: g + 0j), TypeError, f"complex|{FLOATS}"),
    "object gradient": (grad(lambda g: g.astype(object)), TypeError, f"object|{FLOATS}"),
    "string gradient": (grad(lambda g: g.astype(str)), TypeError, f"str|<U|{FLOATS}"),
    "text gradient": (grad("text"), TypeError, f"str|{FLOATS}|array"),
    "list gradient": (grad(lambda g: g.tolist()), TypeError, "list"),
    "generator gradient": (grad(iter), TypeError, "iterator"),
    "bool gradient": (grad(lambda g: g > 0), TypeError, "bool"),
    "truth value as gradient": (grad(True), TypeError, "bool"),
    "structured gradient": (grad(structured), TypeError, r"\('x', '<f8'\)"),
    "datetime gradient": (grad(lambda g: g.astype("M8[s]")), TypeError, "datetime64"),
    "timedelta gradient": (grad(lambda g: g.astype("m8[s]")), TypeError, "timedelta64"),
    "masked gradient": (grad(np.ma.masked_array), TypeError, "Masked"),
    "int parameters": (param(lambda p: p.astype(int)), TypeError, FLOATS),
    "bool parameters": (param(lambda p: p > 0), TypeError, FLOATS),
    "complex parameters": (param(lambda p: p + 0j), TypeError, FLOATS),
    "object parameters": (param(lambda p: p.astype(object)), TypeError, FLOATS),
    "structured parameters": (param(structured), TypeError, FLOATS),
    "record parameters": (param(lambda p: structured(p).view(np.recarray)), TypeError, FLOATS),
    "datetime parameters": (param(lambda p: p.astype("M8[s]")), TypeError, FLOATS),
    "masked parameters": (param(np.ma.masked_array), TypeError, "Masked"),
    "generator as parameter": (param(iter), TypeError, FLOATS),
    "string parameters": (param(lambda p: p.astype(str)), TypeError, FLOATS),
    "text as parameter": (param("text"), TypeError, FLOATS),
    "None as parameter": (param(None), TypeError, FLOATS),
    "list as parameter": (param(lambda p: p.tolist()), TypeError, FLOATS),
    "int as parameter": (param(3), TypeError, FLOATS),
    "complex scalar as parameter": (param(3j), TypeError, FLOATS),
    "parameters made read-only": (read_only, ValueError, "read-only|writ"),
    "read-only view as parameter": (param(read_only_view), ValueError, "read-only|writ"),
    "float parameter and array gradient": (param(0.5), (ValueError, TypeError), EXPECTED_SHAPE),
}


def values(seed, names, make=dict):
    return make({name: draw(np.random.default_rng([seed, i]), SHAPE) for i, name in enumerate(names)})


def snapshot(opt, params):
    """Return the bytes of everything that an update writes, and the identities of the arrays."""
    state = {slot: getattr(opt, slot) for slot in opt.slots}
    held = {
        slot: {key: (id(a[key]), a[key].tobytes()) for key in keys(a)} for slot, a in state.items() if a is not None
    }
    return opt.iter, held, [(key, id(params[key]), np.asarray(params[key]).tobytes()) for key in keys(params)]


def assert_error(opt, params, grads, error, *patterns):
    before = snapshot(opt, params)
    with pytest.raises(error) as caught:
        opt.update(params, grads)
    for pattern in patterns:
        assert caught.match(pattern)
    assert snapshot(opt, params) == before


def assert_next_updates(ref_opt, comp_opt, ref, comp, make=dict):
    """Check that the next two updates equal those of the oracle, which made no bad one."""
    for seed in 8, 9:
        grads = values(seed, ["W1", "b1", "W2"], make)
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize("key", ["W1", "W2"], ids=["first key", "last key"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_value_is_an_error(pair, bad, key, steps):
    spoil, error, expected = BAD[bad]
    ref_opt, comp_opt = pair()
    ref, comp = (values(0, ["W1", "b1", "W2"]) for _ in range(2))
    grads = values(1, ["W1", "b1", "W2"])
    for _ in range(steps):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)

    good = comp[key]
    spoil(comp, grads, key)
    assert_error(comp_opt, comp, grads, error, key, expected)

    comp[key] = good
    good.flags.writeable = True
    assert_next_updates(ref_opt, comp_opt, ref, comp)


@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize(
    "bad", [bad for bad in BAD if "gradient" in bad.split()[:2] or bad == "parameters made read-only"]
)
def test_bad_value_with_a_flat_dict_is_an_error(pair, bad, steps):
    """One kernel updates all keys, so each key must be checked before it runs."""
    spoil, error, expected = BAD[bad]
    ref_opt, comp_opt = pair()
    ref, comp = values(0, ["W1", "b1", "W2"]), values(0, ["W1", "b1", "W2"], fo.flatten)
    grads = values(1, ["W1", "b1", "W2"], fo.flatten)
    for _ in range(steps):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    # A bad gradient cannot be assigned to a flat dict, so a plain dict holds it.
    spoiled = dict(grads) if "gradient" in bad else grads
    spoil(comp, spoiled, "W2")
    assert_error(comp_opt, comp, spoiled, error, "W2", expected)
    comp["W2"].flags.writeable = True
    assert_next_updates(ref_opt, comp_opt, ref, comp, fo.flatten)


@pytest.mark.parametrize("bad", BAD)
def test_bad_value_in_a_list_is_named_by_position(pair, bad):
    if bad == "missing gradient":
        pytest.skip("A list cannot lack a gradient without being shorter.")
    spoil, error, expected = BAD[bad]
    _, opt = pair()
    params, grads = ([draw(np.random.default_rng(seed), SHAPE) for _ in range(3)] for seed in (0, 1))
    # `spoil` changes dicts, from which the lists are made.
    as_dicts = tuple(dict(enumerate(values)) for values in (params, grads))
    spoil(*as_dicts, 2)
    assert_error(opt, *(list(values.values()) for values in as_dicts), error, r"\b2\b", expected)


@pytest.mark.parametrize("steps", [1, 3])
def test_new_key_after_the_first_update_is_an_error(pair, steps):
    ref_opt, comp_opt = pair()
    ref, comp = (values(0, ["W1", "b1", "W2"]) for _ in range(2))
    grads = values(1, ["W1", "b1", "W2", "new"])
    for _ in range(steps):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    if ref_opt.slots:
        bigger = comp | values(2, ["new"])
        assert_error(comp_opt, bigger, grads, KeyError, "new")
        assert_next_updates(ref_opt, comp_opt, ref, comp)
    else:
        # A rule without state accepts new keys.
        ref, comp = (params | values(2, ["new"]) for params in (ref, comp))
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_parameter_with_another_shape_is_an_error(pair):
    """The state has the shape of the first update's parameter."""
    ref_opt, comp_opt = pair()
    if not ref_opt.slots:
        pytest.skip("SGD has no state.")
    ref, comp = (values(0, ["W1", "b1", "W2"]) for _ in range(2))
    grads = values(1, ["W1", "b1", "W2"])
    assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    for shape in (4, 3), (1, 4), (12,), (2, 3, 4):
        other = {"W2": np.ones(shape)}
        assert_error(comp_opt, comp | other, grads | other, ValueError, "W2", EXPECTED_SHAPE)
    assert_next_updates(ref_opt, comp_opt, ref, comp)


def as_list(values):
    return list(values.values())


def one_record(grads):
    array = np.zeros((), [(key, g.dtype, g.shape) for key, g in grads.items()])
    for key, g in grads.items():
        array[key] = g
    return array


class ByKey:
    """An object with the methods that an update of a dict calls, but not a mapping."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, key):
        return self.values[key]

    def __len__(self):
        return len(self.values)


# The container of the parameters, that of the gradients, the expected error and what its message contains.
CONTAINERS = {
    "dict and list": (dict, as_list, TypeError, "dict"),
    "dict and generator": (dict, lambda grads: iter(grads.items()), TypeError, "dict"),
    "dict and items": (dict, lambda grads: grads.items(), TypeError, "dict"),
    "dict and None": (dict, lambda _: None, TypeError, "dict"),
    "dict and array": (dict, lambda grads: np.array(as_list(grads)), TypeError, "dict"),
    "dict and structured array": (dict, one_record, TypeError, "dict"),
    "dict and object with __getitem__": (dict, ByKey, TypeError, "ByKey"),
    "list and shorter list": (as_list, lambda grads: as_list(grads)[:2], (ValueError, KeyError), "2|3"),
    "list and empty list": (as_list, lambda _: [], (ValueError, KeyError), "0|3"),
    "list and None": (as_list, lambda _: None, TypeError, "list"),
}


@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize("containers", CONTAINERS)
def test_containers_that_do_not_match_are_an_error(pair, containers, steps):
    of_params, of_grads, error, expected = CONTAINERS[containers]
    ref_opt, comp_opt = pair()
    ref, comp = (of_params(values(0, ["W1", "b1", "W2"])) for _ in range(2))
    grads = of_params(values(1, ["W1", "b1", "W2"]))
    for _ in range(steps):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    assert_error(comp_opt, comp, of_grads(values(1, ["W1", "b1", "W2"])), error, expected)
    assert_next_updates(ref_opt, comp_opt, ref, comp, of_params)


@pytest.mark.parametrize(
    ("library", "conversion"),
    [
        ("torch", "t.detach().numpy()"),
        ("jaxlib", "np.array(x)"),
        ("pandas.core.frame", "x.to_numpy()"),
        ("cupy", "cupy.asnumpy(x)"),
        ("tensorflow", "x.numpy()"),
    ],
)
def test_error_shows_the_conversion(library, conversion):
    foreign, array = type("Foreign", (), {"__module__": library})(), np.ones(2)
    nested = {"W": array}
    for params, grads, hint in (
        ({"w": foreign}, {"w": array}, f"; {conversion} is "),
        ({"w": array}, {"w": foreign}, f"; {conversion} is "),
        ({"w": nested}, {"w": nested}, 'such as "layer1/W"'),
        (array, array, "update([w], [g])"),
    ):
        with pytest.raises(TypeError, match=re.escape(hint)):
            fo.SGD().update(params, grads)
    assert_array_equal(array, 1)


@pytest.mark.parametrize("was_list", [False, True])
def test_dict_with_integer_keys_and_list_are_an_error(pair, was_list):
    """The plan of an earlier update of the same arrays must not accept a dict together with a list."""
    _, opt = pair()
    arrays, gradients = ([draw(np.random.default_rng(seed), SHAPE) for _ in range(3)] for seed in (0, 1))
    as_dicts = dict(enumerate(arrays)), dict(enumerate(gradients))
    opt.update(*((arrays, gradients) if was_list else as_dicts))
    assert_error(opt, as_dicts[0], gradients, TypeError, "dict")
    assert_error(opt, arrays, as_dicts[1], TypeError, "dict")


@pytest.mark.parametrize(
    ("params", "hint"),
    [
        (fo.MultiLayerNet(3, [2], 2), "did you mean its .params?"),
        (iter([np.ones(3)]), "list(x) is a list of what an iterable x yields"),
        (np.ones(3), "for a single array w with gradient g: update([w], [g])"),
        ({"w": 1}, "write 1.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_message_says_what_to_type_instead(params, hint):
    with pytest.raises(TypeError, match=re.escape(f"; {hint}")):
        fo.SGD().update(params, {"w": np.ones(3)})


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_read_only_state_is_an_error(pair, dtype):
    """The flag is checked when parameters are bound at new addresses, not when the same arrays are updated again."""
    _, opt = pair()
    if not opt.slots:
        pytest.skip("SGD has no state.")
    params, grads = ({key: np.ones(3, dtype) for key in "ab"} for _ in range(2))
    opt.update(params, grads)
    getattr(opt, opt.slots[-1])["b"].flags.writeable = False
    other = {key: p.copy() for key, p in params.items()}
    assert_error(opt, other, grads, ValueError, f"state '{opt.slots[-1]}' of 'b' is read-only")


@pytest.mark.parametrize("name", [name for name, rule in naive.RULES.items() if rule.slots])
def test_first_update_that_fails_leaves_no_state(name):
    """Otherwise the keys of the failed update would be required of the next one."""
    opt = getattr(fo, name)()
    with pytest.raises(TypeError, match="b1"):
        opt.update({"W1": np.ones(3), "b1": np.ones(3, int)}, {"W1": np.ones(3), "b1": np.ones(3)})
    assert all(getattr(opt, slot) is None for slot in opt.slots)
    opt.update({"other": np.ones(5)}, {"other": np.ones(5)})
    assert all(list(getattr(opt, slot)) == ["other"] for slot in opt.slots)


@pytest.mark.parametrize("lr", [300, 2])
def test_integer_learning_rate_with_uint8_gradients(pair, lr):
    """An int is converted to a float first, as NumPy cannot multiply an array of bytes by 300."""
    ref_opt, comp_opt = pair(lr=float(lr))
    comp_opt.lr = lr
    ref, comp = (values(0, ["W1", "b1"]) for _ in range(2))
    grads = values(1, ["W1"]) | {"b1": np.ones(SHAPE, np.uint8)}
    assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


class Tagged(np.ndarray):
    """A subclass with an attribute."""

    def __array_finalize__(self, other):
        self.tag = getattr(other, "tag", "new")


def memmap(folder):
    def on_disk(a):
        mapped = np.memmap(folder / "memory", a.dtype, "w+", shape=a.shape)
        mapped[...] = a
        return mapped

    return on_disk


# Conversions of a parameter, a gradient, or both.
WORKS = {
    "float16": lambda a: a.astype(np.float16),
    "longdouble": lambda a: a.astype(np.longdouble),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "byte-swapped float32": lambda a: a.astype(np.dtype(np.float32).newbyteorder()),
    "matrix": np.asmatrix,
    "recarray of numbers": lambda a: a.view(np.recarray),
    "subclass": lambda a: a.view(Tagged),
    "unaligned": lambda a: np.frombuffer(bytearray(b"0" + a.tobytes()), np.uint8)[1:].view(a.dtype).reshape(a.shape),
    "reversed": lambda a: a[::-1, ::-1],
}
GRADIENTS_ONLY = {"int": lambda a: np.ceil(a).astype(int), "uint8": lambda a: np.ones(a.shape, np.uint8)}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("place", ["both", "parameter", "gradient"])
@pytest.mark.parametrize("kind", WORKS)
def test_unusual_arrays_are_updated_in_place(pair, kind, place):
    """They are updated like plain arrays of the same memory, which the oracle is given."""
    convert = WORKS[kind]
    ref_opt, comp_opt = pair()
    ref, comp = values(0, ["W1", "b1"]), values(0, ["W1", "b1"])
    if place != "gradient":
        comp["b1"] = convert(comp["b1"])
        ref["b1"] = np.array(comp["b1"], subok=False)
    held = comp["b1"]
    for seed in 1, 2, 3:
        grads = values(seed, ["W1", "b1"])
        if place != "parameter":
            grads["b1"] = convert(grads["b1"])
        plain_grads = {key: np.array(g, subok=False) for key, g in grads.items()}
        ref_opt.update(ref, plain_grads)
        comp_opt.update(comp, grads)
        assert comp["b1"] is held
        for key in ref:
            assert_array_equal(np.asarray(grads[key]), plain_grads[key])
            if ref[key].itemsize >= 8 or not isinstance(ref_opt, naive.Adam):
                naive.assert_bits(ref[key], np.asarray(comp[key]), key)
            else:
                naive.assert_ulps(ref[key], np.asarray(comp[key]), ref[key], 2, key)
                ref[key][...] = comp[key]


@pytest.mark.parametrize("kind", GRADIENTS_ONLY)
def test_integer_gradients(pair, kind):
    ref_opt, comp_opt = pair()
    ref, comp = values(0, ["W1", "b1"]), values(0, ["W1", "b1"])
    for seed in 1, 2:
        grads = values(seed, ["W1", "b1"])
        grads["b1"] = GRADIENTS_ONLY[kind](grads["b1"])
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_memmap_is_updated_on_disk(pair, tmp_path):
    ref_opt, comp_opt = pair()
    ref, comp = values(0, ["W1", "b1"]), values(0, ["W1", "b1"])
    comp["W1"] = memmap(tmp_path)(comp["W1"])
    for seed in 1, 2, 3:
        grads = values(seed, ["W1", "b1"])
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    comp["W1"].flush()
    naive.assert_bits(ref["W1"], np.fromfile(tmp_path / "memory").reshape(SHAPE))

    on_disk = np.memmap(tmp_path / "memory", float, "r", shape=SHAPE)
    grads = values(1, ["W1", "b1"])
    assert_error(comp_opt, comp | {"W1": on_disk}, grads, ValueError, "W1", "read-only")
    # It may be a gradient, which is only read; mode "c" makes a private copy that can be written.
    comp["W1"] = np.memmap(tmp_path / "memory", float, "c", shape=SHAPE)
    assert_step(ref_opt, comp_opt, ref, comp, {**grads, "b1": np.array(on_disk)}, {**grads, "b1": on_disk})
    assert not np.array_equal(np.asarray(comp["W1"]), np.fromfile(tmp_path / "memory").reshape(SHAPE))


def test_nan_as_key(pair):
    """Python's dicts find NaN only if it is the same object; another NaN is another key."""
    ref_opt, comp_opt = pair()
    nan, other = float("nan"), float("nan")
    ref, comp = ({nan: a} for a in (draw(np.random.default_rng(0), SHAPE) for _ in range(2)))
    grads = {nan: draw(np.random.default_rng(1), SHAPE)}
    for _ in range(3):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    assert_error(comp_opt, comp, {other: grads[nan]}, KeyError, "nan")
    assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_update_of_nothing_is_a_step(pair):
    _, opt = pair()
    for _ in range(2):
        opt.update({}, {})
    assert opt.iter == 2
    opt = pair()[1]
    opt.update([], [])
    opt.on_nonfinite = "raise"
    opt.update([], [])
    assert opt.iter == 2


def test_parameters_that_are_their_own_gradients(pair):
    for overlapping in False, True:
        ref_opt, comp_opt = pair()
        ref, comp = (values(0, ["W1", "b1", "W2"]) for _ in range(2))
        for params, opt in ((ref, ref_opt), (comp, comp_opt)):
            for _ in range(3):
                # Otherwise the parameters themselves are the gradients.
                opt.update(params, {k: params["W1"][::-1].copy() for k in params} if overlapping else params)
        for key, p in ref.items():
            naive.assert_bits(p, comp[key], key)


@pytest.mark.parametrize("lr", ["0.1", None, 1j, [0.1]])
def test_hyperparameter_of_a_custom_rule_that_is_not_a_number_is_an_error(lr):
    """It is not checked when it is set, so the update checks it."""
    opt, params = Custom(lr), {"w": np.ones(3)}
    assert_error(opt, params, {"w": np.ones(3)}, TypeError, "hyperparameters must be numbers")


@pytest.mark.parametrize("which", ["params", "grads", "state"])
@pytest.mark.parametrize("size", [2, 4000])
def test_a_buffer_of_another_length_is_an_error(which, size):
    """Kernels trust the lengths that were compared when the plan was made."""
    params, grads = (fo.flatten({"w": np.ones(3), "b": np.ones(20)}) for _ in range(2))
    opt = fo.Momentum()
    opt.update(params, grads)
    flat = {"params": params, "grads": grads, "state": opt.v}[which]
    flat._flat = np.ones(size)
    other = fo.flatten({"w": np.ones(3), "b": np.ones(20)}) if which == "state" else params
    with pytest.raises(ValueError, match="exchanged for one of another length"):
        opt.update(other, grads)
    assert opt.iter == 1


@pytest.mark.parametrize("pack", [dict, fo.flatten])
@pytest.mark.parametrize(("attribute", "value"), [("strides", (8, 24)), ("dtype", np.int64)])
@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
def test_state_altered_in_place_is_an_error(pack, attribute, value):
    opt = fo.Momentum()
    opt.update(pack({"w": np.ones((3, 3))}), pack({"w": np.ones((3, 3))}))
    before = opt.v["w"].copy()
    try:
        setattr(opt.v["w"], attribute, value)
    except AttributeError:
        pytest.skip(f"this NumPy does not set {attribute}")
    opt.on_nonfinite = "raise"  # Plans that were made before go on as they were.
    with pytest.raises(ValueError, match="'w' was given another dtype or other strides"):
        opt.update(pack({"w": np.ones((3, 3))}), pack({"w": np.ones((3, 3))}))
    assert_array_equal(opt.v.flat, before.ravel())
    assert opt.iter == 1
