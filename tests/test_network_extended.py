"""Compare `MultiLayerNetExtend` with an oracle: the textbook's layers in plain NumPy."""

import copy
import pickle
import threading
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastoptim as fo
import layers
import naive
from fastoptim.kernels.normalization import Extension
from fastoptim.kernels.passes import GRADIENT, labelled
from fastoptim.network import runner
from naive import assert_bits

# Before the first pass in training the variances are zero, and scores in tests huge.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")

OPTIONS = [
    {"use_batchnorm": norm, "use_dropout": drop, "weight_decay_lambda": decay, "activation": activation}
    for norm, drop, decay, activation in product([False, True], [False, True], [0, 0.1], ["relu", "sigmoid"])
]
BOTH = {"use_batchnorm": True, "use_dropout": True}


def name_of(options):
    return " ".join(key if value is True else str(value) for key, value in options.items() if value) or "none"


def batch(seed, n=9, one_hot=False):
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(n, 8)) * (rng.random((n, 8)) < 0.5), rng.integers(0, 4, n)
    return x, np.eye(4)[t] if one_hot else t


def nets(hidden=(6, 5), dtype=np.float64, seed=0, **options):
    """Return the oracle's and the library's network with the same weights."""
    np.random.seed(seed)
    ref = layers.MultiLayerNetExtend(8, list(hidden), 4, **options)
    return ref, fo.MultiLayerNetExtend(8, hidden, 4, **options, dtype=dtype, seed=seed)


def seeded(seed, call, *args):
    np.random.seed(seed)
    return call(*args)


def assert_close(ref, comp, atol=1e-10):
    assert ref.keys() == comp.keys()
    for key, a in ref.items():
        assert comp[key].shape == a.shape
        assert_allclose(comp[key], a, rtol=0, atol=atol, err_msg=key)


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("hidden", [[], [5], [20, 18, 6]], ids=len)
def test_steps_of_training(hidden, options):
    """With the same seeds, all results of both modes are those of the textbook's code, for one-hot labels too."""
    ref, comp = nets(hidden, weight_init_std=options["activation"], **options)
    ref_opt, comp_opt = naive.Momentum(0.05), fo.Momentum(0.05)
    for step in range(25):
        x, t = batch(step, n=1 + 7 * step % 40, one_hot=step % 2 == 1)
        for method, arguments in [
            ("predict", (x,)),
            ("predict", (x, True)),
            ("loss", (x, t)),
            ("loss", (x, t, True)),
            ("accuracy", (x, t)),
        ]:
            np.random.seed(step)
            expected, drawn = getattr(ref, method)(*arguments), np.random.rand()
            np.random.seed(step)
            assert_allclose(getattr(comp, method)(*arguments), expected, rtol=1e-10, atol=1e-10)
            assert np.random.rand() == drawn
        grads = seeded(step, ref.gradient, x, t), seeded(step, comp.gradient, x, t)
        assert_close(*grads)
        ref_opt.update(ref.params, grads[0])
        comp_opt.update(comp.params, grads[1])
        assert_close(ref.params, comp.params)
        assert_close(ref.statistics, comp.statistics)
    start, _ = nets(hidden, weight_init_std=options["activation"], **options)
    assert all(abs(start.params[key] - comp.params[key]).max() > 0.001 for key in start.params if key[0] != "b")
    assert abs(start.params[f"b{len(hidden) + 1}"] - comp.params[f"b{len(hidden) + 1}"]).max() > 0.001


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_gradient_matches_numerical_gradient(options):
    ref, comp = nets([6, 5], **options)
    for key in ref.params:
        # With zero biases, a unit whose inputs are all zero would lie exactly at the kink of relu.
        if key.startswith("b"):
            ref.params[key] += 0.3
            comp.params[key] += 0.3
    x, t = batch(1)
    before = copy.deepcopy(comp)
    numerical = seeded(3, comp.numerical_gradient, x, t)
    after = np.random.rand()
    # It moves copies.
    assert_bits(before.params.flat, comp.params.flat)
    assert_close(before.statistics, comp.statistics, atol=0)
    assert_close(ref.numerical_gradient(x, t, seed=3), numerical, atol=1e-9)
    # Back-propagation ignores the 1e-7 in the logarithm, an error of about 1e-7 over the probability of the label.
    assert_close(numerical, seeded(3, comp.gradient, x, t), atol=1e-5)
    assert np.random.rand() == after
    assert max(abs(g).max() for g in numerical.values()) > 0.01


