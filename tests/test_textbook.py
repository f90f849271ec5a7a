"""The textbook's scripts and pickles work with these optimizers after one line is replaced."""

import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import fastoptim as fo
import naive
import script
from naive import assert_bits, assert_state, draw

# The modules that the script imports. The oracle stands in for the textbook's optimizers and network.
HELPERS = {
    "common/oracle.py": (Path(__file__).parent / "naive.py").read_text(encoding="utf-8"),
    "common/optimizer.py": """
import numpy as np
from common.oracle import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
""",
    "common/multi_layer_net.py": "from common.oracle import MultiLayerNet\n",
    "common/multi_layer_net_extend.py": (Path(__file__).parent / "layers.py").read_text(encoding="utf-8"),
    "common/util.py": "def smooth_curve(x):\n    return ['smoothed', *x]\n",
    "dataset/mnist.py": """
import numpy as np

def load_mnist(normalize):
    rng = np.random.default_rng(0)
    return [(rng.random((n, 12)), rng.integers(3, size=n)) for n in (60, 20)]
""",
}

SCRIPT = """
import os
import sys

sys.path.append(os.path.dirname(__file__))
from dataset.mnist import load_mnist
from common.util import smooth_curve
from common.multi_layer_net import MultiLayerNet
from common.optimizer import *

np.random.seed(1)
(x_train, t_train), _ = load_mnist(normalize=True)
optimizers = {}
optimizers["SGD"] = SGD()
optimizers["Momentum"] = Momentum()
optimizers["AdaGrad"] = AdaGrad()
optimizers["Adam"] = Adam()
optimizers["RMSprop"] = RMSprop()
optimizers["Nesterov"] = Nesterov()

networks, losses = {}, {}
for key in optimizers:
    networks[key] = MultiLayerNet(input_size=12, hidden_size_list=[7, 7], output_size=3)
    losses[key] = []

for i in range(20):
    batch = np.random.choice(x_train.shape[0], 10)
    x, t = x_train[batch], t_train[batch]
    for key in optimizers:
        grads = networks[key].gradient(x, t)
        optimizers[key].update(networks[key].params, grads)
        losses[key].append(networks[key].loss(x, t))

for key in optimizers:
    print(key, *smooth_curve(losses[key]))
"""


README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EDITS = re.findall(r"```diff\n-(.*)\n\+(.*)\n```", README)
"""The edits that the README shows: first the optimizers, then the network."""


EXTENDED = """
import os
import sys

sys.path.append(os.path.dirname(__file__))
from dataset.mnist import load_mnist
from common.multi_layer_net_extend import MultiLayerNetExtend
from common.optimizer import *

np.random.seed(1)
(x_train, t_train), _ = load_mnist(normalize=True)
for options in {"use_batchnorm": True}, {"use_dropout": True, "dropout_ration": 0.2}:
    network = MultiLayerNetExtend(input_size=12, hidden_size_list=[20] * 3, output_size=3, **options)
    optimizer = SGD(lr=0.1)
    for i in range(40):
        batch = np.random.choice(x_train.shape[0], 20)
        x, t = x_train[batch], t_train[batch]
        optimizer.update(network.params, network.gradient(x, t))
        print(network.loss(x, t))
    assert 0 < network.accuracy(x_train, t_train) <= 1
"""


def run_edited(edits, folder, source=SCRIPT):
    """Return what the script prints after lines have been replaced in it."""
    for name, text in HELPERS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for old, new in edits:
        assert source.count(old) == 1
        source = source.replace(old, new)
    return script.run(source, folder)


@pytest.mark.parametrize("edit", [EDITS[0], (EDITS[0][0], "import numpy as np\nfrom fastoptim import *")])
def test_its_comparison_runs_with_one_line_replaced(edit, tmp_path):
    ref = run_edited([], tmp_path)
    assert len(ref.splitlines()) == 6
    assert "smoothed" in ref
    assert run_edited([edit], tmp_path) == ref


def test_its_comparison_runs_with_our_network(tmp_path):
    assert len(EDITS) == 2
    ref, comp = (run_edited(edits, tmp_path).split() for edits in ([], EDITS))
    assert [word for word in ref if word.isalpha()] == [word for word in comp if word.isalpha()]
    losses = [[float(word) for word in words if not word.isalpha()] for words in (ref, comp)]
    # Our network computes in float32 by default, from the same initial weights.
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_its_scripts_of_batch_normalization_and_dropout_run_with_our_network(tmp_path):
    line = "from {} import MultiLayerNetExtend"
    edits = [(line.format("common.multi_layer_net_extend"), line.format("fastoptim")), EDITS[0]]
    ref, comp = (run_edited(each, tmp_path, EXTENDED).split() for each in ([], edits))
    assert len(ref) == 80
    np.testing.assert_allclose(list(map(float, comp)), list(map(float, ref)), rtol=1e-3)


def test_its_star_import_brings_what_the_textbooks_does():
    names = {}
    exec("from fastoptim.notes import *", names)
    assert names.keys() - {"__builtins__"} == {"SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam", "np"}
    assert names["np"] is np
    assert names["Adam"] is fo.Adam


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("steps", [0, 3])
def test_a_pickle_of_its_class_keeps_the_state(pair, steps, protocol, monkeypatch):
    ref_opt, _ = pair()
    cls = type(ref_opt)
    # The textbook's class, with nothing but the attributes that its constructor and `update` set.
    theirs = types.ModuleType("common.optimizer")
    setattr(theirs, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "common", types.ModuleType("common"))
    monkeypatch.setitem(sys.modules, "common.optimizer", theirs)
    monkeypatch.setattr(cls, "__module__", "common.optimizer")

    rng = np.random.default_rng(0)
    ref = {"W": draw(rng, (3, 4)), "b": draw(rng, 4)}
    for _ in range(steps):
        ref_opt.update(ref, {"W": draw(rng, (3, 4)), "b": draw(rng, 4)})
    pickled = pickle.dumps(ref_opt, protocol)

    setattr(theirs, cls.__name__, getattr(fo, cls.__name__))
    comp_opt, comp = pickle.loads(pickled), {key: p.copy() for key, p in ref.items()}
    assert type(comp_opt) is getattr(fo, cls.__name__)
    assert set(comp_opt.slots).isdisjoint(vars(comp_opt))
    if steps:
        assert_state(ref_opt, comp_opt)
    else:
        assert all(getattr(comp_opt, slot) is None for slot in comp_opt.slots)
    assert comp_opt.iter == steps
    for _ in range(3):
        grads = {"W": draw(rng, (3, 4)), "b": draw(rng, 4)}
        ref_opt.update(ref, grads)
        comp_opt.update(comp, grads)
    for key in ref:
        assert_bits(ref[key], comp[key], key)
    assert_state(ref_opt, comp_opt)
    assert comp_opt.on_nonfinite == "ignore"


def test_a_pickle_of_its_class_with_numbers_as_state():
    """In the textbook's pictures the parameters are Python floats, and the state becomes NumPy numbers."""
    opt = fo.Momentum.__new__(fo.Momentum)
    opt.__setstate__({"lr": 0.1, "momentum": 0.5, "v": {"x": np.float64(0.25), "y": 0.5}})
    params = {"x": 1.0, "y": 1.0}
    opt.update(params, {"x": 0.0, "y": 0.0})
    assert params == {"x": 1.125, "y": 1.25}


def test_oracle_pickles_are_like_the_textbooks():
    opt = naive.Adam()
    assert vars(opt) == {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "m": None, "v": None}
