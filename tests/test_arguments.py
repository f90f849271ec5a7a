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
        ({"folder": 5}, "folder must be a path as text or Path, not 5 of type int"),
    ],
)
def test_load_mnist(arguments, message):
    assert_raises(TypeError, message, lambda: fo.load_mnist(**arguments))


def test_files_name_the_argument_and_the_folder_that_is_missing(tmp_path):
    opt, params = fo.SGD(), {"w": np.ones(2)}
    assert_raises(TypeError, "path must be a path as text or Path, not 5 of type int", lambda: opt.save(5))
    assert_raises(TypeError, "path must be a path as text or Path, not {.*} of type dict", lambda: fo.load(params, "x"))
    assert_raises(
        FileNotFoundError,
        f"[Errno 2] no such directory: {str(tmp_path / 'none')!r}",
        lambda: opt.save(tmp_path / "none" / "x", params),
    )


def assert_raises(error, message, make):
    """Assert that a call raises an error with a message, in which ".*" stands for any text."""
    with pytest.raises(error) as raised:
        make()
    start, _, end = message.partition(".*")
    text = str(raised.value)
    assert text == message if ".*" not in message else text.startswith(start) and text.endswith(end), text
