"""What `update` refuses, it refuses whole: one table of bad inputs, all six optimizers, nothing touched."""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
import naive
from naive import assert_step, draw, keys

SHAPE = (3, 4)


def param(bad):
    """A bad value in place of the parameter, or one made of it."""
    return lambda params, _, key: params.update({key: bad(params[key]) if callable(bad) else bad})


def grad(bad):
    """A bad value in place of the gradient, or one made of it."""
    return lambda _, grads, key: grads.update({key: bad(grads[key]) if callable(bad) else bad})


def read_only(params, _, key):
    """The same array as before: only its flag has changed."""
    params[key].flags.writeable = False


def read_only_view(a):
    view = a[:]
    view.flags.writeable = False
    return view


class Own(fo.Optimizer):
    """A rule of the user's own, refused like those of the package."""

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


class RefOwn(naive.Optimizer):
    slots = ("m",)

    def __init__(self, lr=0.01):
        self.lr, self.m = lr, None

    def step(self, p, g, m):
        m *= 0.5
        m += g
        p -= self.lr * m


@pytest.fixture(params=[*naive.RULES, "Own"])
def pair(request):
    """The oracle's and the library's optimizer of one rule: the six, and one of the user's own."""
    if request.param == "Own":
        return lambda **hyper: (RefOwn(**hyper), Own(**hyper))
    return lambda **hyper: tuple(getattr(module, request.param)(**hyper) for module in (naive, fo))


def structured(a):
    return np.zeros(a.shape, [("x", float), ("y", float)])


# What is done to (params, grads, key), the error, and what its message says beside the key.
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
    """Bytes of all that an update writes, and which objects the dict holds."""
    state = {slot: getattr(opt, slot) for slot in opt.slots}
    held = {
        slot: {key: (id(a[key]), a[key].tobytes()) for key in keys(a)} for slot, a in state.items() if a is not None
    }
    return opt.iter, held, [(key, id(params[key]), np.asarray(params[key]).tobytes()) for key in keys(params)]


def assert_refused(opt, params, grads, error, *patterns):
    before = snapshot(opt, params)
    with pytest.raises(error) as caught:
        opt.update(params, grads)
    for pattern in patterns:
        assert caught.match(pattern)
    assert snapshot(opt, params) == before