@pytest.mark.parametrize("init", ["he", "sigmoid", 0.01])
def test_initial_parameters_match_the_oracle(init):
    ref, comp = nets([6, 5], weight_init_std=init, seed=3, **BOTH)
    np.random.seed(3)
    from_global = fo.MultiLayerNetExtend(8, [6, 5], 4, "relu", init, 0, True, 0.5, True, dtype=np.float64)
    assert list(ref.params) == list(comp.params)
    for key, a in ref.params.items():
        assert_bits(a, comp.params[key], key)
        assert_bits(a, from_global.params[key], key)
        assert_bits(a.astype(np.float32), nets(dtype=np.float32, seed=3, weight_init_std=init, **BOTH)[1].params[key])
    assert not comp.statistics.flat.any()
    assert list(comp.statistics) == ["running_mean1", "running_mean2", "running_var1", "running_var2"]
    assert fo.MultiLayerNetExtend(8, [6], 4).statistics == {}


def test_in_float32():
    ref, _ = nets([20, 18], **BOTH, weight_decay_lambda=0.01)
    comp = fo.MultiLayerNetExtend(8, [20, 18], 4, **BOTH, weight_decay_lambda=0.01, seed=0)
    for step in range(5):
        x, t = batch(step, n=30)
        grads = seeded(step, comp.gradient, x, t)
        assert all(g.dtype == np.float32 for g in [*grads.values(), *comp.statistics.values(), comp.predict(x)])
        assert_close(seeded(step, ref.gradient, x, t), grads, atol=1e-5)
        assert_close(ref.statistics, comp.statistics, atol=1e-5)
        assert_allclose(comp.predict(x), ref.predict(x), rtol=0, atol=1e-4)
        assert_allclose(comp.loss(x, t), ref.loss(x, t), rtol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_without_options_it_has_the_bits_of_the_plain_network(activation):
    plain = fo.MultiLayerNet(8, [20, 18], 4, activation, weight_decay_lambda=0.1, dtype=np.float64, seed=0)
    _, net = nets([20, 18], activation=activation, weight_decay_lambda=0.1)
    assert net.accuracy(*batch(0, 30)) == plain.accuracy(*batch(0, 30))
    for n in 1, 30:
        x, t = batch(n, n)
        assert_bits(plain.gradient(x, t).flat, net.gradient(x, t).flat)
        for train_flg in False, True:
            assert_bits(plain.predict(x), net.predict(x, train_flg))
            assert plain.loss(x, t) == net.loss(x, t, train_flg)


def test_moving_averages_by_hand():
    """They move by a tenth at each pass in training; the variance is that of the batch, divided by its size."""
    _, net = nets([5], use_batchnorm=True, weight_init_std=1)
    x, t = batch(3, n=6)
    z = x @ net.params["W1"] + net.params["b1"]
    for step, call in enumerate(
        [lambda: net.predict(x, True), lambda: net.loss(x, t, True), lambda: net.gradient(x, t)]
    ):
        net.predict(x)
        net.loss(x, t)
        net.accuracy(x, t)
        net.numerical_gradient(x, t)
        assert_allclose(net.statistics["running_mean1"], (1 - 0.9**step) * z.mean(axis=0), rtol=1e-12)
        call()
    assert_allclose(net.statistics["running_mean1"], (1 - 0.9**3) * z.mean(axis=0), rtol=1e-12)
    assert_allclose(net.statistics["running_var1"], (1 - 0.9**3) * z.var(axis=0), rtol=1e-12)
    net.statistics["running_mean1"][:], net.statistics["running_var1"][:] = z.mean(axis=0), z.var(axis=0)
    assert_allclose(net.predict(x), net.predict(x, True), rtol=1e-12)


def test_bias_before_normalization_has_no_gradient():
    _, net = nets(use_batchnorm=True)
    grads = net.gradient(*batch(1))
    assert not grads["b1"].any()
    assert not grads["b2"].any()
    assert grads["b3"].any()


def test_one_sample():
    """Its variance is zero, so each hidden layer gives beta; without axes it is a batch of one."""
    ref, comp = nets(**BOTH)
    x, t = batch(8, n=1)
    for net in ref, comp:
        net.params["beta2"][:] = 0.5
    assert_close(seeded(1, ref.gradient, x, t), seeded(1, comp.gradient, x, t))
    assert_bits(seeded(2, comp.predict, x, True)[0], seeded(2, comp.predict, x[0], True))
    assert_bits(comp.predict(x)[0], comp.predict(x[0]))
    assert_bits(seeded(3, comp.gradient, x, t).flat, seeded(3, comp.gradient, x[0], t[0]).flat)


@pytest.mark.parametrize("ratio", [0, 0.2, 1])
def test_dropout_ratio(ratio):
    ref, comp = nets([20, 18], use_dropout=True, dropout_ration=ratio)
    _, changed = nets([20, 18], use_dropout=True)
    changed.dropout_ration = ratio
    x, t = batch(1, n=30)
    assert_close(seeded(1, ref.gradient, x, t), seeded(1, comp.gradient, x, t))
    assert_bits(seeded(1, comp.gradient, x, t).flat, seeded(1, changed.gradient, x, t).flat)
    assert_allclose(comp.predict(x), ref.predict(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("where", ["x", "W1", "gamma1", "beta2", "b3"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_spreads_as_in_numpy(where, value):
    ref, comp = nets([20, 18], **BOTH)
    x, t = batch(5, n=30)
    for a in (x,) if where == "x" else (ref.params[where], comp.params[where]):
        a.reshape(-1)[3] = value
    with np.errstate(all="ignore"):
        expected = {
            "scores": seeded(1, ref.predict, x, True),
            "loss": seeded(1, ref.loss, x, t, True),
            **ref.statistics,
        }
        found = {"scores": seeded(1, comp.predict, x, True), "loss": seeded(1, comp.loss, x, t, True)} | comp.statistics
    for key, a in expected.items():
        assert_array_equal(np.isnan(found[key]), np.isnan(a), err_msg=key)
        assert_array_equal(np.isposinf(found[key]), np.isposinf(a), err_msg=key)


def test_gradients_that_overflow_where_an_output_was_dropped():
    """Infinity times the zero of dropout is NaN, which must reach the layers below, however few outputs are kept."""
    ref, comp = nets([20, 18, 6], activation="sigmoid", use_dropout=True, dropout_ration=0.8)
    for params in ref.params, comp.params:
        params["W3"][4] = 1e308
        params["W4"] *= 1e4
    x, t = batch(5, n=30)
    with np.errstate(all="ignore"):
        expected, found = seeded(1, ref.gradient, x, t), seeded(1, comp.gradient, x, t)
    assert np.isnan(expected["W1"]).all()
    for key, g in expected.items():
        assert_array_equal(np.isnan(found[key]), np.isnan(g), err_msg=key)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_written_outside_of_the_arrays(dtype):
    """Guard words surround everything that the kernel writes."""
    rows, sizes, units = 17, (8, [20, 18], 4), 38
    _, net = nets(sizes[1], dtype=dtype, **BOTH)
    x, t = batch(0, rows)
    net.weight_decay_lambda = 0.1
    memory = runner._Memory()
    net._runner._program(GRADIENT, labelled, True, rows, memory)
    size = memory.buffer.size
    buffers, views = [], []
    for shape, kind in ((size,), np.uint64), ((net.params.flat.size,), dtype), ((2, units), dtype):
        buffers.append(np.full(np.prod(shape) + 64, 12345, kind))
        views.append(buffers[-1][32:-32].reshape(shape))
    memory.buffer, out, statistics = views
    memory.programs.clear()
    net._runner._spare = [memory]
    extension = Extension(True, True, 0.5, seeded(1, np.random.rand, rows * units), statistics)
    net._runner.run(GRADIENT, x.astype(dtype), net.params.flat, out=out, targets=t, extension=extension, decay=0.1)
    assert net._runner._spare == [memory]
    for buffer in buffers:
        assert (buffer[:32] == 12345).all()
        assert (buffer[-32:] == 12345).all()
    net._runner._spare = []
    assert_bits(seeded(1, net.gradient, x, t).flat, out)
    assert not (out == 12345).any()
    assert not (statistics == 12345).any()


@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_blas_threads_gives_the_same_bits(threads):
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    _, net = nets([90, 90], **BOTH)
    x, t = batch(1, n=30)
    results = []
    for limit in 1, threads:
        with limits(limit, "blas"):
            results.append([seeded(1, net.gradient, x, t).flat, seeded(1, net.predict, x, True)])
    for one, other in zip(*results, strict=True):
        assert_bits(one, other)


def test_threads_that_share_a_network_lose_no_average():
    _, net = nets([5], use_batchnorm=True)
    x, t = batch(1)
    workers = [threading.Thread(target=lambda: [net.gradient(x, t) for _ in range(25)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    mean = (x @ net.params["W1"]).mean(axis=0)
    assert_allclose(net.statistics["running_mean1"], (1 - 0.9**100) * mean, rtol=1e-9)


@pytest.mark.parametrize(
    ("argument", "values"),
    {
        "use_dropout": [1, "yes", None],
        "use_batchnorm": [0, "no", None],
        "dropout_ration": [-0.1, 1.1, np.nan, "0.5", None],
        "weight_decay_lambda": [-0.1],
        "activation": ["tanh"],
        "dtype": [np.float16],
        "hidden_size_list": [3, [0]],
    }.items(),
)
def test_invalid_arguments(argument, values):
    for value in values:
        with pytest.raises((ValueError, TypeError), match=f"{argument}|sizes"):
            fo.MultiLayerNetExtend(**{"input_size": 8, "hidden_size_list": [3], "output_size": 4, argument: value})
    if argument == "dropout_ration":
        with pytest.raises(ValueError, match=r"dropout_ration must be a finite number in \[0, 1\]"):
            nets()[1].dropout_ration = 2


@pytest.mark.parametrize("name", ["use_dropout", "use_batchnorm", "statistics", "hidden_size_list", "dtype"])
def test_what_kernels_trust_cannot_be_set(name):
    _, net = nets(**BOTH)
    with pytest.raises(AttributeError):
        setattr(net, name, getattr(net, name))


BAD = {
    "too many features": (np.ones((3, 9)), np.zeros(3, int), "8"),
    "label too large": (np.ones((3, 8)), np.array([0, 4, 1]), "0 to 3"),
    "not one-hot": (np.ones((2, 8)), np.full((2, 4), 0.25), "one-hot"),
    "no samples": (np.ones((0, 8)), np.zeros(0, int), "no samples"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_data_changes_nothing(bad):
    """Neither moving averages nor the random generator."""
    x, t, message = BAD[bad]
    _, net = nets(**BOTH)
    net.gradient(*batch(1))
    before, drawn = copy.deepcopy(net), seeded(1, np.random.rand)
    np.random.seed(1)
    calls = [lambda: net.gradient(x, t), lambda: net.loss(x, t, True), lambda: net.numerical_gradient(x, t)]
    for call in [*calls, lambda: net.predict(x, True)] if bad in ("too many features", "no samples") else calls:
        with pytest.raises(ValueError, match=message):
            call()
    assert np.random.rand() == drawn
    assert_close(before.statistics, net.statistics, atol=0)


def test_prediction_of_no_samples():
    assert nets(**BOTH)[1].predict(np.ones((0, 8))).shape == (0, 4)
    assert nets(use_dropout=True)[1].predict(np.ones((0, 8)), True).shape == (0, 4)


# Checkpoints; those of all networks are in test_network_checkpoints.py.


def by_file(net, path):
    net.save(path)
    return fo.load(path)


def by_method(net, path):
    net.save(path)
    other = nets([6, 5], dropout_ration=0.9, seed=5, **BOTH)[1]
    other.load(path)
    return other


WAYS = {
    "file": by_file,
    "method": by_method,
    "deepcopy": lambda net, _: copy.deepcopy(net),
    "pickle": lambda net, _: pickle.loads(pickle.dumps(net)),
}


def train(net, opt, steps):
    for step in steps:
        opt.update(net.params, net.gradient(*batch(step, net.input_size)))


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_has_the_bits_of_the_uninterrupted_one(way, tmp_path):
    _, ref = nets([6, 5], weight_decay_lambda=0.1, dropout_ration=0.3, **BOTH)
    ref_opt = fo.Adam()
    train(ref, ref_opt, range(5))
    drawn = np.random.get_state()
    comp, comp_opt = WAYS[way](ref, tmp_path / "net"), copy.deepcopy(ref_opt)
    assert repr(comp) == repr(ref)
    np.random.set_state(drawn)
    train(ref, ref_opt, range(5, 10))
    np.random.set_state(drawn)
    train(comp, comp_opt, range(5, 10))
    assert_bits(ref.params.flat, comp.params.flat)
    assert_bits(ref.statistics.flat, comp.statistics.flat)
    assert_bits(ref.predict(batch(99)[0]), comp.predict(batch(99)[0]))


def test_statistics_and_optimizer_in_one_file(tmp_path):
    _, ref = nets(use_batchnorm=True)
    opt = fo.Adam()
    train(ref, opt, range(3))
    opt.save(tmp_path / "run", {**ref.params, **ref.statistics})
    _, comp = nets(use_batchnorm=True, seed=1)
    comp_opt = fo.load(tmp_path / "run", {**comp.params, **comp.statistics})
    train(ref, opt, range(3, 6))
    train(comp, comp_opt, range(3, 6))
    assert_bits(ref.params.flat, comp.params.flat)
    assert_bits(ref.statistics.flat, comp.statistics.flat)


@pytest.mark.parametrize(
    "other",
    [
        fo.MultiLayerNet(8, [6, 5], 4, dtype=np.float64),
        nets(use_dropout=True)[1],
        nets(use_batchnorm=True)[1],
        nets([5, 6], **BOTH)[1],
        nets(dtype=np.float32, **BOTH)[1],
    ],
    ids=repr,
)
def test_another_architecture_changes_nothing(other, tmp_path):
    _, net = nets(**BOTH)
    net.save(tmp_path / "net")
    before = pickle.dumps(other)
    with pytest.raises(ValueError, match=r"of a network with|not of a"):
        other.load(tmp_path / "net")
    assert pickle.dumps(other) == before


ALTERED = {
    "no state": (lambda saved: saved.pop("state"), "items"),
    "state of nothing": (lambda saved: saved.update(state=None), "keys"),
    "another slot": (lambda saved: saved.update(state={"averages": {}}), "keys"),
    "a key too few": (lambda saved: saved["state"]["statistics"].pop("running_var2"), "running_var2"),
    "another shape": (lambda saved: saved["state"]["statistics"].update(running_var2=np.zeros(3)), "shape"),
    "a ratio above one": (lambda saved: saved["hyperparameters"].update(dropout_ration=1.5), "dropout_ration"),
    "no number": (lambda saved: saved["hyperparameters"].update(dropout_ration="0.5"), "dropout_ration"),
    "another option": (lambda saved: saved["hyperparameters"].update(use_dropout=False), "of a network with"),
}


@pytest.mark.parametrize("altered", ALTERED)
def test_a_damaged_state_dict_changes_nothing(altered):
    _, net = nets(weight_decay_lambda=0.1, **BOTH)
    net.gradient(*batch(1))
    saved = copy.deepcopy(net.state_dict())
    saved["hyperparameters"]["weight_decay_lambda"] = 0.7
    change, message = ALTERED[altered]
    change(saved)
    for arrays in saved["params"], (saved.get("state") or {}).get("statistics", {}):
        for a in arrays.values():
            a += 1
    before = pickle.dumps(net)
    with pytest.raises(ValueError, match=message):
        net.load_state_dict(saved)
    assert pickle.dumps(net) == before
