"""A user's file passes mypy's strict mode, and what is wrong in it is found."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is in the dev extra: pip install -e '.[dev]'")

ROOT = Path(__file__).parent.parent

CONFIG = """
[mypy]
strict = true
[mypy-fastoptim.*]
follow_imports = silent
"""

RIGHT = """
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastoptim as fo
from fastoptim import SGD, load_mnist
from fastoptim.parameters import FlatDict
from fastoptim.notes import Adam as NotesAdam
from fastoptim.notes import np as notes_np

params = {"W": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}
opt = fo.Adam(lr=0.1, on_nonfinite="skip")
assert_type(opt.lr, float)
opt.lr = 1
assert_type(opt.m, dict[Any, NDArray[Any]] | None)
assert_type(opt.v, dict[Any, NDArray[Any]] | None)
assert_type(fo.Momentum().v, dict[Any, NDArray[Any]] | None)
assert_type(fo.RMSprop().h, dict[Any, NDArray[Any]] | None)
opt.m = None
opt.update(params, {"W": np.ones((2, 3)), "b": np.zeros(3)})
opt.update(fo.flatten(params), params)
opt.update([np.ones(2)], (np.ones(2),))
opt.update(params, {"W": fo.Rows([[0, 1]], np.ones((1, 2, 3))), "b": np.zeros(3)})
assert_type(fo.Rows(np.arange(2), np.ones(2)).indices, NDArray[np.integer[Any]])
opt.update({"x": 1.0, "y": np.float32(1)}, {"x": 2, "y": np.float64(2)})
assert opt.v is not None
opt.v["W"][:] = 0

assert_type(fo.AdaGrad(0.1).iter, int)
optimizers: dict[str, fo.Optimizer] = {"SGD": SGD(), "Nesterov": fo.Nesterov(momentum=0.5), "notes": NotesAdam()}
(x_train, t_train), _ = load_mnist()
with fo.num_threads(1):
    net = fo.MultiLayerNet(784, [100], 10)
    opt.update(net.params, net.gradient(x_train, t_train))
extended = fo.MultiLayerNetExtend(784, [100], 10, use_dropout=True, dropout_ration=0.2, use_batchnorm=True)
assert_type(extended.loss(x_train, t_train, train_flg=True), float)
assert_type(extended.statistics, FlatDict)
fo.smooth_curve([1.0, notes_np.pi])


class Mine(fo.Adam):
    epoch = 0


Mine().epoch = 3
"""

WRONG = """
import fastoptim as fo

fo.Adam().learning_rate = 5
fo.Adam().h
fo.Adam(lr="0.1")
fo.SGD().lr = "0.1"
fo.adam()
from fastoptim.notes import load_mnist
fo.Rows([0], [1.0])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the package as it is installed: `kernels` is in another place in the source tree."""
    folder = tmp_path_factory.mktemp("types")
    shutil.copytree(ROOT / "src" / "fastoptim", folder / "fastoptim")
    shutil.copytree(ROOT / "kernels", folder / "fastoptim" / "kernels")
    (folder / "mypy.ini").write_text(CONFIG, encoding="utf-8")
    return folder


def mypy(source, folder):
    (folder / "user.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "user.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300).stdout


def test_a_users_file_passes(folder):
    assert mypy(RIGHT, folder) == "Success: no issues found in 1 source file\n"


def test_what_is_wrong_is_found(folder):
    report = mypy(WRONG, folder)
    lines = {int(line.split(":")[1]) for line in report.splitlines() if ": error: " in line}
    assert lines == set(range(4, 4 + 7)), report
