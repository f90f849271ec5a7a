"""A restored network continues with the same bits; a checkpoint of another architecture changes nothing."""

import copy
import pickle
import threading

import numpy as np
import pytest

import fastoptim as fo
from naive import assert_bits
from states import assert_same


def batch(seed, net):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((6, net.input_size)), rng.integers(0, net.output_size, 6)


def step(net, opt, seeds):
    for seed in seeds:
        opt.update(net.params, net.gradient(*batch(seed, net)))


NETWORKS = {
    "deep float32": lambda: fo.MultiLayerNet(4, [5, 3], 2, weight_decay_lambda=0.1, seed=0),
    "sigmoid float64": lambda: fo.MultiLayerNet(4, [3], 2, "sigmoid", "xavier", dtype=np.float64, seed=1),
    "linear": lambda: fo.MultiLayerNet(4, np.array([], int), np.int64(3), weight_decay_lambda=np.float32(0.1), seed=2),
}


def by_file(net, path):
    net.save(path)
    return fo.load(path)


def into_another(net, load):
    other = copy.deepcopy(net)
    other.params.flat[:] = 0
    other.weight_decay_lambda = 7
    load(other)
    return other


def by_method(net, path):
    net.save(path)
    return into_another(net, lambda other: other.load(path))


def by_dict(net, _):
    saved = net.state_dict()
    net.params.flat[:] += 1
    net.load_state_dict(saved)
    return into_another(net, lambda other: other.load_state_dict(saved))


WAYS = {
    "file": by_file,
    "method": by_method,
    "dict": by_dict,
    "deepcopy": lambda net, _: copy.deepcopy(net),
    "pickle": lambda net, _: pickle.loads(pickle.dumps(net)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_restored_network_continues_with_the_same_bits(name, way, tmp_path):
    ref = NETWORKS[name]()
    ref_opt = fo.Adam()
    step(ref, ref_opt, range(2))
    np.random.seed(0)
    drawn = np.random.rand()
    np.random.seed(0)
    comp, comp_opt = WAYS[way](ref, tmp_path / "checkpoint"), copy.deepcopy(ref_opt)
    assert np.random.rand() == drawn, "loading drew from the global random generator"
    assert repr(comp) == repr(ref)
    assert type(comp.weight_decay_lambda) is type(ref.weight_decay_lambda)
    step(ref, ref_opt, range(2, 5))
    step(comp, comp_opt, range(2, 5))
    assert_bits(ref.params.flat, comp.params.flat)
    assert ref.loss(*batch(9, ref)) == comp.loss(*batch(9, comp))


def test_activation_name_in_any_case(tmp_path):
    fo.MultiLayerNet(2, [3], 2, "ReLU", seed=0).save(tmp_path / "checkpoint")
    fo.MultiLayerNet(2, [3], 2, "relu").load(tmp_path / "checkpoint")
    assert fo.load(tmp_path / "checkpoint").activation == "relu"


def test_network_and_optimizer_in_one_file(tmp_path):
    ref, ref_opt = NETWORKS["deep float32"](), fo.RMSprop()
    step(ref, ref_opt, range(3))
    ref_opt.save(tmp_path / "checkpoint", ref.params)
    comp = fo.MultiLayerNet(4, [5, 3], 2, weight_decay_lambda=0.1)
    comp_opt = fo.load(tmp_path / "checkpoint", comp.params)
    step(ref, ref_opt, range(3, 6))
    step(comp, comp_opt, range(3, 6))
    assert_same(ref_opt, comp_opt, ref.params, comp.params)


@pytest.mark.parametrize(
    "other",
    [
        fo.MultiLayerNet(4, [5, 3], 3),
        fo.MultiLayerNet(4, [3, 5], 2),
        fo.MultiLayerNet(4, [5, 3, 3], 2),
        fo.MultiLayerNet(4, [5, 3], 2, "sigmoid"),
        fo.MultiLayerNet(4, [5, 3], 2, dtype=np.float64),
        fo.Adam(),
    ],
    ids=repr,
)
def test_another_architecture_changes_nothing(other, tmp_path):
    net = NETWORKS["deep float32"]()
    net.save(tmp_path / "checkpoint")
    before = pickle.dumps(other)
    with pytest.raises(ValueError, match=r"of a network with|not of a"):
        other.load(tmp_path / "checkpoint")
    assert pickle.dumps(other) == before
    with pytest.raises(ValueError, match="without params"):
        fo.load(tmp_path / "checkpoint", net.params)


def test_saving_while_another_thread_trains(tmp_path):
    """The numbers may be of two steps, but what is hashed is what is written."""
    net, stop = fo.MultiLayerNet(300, [300, 300], 10, seed=0), threading.Event()

    def train():
        while not stop.is_set():
            net.params.flat[:] += 1

    trainer = threading.Thread(target=train)
    trainer.start()
    try:
        for _ in range(20):
            net.save(tmp_path / "net")
            fo.load(tmp_path / "net")
    finally:
        stop.set()
        trainer.join()


def test_what_kernels_trust_is_not_taken_from_a_pickle():
    """That of another version may have another form."""
    net, new = fo.MultiLayerNet(4, [5], 3, seed=0), object.__new__(fo.MultiLayerNet)
    new.__setstate__({**net.__getstate__(), "_runner": None})
    x = np.random.default_rng(0).random((20, 4))
    assert_bits(net.predict(x), new.predict(x))
