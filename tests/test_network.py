"""Compare `MultiLayerNet` with an oracle: a NumPy network that is written layer by layer."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastoptim as fo
import naive
import script
from naive import assert_bits

DEPTHS = [[], [5], [6, 4], [7, 5, 6, 4]]
SIZES = {"input_size": 8, "output_size": 4}


def batch(seed, n=9, one_hot=False, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 5, (n, 8)).astype(dtype) if dtype == np.uint8 else rng.normal(size=(n, 8)).astype(dtype)
    t = rng.integers(0, 4, n)
    return x, np.eye(4)[t] if one_hot else t


def nets(hidden=(6, 5), dtype=np.float64, seed=0, **options):
    """Return the oracle's and the library's network with the same weights."""
    arguments = SIZES | {"hidden_size_list": list(hidden)} | options
    np.random.seed(seed)
    ref = naive.MultiLayerNet(**arguments)
    return ref, fo.MultiLayerNet(**arguments, dtype=dtype, seed=seed)


def assert_close(ref, comp, rtol=0, atol=1e-10):
    assert set(ref) == set(comp)
    for key, a in ref.items():
        assert comp[key].shape == a.shape
        assert_allclose(comp[key], a, rtol=rtol, atol=atol, err_msg=key)


@pytest.mark.parametrize("init", ["relu", "he", "xavier", "sigmoid", 0.01, 1])
@pytest.mark.parametrize("hidden", DEPTHS)
def test_initial_weights_match_the_oracle(hidden, init):
    """The global generator and `seed` give the same weights; `seed` does not use the global generator."""
    ref, comp = nets(hidden, weight_init_std=init, seed=3)
    arguments = SIZES | {"hidden_size_list": hidden, "weight_init_std": init}
    np.random.seed(3)
    from_global = fo.MultiLayerNet(**arguments, dtype=np.float64)
    after = np.random.random()
    np.random.seed(3)
    naive.MultiLayerNet(**arguments)
    assert np.random.random() == after

    assert list(comp.params) == list(ref.params)
    for key, a in ref.params.items():
        assert_bits(a, comp.params[key], key)
        assert_bits(a, from_global.params[key], key)
        assert_bits(a.astype(np.float32), nets(hidden, np.float32, 3, weight_init_std=init)[1].params[key], key)

    np.random.seed(4)
    expected = np.random.random()
    np.random.seed(4)
    fo.MultiLayerNet(**arguments, seed=3)
    assert np.random.random() == expected


def test_defaults():
    np.random.seed(0)
    net = fo.MultiLayerNet(8, [6, 5], 4)
    ref, _ = nets()
    assert all(a.dtype == np.float32 for a in net.params.values())
    assert_close(ref.params, net.params, atol=1e-6)
    x, t = batch(1)
    assert_allclose(net.loss(x, t), ref.loss(x, t), rtol=1e-5)
    assert not np.array_equal(fo.MultiLayerNet(8, [6, 5], 4).params["W1"], net.params["W1"])


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("decay", [0, 0.1])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("hidden", DEPTHS)
def test_fifty_steps(hidden, activation, decay, one_hot):
    ref, comp = nets(hidden, activation=activation, weight_init_std=activation, weight_decay_lambda=decay)
    ref_opt, comp_opt = naive.Momentum(0.1), fo.Momentum(0.1)
    for step in range(50):
        x, t = batch(step, n=1 + step % 7, one_hot=one_hot)
        grads = ref.gradient(x, t), comp.gradient(x, t)
        assert_close(*grads)
        ref_opt.update(ref.params, grads[0])
        comp_opt.update(comp.params, grads[1])
        assert_close(ref.params, comp.params)
        assert_allclose(comp.loss(x, t), ref.loss(x, t), rtol=0, atol=1e-10)
        assert_allclose(comp.predict(x), ref.predict(x), rtol=0, atol=1e-10)
        assert comp.accuracy(x, t) == ref.accuracy(x, t)
    start, _ = nets(hidden, activation=activation, weight_init_std=activation)
    assert abs(start.params["W1"] - comp.params["W1"]).max() > 0.01


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("decay", [0, 0.1, 1])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("hidden", [[], [6, 5]])
def test_gradient_matches_numerical_gradient(hidden, activation, decay, one_hot):
    ref, comp = nets(hidden, activation=activation, weight_decay_lambda=decay)
    for key in ref.params:
        # With zero biases, a unit whose inputs are all zero would lie exactly at the kink of relu.
        if key.startswith("b"):
            ref.params[key] += 0.3
            comp.params[key] += 0.3
    x, t = batch(1, one_hot=one_hot)
    before = {key: a.copy() for key, a in comp.params.items()}
    numerical = comp.numerical_gradient(x, t)
    for key, a in before.items():
        # numerical_gradient moves a copy of the parameters.
        assert_bits(a, comp.params[key], key)
    assert_close(ref.numerical_gradient(x, t), numerical, atol=1e-9)
    # Back-propagation ignores the 1e-7 in the logarithm, an error of about 1e-7 over the probability of the label.
    assert_close(numerical, comp.gradient(x, t), atol=1e-5)
    assert max(abs(g).max() for g in numerical.values()) > 0.01


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("x_dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("t_dtype", [np.uint8, np.int32, np.int64, "one-hot int", "one-hot float32"])
def test_dtypes_of_data(dtype, x_dtype, t_dtype):
    """The network computes in its own dtype for data of any dtype, and does not change the data."""
    ref, comp = nets(dtype=dtype, weight_init_std=0.1)
    x, t = batch(2, dtype=x_dtype)
    t = np.eye(4, dtype=t_dtype.split()[1])[t] if isinstance(t_dtype, str) else t.astype(t_dtype)
    copies = x.copy(), t.copy()
    tolerance = 1e-10 if dtype is np.float64 else 1e-5
    assert comp.predict(x).dtype == dtype
    assert comp.predict(x).shape == (9, 4)
    grads = comp.gradient(x, t)
    assert all(grads[key].dtype == dtype and grads[key].shape == a.shape for key, a in comp.params.items())
    assert_close(ref.gradient(x, t), grads, atol=tolerance)
    assert_allclose(comp.predict(x), ref.predict(x), rtol=0, atol=tolerance)
    assert_allclose(comp.loss(x, t), ref.loss(x, t), rtol=tolerance)
    assert comp.accuracy(x, t) == ref.accuracy(x, t)
    assert np.ndim(comp.loss(x, t)) == np.ndim(comp.accuracy(x, t)) == 0
    for before, after in zip(copies, (x, t), strict=True):
        assert_bits(before, after)


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: np.flip(np.flip(a).copy()),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_memory_layouts_of_data(layout):
    ref, comp = nets()
    x, t = batch(3, one_hot=True)
    for laid in (layout(x), t), (x, layout(t)), (layout(x), layout(t)):
        assert_close(ref.gradient(x, t), comp.gradient(*laid))
        assert_allclose(comp.loss(*laid), ref.loss(x, t), rtol=1e-10)
        assert comp.accuracy(*laid) == ref.accuracy(x, t)
        assert_allclose(comp.predict(laid[0]), ref.predict(x), rtol=1e-10)


def test_loss_with_weight_decay_by_hand():
    """Equal scores give a cross-entropy of log(number of classes); the rest is weight decay."""
    net = fo.MultiLayerNet(8, [], 4, weight_decay_lambda=0.3, dtype=np.float64, seed=0)
    x, t = batch(4)
    expected = 0.15 * np.sum(net.params["W1"] ** 2) - np.log(0.25 + 1e-7)
    assert_allclose(net.loss(0 * x, t), expected, rtol=1e-12)


@pytest.mark.parametrize("best", range(4))
def test_large_scores_of_wrong_classes(best):
    """The shift by the maximum prevents overflow, and the 1e-7 prevents log(0)."""
    net = fo.MultiLayerNet(8, [], 4, dtype=np.float64, seed=0)
    net.params["b1"][:] = np.roll([1e4, 0, 0, -1e4], best)
    x, _ = batch(5, n=2)
    t = np.array([best, (best + 3) % 4])
    assert_allclose(net.loss(0 * x, t), (-np.log(1 + 1e-7) - np.log(1e-7)) / 2, rtol=1e-9)
    assert all(np.isfinite(g).all() for g in net.gradient(x, t).values())


def test_accuracy_of_two_out_of_three():
    net = fo.MultiLayerNet(3, [], 3, dtype=np.float64)
    net.params["W1"][:] = np.eye(3)
    x, t = np.eye(3), np.array([0, 1, 1])
    assert net.accuracy(x, t) == pytest.approx(2 / 3)
    assert net.accuracy(x, np.eye(3)[t]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("order", ["C", "F"])
def test_assigned_weights_are_used(order):
    """Predictions, gradients and later updates use weights that were assigned."""
    ref, comp = nets()
    ref_opt, comp_opt = naive.Adam(0.01), fo.Adam(0.01)
    for step in range(6):
        x, t = batch(step)
        if step == 3:
            w = np.random.default_rng(0).normal(size=(8, 6))
            ref.params["W1"], comp.params["W1"] = w.copy(), np.array(w, order=order)
            ref.params["b2"], comp.params["b2"] = np.ones(5), np.ones(5)
        assert_allclose(comp.predict(x), ref.predict(x), rtol=0, atol=1e-10)
        grads = ref.gradient(x, t), comp.gradient(x, t)
        assert_close(*grads)
        ref_opt.update(ref.params, grads[0])
        comp_opt.update(comp.params, grads[1])
    assert_close(ref.params, comp.params)


def test_weights_written_in_place_are_used():
    ref, comp = nets()
    x, _ = batch(6)
    for net in ref, comp:
        net.params["W2"][:, 1] = 0.5
        net.params["b1"] += 1
    assert_allclose(comp.predict(x), ref.predict(x), rtol=0, atol=1e-10)


def test_results_share_no_memory_with_later_calls():
    """Later calls do not change earlier results, and changes to a result do not affect later calls."""
    _, net = nets()
    x, t = batch(7)
    grads, scores = net.gradient(x, t), net.predict(x)
    copies = {key: g.copy() for key, g in grads.items()}, scores.copy()
    for seed in range(5):
        net.gradient(*batch(seed))
        net.loss(*batch(seed))
        net.predict(batch(seed)[0])
    for key, g in copies[0].items():
        assert_bits(g, grads[key], key)
        grads[key][...] = 0
    assert_bits(copies[1], scores)
    for key, g in net.gradient(x, t).items():
        assert_bits(copies[0][key], g, key)


def test_nothing_of_a_call_lives_until_the_next_one():
    """Neither samples nor results, in batches whose products several threads may share."""
    net = fo.MultiLayerNet(8, [500], 4)
    x, t = batch(7, n=100, dtype=np.float32)
    for call in (lambda: net.gradient(x, t), lambda: net.loss(x, t), lambda: net.predict(x)):
        references = sys.getrefcount(x)
        call()
        assert sys.getrefcount(x) == references


def test_more_threads_than_a_word_can_count():
    net = fo.MultiLayerNet(8, [500], 4)
    x, t = batch(7, n=600, dtype=np.float32)
    expected = net.gradient(x, t).flat
    with fo.num_threads(2**70):
        assert_bits(expected, net.gradient(x, t).flat)


def test_gradients_of_several_batches_can_be_summed():
    """Accumulate gradients over batches, which requires that each call returns new arrays."""
    ref, comp = nets()
    kept = [(ref.gradient(*batch(seed)), comp.gradient(*batch(seed))) for seed in range(4)]
    total = tuple({key: sum(grads[side][key] for grads in kept) for key in ref.params} for side in (0, 1))
    assert_close(*total)


def test_one_sample():
    ref, comp = nets()
    x, t = batch(8, n=1)
    assert comp.predict(x).shape == (1, 4)
    assert_close(ref.gradient(x, t), comp.gradient(x, t))


# The change to the batch, and the expected error message.
BAD = {
    "too many inputs": (lambda x, t: (np.repeat(x, 2, axis=1), t), "8"),
    "too few inputs": (lambda x, t: (x[:, :7], t), "8"),
    "images": (lambda x, t: (x.reshape(9, 1, 2, 4), t), "8"),
    "too few labels": (lambda x, t: (x, t[:8]), "8|9"),
    "too many labels": (lambda x, t: (x, np.append(t, 0)), "9|10"),
    "too few rows of labels": (lambda x, t: (x, np.eye(4)[t[:8]]), "8|9"),
    "too many classes": (lambda x, t: (x, np.eye(5)[t]), "4"),
    "too few classes": (lambda x, t: (x, np.eye(4)[t][:, :3]), "4"),
    "label too large": (lambda x, t: (x, np.where(t == t[4], 4, t)), "from 0 to 4, expected 0 to 3"),
    "negative label": (lambda x, t: (x, np.where(t == t[4], -1, t)), "from -1 to 3, expected 0 to 3"),
    "fractions": (lambda x, t: (x, np.full((len(t), 4), 0.25)), "one-hot"),
    "halves": (lambda x, t: (x, np.eye(4)[t] / 2), "one-hot"),
    "a row of zeros": (lambda x, t: (x, np.eye(4)[t] * (np.arange(9) != 5)[:, np.newaxis]), "one-hot"),
    "two classes at once": (lambda x, t: (x, np.minimum(np.eye(4)[t] + np.eye(4)[t[::-1]], 1)), "one-hot"),
    "NaN": (lambda x, t: (x, np.where(np.eye(4)[t] == 1, np.nan, 0)), "one-hot"),
    "complex inputs": (lambda x, t: (x + 0j, t), "complex|float|real"),
}


@pytest.mark.parametrize(
    ("argument", "values"),
    {
        "hidden_size_list": [3, [0], [2.5], [-1]],
        "input_size": [0, "8", None],
        "activation": ["tanh", None, 1],
        "weight_init_std": ["normal", None, np.nan, np.inf, 1j, [0.1]],
        "weight_decay_lambda": [-0.1, np.nan, np.inf, "0.1", None],
        "dtype": [np.float16, int],
    }.items(),
)
def test_invalid_arguments(argument, values):
    good = {"input_size": 8, "hidden_size_list": [3], "output_size": 4}
    for value in values:
        with pytest.raises((ValueError, TypeError), match=f"{argument}|sizes"):
            fo.MultiLayerNet(**good | {argument: value})
    net = fo.MultiLayerNet(**good)
    for value in values if argument == "weight_decay_lambda" else []:
        with pytest.raises((ValueError, TypeError), match=argument):
            net.weight_decay_lambda = value


@pytest.mark.parametrize("method", ["gradient", "loss", "accuracy"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_data(method, bad):
    change, expected = BAD[bad]
    _, net = nets()
    with pytest.raises((ValueError, TypeError), match=expected):
        getattr(net, method)(*change(*batch(9)))


@pytest.mark.parametrize("bad", ["too many inputs", "too few inputs", "images"])
def test_bad_inputs_of_predict(bad):
    change, expected = BAD[bad]
    with pytest.raises(ValueError, match=expected):
        nets()[1].predict(change(*batch(9))[0])


def test_other_sizes_compile_nothing(compiled):
    for sizes, n in [((8, [6, 5], 4), 9), ((3, [], 2), 1), ((5, [4] * 6, 3), 20), ((7, [1], 2), 2)]:
        for activation in "relu", "sigmoid":
            net = fo.MultiLayerNet(*sizes, activation=activation, weight_decay_lambda=0.1 * n)
            x, t = np.ones((n, sizes[0]), np.float32), np.arange(n) % sizes[2]
            net.predict(x)
            net.loss(x, t)
            net.accuracy(x, t)
            fo.SGD().update(net.params, net.gradient(x, t))
        if n == 9:
            compiled.clear()
    assert compiled == []


@pytest.mark.parametrize("name", ["input_size", "hidden_size_list", "output_size", "activation", "dtype"])
def test_what_kernels_trust_cannot_be_set(name):
    net = fo.MultiLayerNet(4, [3], 2)
    with pytest.raises(AttributeError):
        setattr(net, name, getattr(net, name))
    net.hidden_size_list.append(5)
    assert net.hidden_size_list == [3]


def test_labels_that_another_thread_fills(tmp_path):
    """They are indices in compiled code, which would write far outside of the scores."""
    source = """
        import threading
        import numpy as np
        import fastoptim as fo

        net, stop = fo.MultiLayerNet(20, [10], 3, seed=0), threading.Event()
        x, t = np.ones((5000, 20), np.float32), np.zeros(5000, np.intp)
        net.gradient(x, t), net.loss(x, t)

        def fill():
            while not stop.is_set():
                t.fill(1 << 40)
                t.fill(0)

        thread = threading.Thread(target=fill)
        thread.start()
        errors = 0
        for k in range(600):
            try:
                (net.gradient if k % 2 else net.loss)(x, t)
            except ValueError:
                errors += 1
        stop.set()
        thread.join()
        print("survived")
    """
    assert script.run(source, tmp_path) == "survived"
