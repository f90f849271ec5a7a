"""Wrong arguments of public functions are errors that name the argument and what to type instead."""

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import schedules

NUMBER, STEPS = "{} must be a number, not 'a'", "{} must be a number of updates >= {}, not 'a'"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant("a"), NUMBER.format("value")),
        (lambda: schedules.step("a", 2), NUMBER.format("value")),
        (lambda: schedules.step(1.0, 2, "a"), NUMBER.format("factor")),
        (lambda: schedules.step(1.0, "a"), STEPS.format("every", 1)),
        (lambda: schedules.multistep(1.0, [1], "a"), NUMBER.format("factor")),
        (lambda: schedules.multistep(1.0, 5), "milestones must be a list such as [1000, 2000], not 5"),
        (lambda: schedules.multistep(1.0, "12"), "milestones must be a list such as [1000, 2000], not '12'"),
        (lambda: schedules.multistep(1.0, ["a"]), "milestones must be numbers of updates, not 'a'"),
        (lambda: schedules.exponential(1.0, "a"), NUMBER.format("factor")),
        (lambda: schedules.polynomial(1.0, 5, power="a"), NUMBER.format("power")),
        (lambda: schedules.linear(1.0, "a", 5), NUMBER.format("end")),
        (lambda: schedules.cosine(1, "a"), STEPS.format("steps", 1)),
        (lambda: schedules.cosine("a", 1), NUMBER.format("value")),
        (lambda: schedules.cosine([1.0, 2.0], 1), "value must be a number, not [1.0, 2.0]"),
        (lambda: schedules.inverse_sqrt("a", 5), NUMBER.format("peak")),
        (lambda: schedules.cosine_restarts("a", 5), NUMBER.format("value")),
        (lambda: schedules.cyclic(0.0, "a", 5), NUMBER.format("high")),
        (lambda: schedules.one_cycle(1.0, "a"), STEPS.format("steps", 2)),
        (lambda: schedules.one_cycle("a", 10), NUMBER.format("peak")),
        (lambda: schedules.ReduceOnPlateau("a"), NUMBER.format("value")),
        (lambda: schedules.ReduceOnPlateau(1.0, "a"), NUMBER.format("factor")),
        (lambda: schedules.ReduceOnPlateau(1.0, patience="a"), STEPS.format("patience", 0)),
        (
            lambda: schedules.warmup(0.1, 5),
            "schedule must be a function of the number of updates, such as schedules.constant(0.1), not 0.1",
        ),
        (lambda: schedules.warmup(schedules.cosine, 5), "schedule must be a function of the number of updates, .*"),
        (lambda: schedules.warmup(lambda: 0.1, 5), "schedule must be a function of the number of updates, .*"),
        (lambda: schedules.join([0.1, 0.2], [5]), "each of schedules must be a function .*, not 0.1"),
        (lambda: schedules.join(0.1, [5]), "schedules must be a list such as .*, not 0.1"),
        (lambda: schedules.join([abs, abs], 5), "boundaries must be a list such as [1000, 2000], not 5"),
    ],
)
def test_schedules_name_what_is_no_number(make, message):
    assert_raises(TypeError, message, make)


@pytest.mark.parametrize("number", [np.float32(2), np.int64(2), np.array(2.0)])
def test_schedules_take_numbers_of_numpy(number):
    assert schedules.cosine(number, 4)(4) == 0
    assert schedules.cosine(2.0, number)(4) == pytest.approx(0)


@pytest.mark.parametrize("loss", [None, "a", [1.0, 2.0]])
def test_a_loss_that_is_no_number(loss):
    schedule = schedules.ReduceOnPlateau(0.1)
    assert_raises(TypeError, f"loss must be a number, not {loss!r}", lambda: schedule.observe(loss))


def test_nested_parameters_are_not_flattened():
    message = "'a' is a dict; fo.flatten(fo.tree(params)) is the flat dict of nested params"
    assert_raises(TypeError, message, lambda: fo.flatten({"a": {"b": np.ones(2)}}))


def test_a_schedule_of_nan_is_an_error():
    assert_raises(ValueError, "value must be a number, not nan", lambda: schedules.cosine(float("nan"), 5))