def assert_unharmed(ref_opt, comp_opt, ref, comp, make=dict):
    """The next good updates are the oracle's, which never saw the bad one."""
    for seed in 8, 9:
        grads = values(seed, ["W1", "b1", "W2"], make)
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize("key", ["W1", "W2"], ids=["first key", "last key"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_values(pair, bad, key, steps):
    spoil, error, expected = BAD[bad]
    ref_opt, comp_opt = pair()
    ref, comp = (values(0, ["W1", "b1", "W2"]) for _ in range(2))
    grads = values(1, ["W1", "b1", "W2"])
    for _ in range(steps):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)

    good = comp[key]
    spoil(comp, grads, key)
    assert_refused(comp_opt, comp, grads, error, key, expected)

    comp[key] = good
    good.flags.writeable = True
    assert_unharmed(ref_opt, comp_opt, ref, comp)


@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize(
    "bad", [bad for bad in BAD if "gradient" in bad.split()[:2] or bad == "parameters made read-only"]
)
def test_bad_values_beside_a_flat_dict(pair, bad, steps):
    """One kernel call looks at no key by itself; the checks before it must."""
    spoil, error, expected = BAD[bad]
    ref_opt, comp_opt = pair()
    ref, comp = values(0, ["W1", "b1", "W2"]), values(0, ["W1", "b1", "W2"], fo.flatten)
    grads = values(1, ["W1", "b1", "W2"], fo.flatten)
    for _ in range(steps):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    # A flat dict itself takes no bad value, so the bad gradient comes in a plain one.
    spoiled = dict(grads) if "gradient" in bad else grads
    spoil(comp, spoiled, "W2")
    assert_refused(comp_opt, comp, spoiled, error, "W2", expected)
    comp["W2"].flags.writeable = True
    assert_unharmed(ref_opt, comp_opt, ref, comp, fo.flatten)


@pytest.mark.parametrize("bad", BAD)
def test_bad_values_in_lists_are_named_by_position(pair, bad):
    if bad == "missing gradient":
        pytest.skip("A list that lacks one is a list of another length.")
    spoil, error, expected = BAD[bad]
    _, opt = pair()
    params, grads = ([draw(np.random.default_rng(seed), SHAPE) for _ in range(3)] for seed in (0, 1))
    # `spoil` speaks of dicts; the lists take over what it did.
    as_dicts = tuple(dict(enumerate(values)) for values in (params, grads))
    spoil(*as_dicts, 2)
    assert_refused(opt, *(list(values.values()) for values in as_dicts), error, r"\b2\b", expected)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_key_that_appears_after_the_first_update(pair, steps):
    ref_opt, comp_opt = pair()
    ref, comp = (values(0, ["W1", "b1", "W2"]) for _ in range(2))
    grads = values(1, ["W1", "b1", "W2", "new"])
    for _ in range(steps):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    if ref_opt.slots:
        bigger = comp | values(2, ["new"])
        assert_refused(comp_opt, bigger, grads, KeyError, "new")
        assert_unharmed(ref_opt, comp_opt, ref, comp)
    else:
        # Without state there is nothing that the key could lack.
        ref, comp = (params | values(2, ["new"]) for params in (ref, comp))
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_a_known_key_with_another_shape(pair):
    """The state has the shape of the first update's parameter."""
    ref_opt, comp_opt = pair()
    if not ref_opt.slots:
        pytest.skip("SGD has no state.")
    ref, comp = (values(0, ["W1", "b1", "W2"]) for _ in range(2))
    grads = values(1, ["W1", "b1", "W2"])
    assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    for shape in (4, 3), (1, 4), (12,), (2, 3, 4):
        other = {"W2": np.ones(shape)}
        assert_refused(comp_opt, comp | other, grads | other, ValueError, "W2", EXPECTED_SHAPE)
    assert_unharmed(ref_opt, comp_opt, ref, comp)


def as_list(values):
    return list(values.values())


# What the parameters come in, what the gradients come in, the error and what its message says.
def one_record(grads):
    array = np.zeros((), [(key, g.dtype, g.shape) for key, g in grads.items()])
    for key, g in grads.items():
        array[key] = g
    return array


class ByKey:
    """What an update of a dict needs, and no more."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, key):
        return self.values[key]

    def __len__(self):
        return len(self.values)


CONTAINERS = {
    "dict and list": (dict, as_list, TypeError, "dict"),
    "dict and generator": (dict, lambda grads: iter(grads.items()), TypeError, "dict"),
    "dict and items": (dict, lambda grads: grads.items(), TypeError, "dict"),
    "dict and None": (dict, lambda _: None, TypeError, "dict"),
    "dict and array": (dict, lambda grads: np.array(as_list(grads)), TypeError, "dict"),
    "dict and structured array": (dict, one_record, TypeError, "dict"),
    "dict and something that gives values by key": (dict, ByKey, TypeError, "ByKey"),
    "list and shorter list": (as_list, lambda grads: as_list(grads)[:2], (ValueError, KeyError), "2|3"),
    "list and empty list": (as_list, lambda _: [], (ValueError, KeyError), "0|3"),
    "list and None": (as_list, lambda _: None, TypeError, "list"),
}


@pytest.mark.parametrize("steps", [0, 2], ids=["first update", "later update"])
@pytest.mark.parametrize("containers", CONTAINERS)
def test_containers_that_do_not_fit(pair, containers, steps):
    of_params, of_grads, error, expected = CONTAINERS[containers]
    ref_opt, comp_opt = pair()
    ref, comp = (of_params(values(0, ["W1", "b1", "W2"])) for _ in range(2))
    grads = of_params(values(1, ["W1", "b1", "W2"]))
    for _ in range(steps):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    assert_refused(comp_opt, comp, of_grads(values(1, ["W1", "b1", "W2"])), error, expected)
    assert_unharmed(ref_opt, comp_opt, ref, comp, of_params)


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
def test_keys_that_could_be_positions(pair, was_list):
    """That an update of the same arrays has just been accepted does not make a dict with a list acceptable."""
    _, opt = pair()
    arrays, gradients = ([draw(np.random.default_rng(seed), SHAPE) for _ in range(3)] for seed in (0, 1))
    as_dicts = dict(enumerate(arrays)), dict(enumerate(gradients))
    opt.update(*((arrays, gradients) if was_list else as_dicts))
    assert_refused(opt, as_dicts[0], gradients, TypeError, "dict")
    assert_refused(opt, arrays, as_dicts[1], TypeError, "dict")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_state_that_is_read_only(pair, dtype):
    """A kernel that is at work already does not look; but nothing is left half written."""
    _, opt = pair()
    if not opt.slots:
        pytest.skip("SGD has no state.")
    params, grads = ({key: np.ones(3, dtype) for key in "ab"} for _ in range(2))
    opt.update(params, grads)
    getattr(opt, opt.slots[-1])["b"].flags.writeable = False
    other = {key: p.copy() for key, p in params.items()}
    assert_refused(opt, other, grads, ValueError, f"state '{opt.slots[-1]}' of 'b' is read-only")


@pytest.mark.parametrize("name", [name for name, rule in naive.RULES.items() if rule.slots])
def test_a_failing_first_update_leaves_no_state(name):
    """State that only a refused update made would freeze the keys of a dict that the user then mends."""
    opt = getattr(fo, name)()
    with pytest.raises(TypeError, match="b1"):
        opt.update({"W1": np.ones(3), "b1": np.ones(3, int)}, {"W1": np.ones(3), "b1": np.ones(3)})
    assert all(getattr(opt, slot) is None for slot in opt.slots)
    opt.update({"other": np.ones(5)}, {"other": np.ones(5)})
    assert all(list(getattr(opt, slot)) == ["other"] for slot in opt.slots)


@pytest.mark.parametrize("lr", [300, 2])
def test_a_whole_number_as_learning_rate_beside_gradients_of_bytes(pair, lr):
    """It is a number like any other, though NumPy would not multiply it with a byte; and nothing is done by half."""
    ref_opt, comp_opt = pair(lr=float(lr))
    comp_opt.lr = lr
    ref, comp = (values(0, ["W1", "b1"]) for _ in range(2))
    grads = values(1, ["W1"]) | {"b1": np.ones(SHAPE, np.uint8)}
    assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


class Tagged(np.ndarray):
    """A subclass with a meaning of its own."""

    def __array_finalize__(self, other):
        self.tag = getattr(other, "tag", "new")


def memmap(folder):
    def on_disk(a):
        mapped = np.memmap(folder / "memory", a.dtype, "w+", shape=a.shape)
        mapped[...] = a
        return mapped

    return on_disk


# What works, in the place of the parameter, of the gradient, or of both.
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
def test_unusual_arrays_that_work(pair, kind, place):
    """Updated in place as the plain arrays in their memory; the oracle gets those."""
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
def test_gradients_of_whole_numbers_work(pair, kind):
    ref_opt, comp_opt = pair()
    ref, comp = values(0, ["W1", "b1"]), values(0, ["W1", "b1"])
    for seed in 1, 2:
        grads = values(seed, ["W1", "b1"])
        grads["b1"] = GRADIENTS_ONLY[kind](grads["b1"])
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_a_memmap_is_updated_on_disk(pair, tmp_path):
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
    assert_refused(comp_opt, comp | {"W1": on_disk}, grads, ValueError, "W1", "read-only")
    # As a gradient it is only read, and a private copy may be written to.
    comp["W1"] = np.memmap(tmp_path / "memory", float, "c", shape=SHAPE)
    assert_step(ref_opt, comp_opt, ref, comp, {**grads, "b1": np.array(on_disk)}, {**grads, "b1": on_disk})
    assert not np.array_equal(np.asarray(comp["W1"]), np.fromfile(tmp_path / "memory").reshape(SHAPE))


def test_nan_as_key(pair):
    """It is found if it is the same object, as Python's dicts find it; another one is another key."""
    ref_opt, comp_opt = pair()
    nan, other = float("nan"), float("nan")
    ref, comp = ({nan: a} for a in (draw(np.random.default_rng(0), SHAPE) for _ in range(2)))
    grads = {nan: draw(np.random.default_rng(1), SHAPE)}
    for _ in range(3):
        assert_step(ref_opt, comp_opt, ref, comp, grads, grads)
    assert_refused(comp_opt, comp, {other: grads[nan]}, KeyError, "nan")
    assert_step(ref_opt, comp_opt, ref, comp, grads, grads)


def test_nothing_to_update_is_a_step(pair):
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
                # With a reversed view each element is read after another one was written.
                opt.update(params, {k: params["W1"][::-1].copy() for k in params} if overlapping else params)
        for key, p in ref.items():
            naive.assert_bits(p, comp[key], key)


@pytest.mark.parametrize("lr", ["0.1", None, 1j, [0.1]])
def test_a_hyperparameter_of_ones_own_that_is_no_number(lr):
    """Nobody checks it when it is set, so the update does."""
    opt, params = Own(lr), {"w": np.ones(3)}
    assert_refused(opt, params, {"w": np.ones(3)}, TypeError, "hyperparameters must be numbers")