SMALL = {"data": "digits", "iterations": 2, "batch_size": 8, "hidden": [4], "optimizers": ["SGD"], "progress": False}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"optimizers": "Adam"}, TypeError, "optimizers must be a list such as ['SGD', 'Adam'], not 'Adam'"),
        ({"optimizers": fo.Adam}, TypeError, "optimizers must be a list such as ['SGD', 'Adam'], not <class .*"),
        (
            {"optimizers": [fo.Adam(lr=0.1)]},
            TypeError,
            "optimizers must be names such as 'Adam', with their defaults, not Adam(.*",
        ),
        ({"hidden": 5}, TypeError, "hidden must be a list such as [100, 100], the units of each layer, not 5"),
        ({"hidden": "5"}, TypeError, "hidden must be a list such as [100, 100], the units of each layer, not '5'"),
        ({"hidden": [5.5]}, ValueError, "hidden layer must be an integer from 1 to 2147483647, not 5.5"),
        ({"iterations": "5"}, ValueError, "iterations must be an integer from 1 to 2147483647, not '5'"),
        ({"iterations": True}, ValueError, "iterations must be an integer from 1 to 2147483647, not True"),
        ({"batch_size": 1.5}, ValueError, "batch size must be an integer from 1 to 2147483647, not 1.5"),
        ({"threads": 1.5}, ValueError, "threads must be an integer from 1 to 2147483647, not 1.5"),
        ({"seed": None}, ValueError, "seed must be an integer from 0 to 4294967295, not None"),
        ({"dtype": "floaty"}, TypeError, "dtype must be float32 or float64, not 'floaty'"),
        ({"dtype": "float16"}, ValueError, "dtype must be float32 or float64, not float16"),
        ({"lang": ["en"]}, ValueError, "lang must be one of 'en', 'zh', not ['en']"),
        (
            {"data": ["mnist"]},
            TypeError,
            "data must be 'auto', 'mnist', 'digits' or the path of a folder, not .*",
        ),
        ({"progress": "no"}, TypeError, "progress must be True or False, not 'no'"),
    ],
)
def test_compare(arguments, error, message):
    assert_raises(error, message, lambda: fo.compare(**SMALL | arguments))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dtype": "floaty"}, TypeError, "dtype must be float32 or float64, not 'floaty'"),
        ({"seed": "a"}, ValueError, "seed must be an integer from 0 to 4294967295, not 'a'"),
        ({"seed": -1}, ValueError, "seed must be an integer from 0 to 4294967295, not -1"),
        ({"weight_init_std": True}, ValueError, "weight_init_std must be a finite number or one of .*, not True"),
    ],
)
def test_networks(arguments, error, message):
    assert_raises(error, message, lambda: fo.MultiLayerNet(4, [5], 3, **arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"normalize": "data/mnist"},
            "normalize must be True or False, not 'data/mnist'; folder='data/mnist' names a folder",
        ),
        ({"one_hot_label": 10}, "one_hot_label must be True or False, not 10"),
        ({"folder": 5}, "folder must be a path, as a string or Path, not 5 of type int"),
    ],
)
def test_load_mnist(arguments, message):
    assert_raises(TypeError, message, lambda: fo.load_mnist(**arguments))


def test_files_name_the_argument_and_the_folder_that_is_missing(tmp_path):
    opt, params = fo.SGD(), {"w": np.ones(2)}
    assert_raises(TypeError, "path must be a path, as a string or Path, not 5 of type int", lambda: opt.save(5))
    assert_raises(
        TypeError, "path must be a path, as a string or Path, not {.*} of type dict", lambda: fo.load(params, "x")
    )
    assert_raises(
        FileNotFoundError,
        f"[Errno 2] no such directory: {str(tmp_path / 'none')!r}",
        lambda: opt.save(tmp_path / "none" / "x", params),
    )


PARAMS = {"W": np.ones((2, 2)), "b": np.ones(2)}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"frozen": 3}, TypeError, "frozen must be a tuple of patterns, such as ('b*',), not 3"),
        ({"frozen": 0}, TypeError, "frozen must be a tuple of patterns, such as ('b*',), not 0"),
        ({"frozen": "W1"}, TypeError, "frozen must be a tuple of patterns, such as ('W1',), not 'W1'"),
        ({"frozen": np.ones(2)}, TypeError, "frozen must be a tuple of patterns, such as ('b*',), not .*"),
        (
            {"frozen": [3]},
            TypeError,
            "a pattern of frozen must be a string such as 'b*', or a function of key and array, not 3; "
            "the pattern of the key 3 is '3'",
        ),
        (
            {"frozen": [lambda key: key == "b"]},
            TypeError,
            "a pattern of frozen must be a string such as 'b*', or a function .*",
        ),
        ({"groups": {3: {"lr": 0.1}}}, TypeError, "a pattern of groups must be a string .*the key 3 is '3'"),
        ({"groups": np.ones(2)}, TypeError, "groups must be a dict such as {'b*': {'lr': 0.01}}, not .*"),
        ({"groups": ""}, TypeError, "groups must be a dict such as {'b*': {'lr': 0.01}}, not ''"),
        (
            {"groups": {"b*": 3}},
            TypeError,
            "the group 'b*' must be a dict such as {'lr': 0.01}, not 3",
        ),
        (
            {"groups": {"b*": {"clip_norm": 1}}},
            ValueError,
            "a group cannot have 'clip_norm', which is for all parameters; it may have .*",
        ),
        (
            {"groups": {"b*": {"lr": "0.1"}}},
            TypeError,
            "in the group 'b*', lr must be a finite number >= 0, not '0.1' of type str",
        ),
        ({"groups": {"b*": {"lr": -1}}}, ValueError, "in the group 'b*', lr must be a finite number >= 0, not -1"),
        (
            {"groups": {"b*": {"lr": lambda _k: None}}},
            TypeError,
            "in the group 'b*', what the schedule of lr returns must be a number, not None",
        ),
        (
            {"groups": {"b*": {"lr": schedules.cosine}}},
            TypeError,
            "in the group 'b*', lr must be a finite number >= 0, not .*; did you mean cosine(...)?",
        ),
        ({"lr": lambda _k: None}, TypeError, "what the schedule of lr returns must be a number, not None"),
        ({"lr": lambda: 0.1}, TypeError, "lr must be a number, or a function of the number of updates done, not .*"),
        (
            {"nesterov": True},
            TypeError,
            "Adam takes no argument 'nesterov'; its own are lr, beta1, beta2, eps, like",
        ),
        ({"grad_scale": "1/128"}, TypeError, "grad_scale must be a finite number, not '1/128' of type str"),
        ({"grad_scale": float("inf")}, ValueError, "grad_scale must be a finite number, not inf"),
        ({"like": ["torch"]}, ValueError, "like must be one of 'notes', 'torch', 'optax', 'keras', not ['torch']"),
        ({"lookahead": (0.5, 5)}, ValueError, "alpha of lookahead must be in (0, 1], not 5"),
        ({"lookahead": (5, "a")}, TypeError, "alpha of lookahead must be a number, not 'a'"),
        ({"betas": (0.9, 0.99)}, TypeError, "Adam takes no argument 'betas'; did you mean 'beta1' and 'beta2'?"),
        ({"lr": schedules.cosine}, TypeError, "lr must be a finite number >= 0, not .*; did you mean cosine(...)?"),
    ],
)
def test_optimizers(arguments, error, message):
    assert_raises(error, message, lambda: fo.Adam(**arguments))


@pytest.mark.parametrize(
    ("name", "argument"),
    [("Prodigy", "bias_correction"), ("Prodigy", "safeguard_warmup"), ("Muon", "nesterov"), ("RMSprop", "centered")],
)
def test_switches_of_rules(name, argument):
    message = f"{argument} must be True or False, not 'no'"
    assert_raises(TypeError, message, lambda: getattr(fo, name)(**{argument: "no"}))


def test_the_schedule_of_a_users_class():
    class Mine(fo.Optimizer):
        def __init__(self, lr):
            super().__init__()
            self.lr = lr

    message = "what the schedule of lr returns must be a number, not None"
    assert_raises(TypeError, message, lambda: Mine(lambda _k: None))


@pytest.mark.parametrize(
    "params", [PARAMS, [np.ones(2)], iter([np.ones(2)]), np.ones(2)], ids=["dict", "list", "iterator", "array"]
)
def test_an_optimizer_is_made_without_parameters(params):
    message = (
        "Adam takes no parameters: make opt = fo.Adam(lr=0.01) and call opt.update(params, grads), or for torch .*"
    )
    assert_raises(TypeError, message, lambda: fo.Adam(params, lr=0.1))


def test_a_subclass_may_take_a_list_first():
    class Mine(fo.Adam):
        def __init__(self, layers, lr=0.1):
            super().__init__(lr)
            self.layers = layers

    assert Mine([1, 2]).layers == [1, 2]
    assert fo.Adam(np.array(0.5)).lr == 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"gradient": 3}, TypeError, "gradient must be a function of the parameters, not 3"),
        ({"loss": 3}, TypeError, "loss must be a function of the parameters, or None, not 3"),
        ({"steps": "a"}, ValueError, "steps must be an integer >= 0, not 'a'"),
        ({"steps": -1}, ValueError, "steps must be an integer >= 0, not -1"),
        ({"vectorized": "a"}, TypeError, "vectorized must be True or False, not 'a'"),
    ],
)
def test_sweep(arguments, error, message):
    given = {"optimizer": fo.Adam, "params": {"w": 1.0}, "values": {"lr": [0.1]}, "gradient": lambda p: p, "steps": 1}
    assert_raises(error, message, lambda: fo.sweep(**given | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bounds": "ab"}, "bounds must be scipy.optimize.Bounds, or pairs (low, high), got 'ab'"),
        ({"rng": "a"}, "rng must be a seed, a generator of NumPy or None, not 'a'"),
    ],
)
def test_minimize(arguments, message):
    assert_raises(TypeError, message, lambda: fo.minimize(sum, [1.0, 2.0], **arguments))


def test_minimize_takes_one_argument_without_a_tuple():
    result = fo.minimize(lambda x, a: ((x - a) ** 2).sum(), [0.0], 3.0, jac=lambda x, a: 2 * (x - a), maxiter=1)
    assert result.fun < 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slots": "m"}, "slots must be a tuple of names, such as ('m',), not 'm'"),
        ({"slots": 5}, "slots must be a tuple of names, such as ('m',), not 5"),
        ({"ulps": "a"}, "ulps must be a number, not 'a'"),
    ],
)
def test_check_rule(arguments, message):
    assert_raises(TypeError, message, lambda: fo.check_rule(abs, **arguments))


def assert_raises(error, message, make):
    """Assert that a call raises an error with a message, in which ".*" stands for any text."""
    with pytest.raises(error) as raised:
        make()
    start, _, end = message.partition(".*")
    text = str(raised.value)
    assert text == message if ".*" not in message else text.startswith(start) and text.endswith(end), text
