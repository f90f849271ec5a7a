import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastoptim.family import FAMILY
from fastoptim.schedules.specs import SCHEDULES

# Each example is a process of its own, which would run the kernels as plain Python for minutes.
EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *argv):
    # The picture's folder is given, and everything else an example needs it must find from any folder.
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, argv)],
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
        cwd=EXAMPLES.anchor,
    ).stdout


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_compare_mnist(tmp_path):
    out = run("compare_mnist.py", "--iterations", 101, "--data", "digits", "--output", tmp_path)
    first, last = (
        {name: float(loss) for name, loss in re.findall(r"(\w+) (\d+\.\d+)", line)} for line in out.splitlines()[1:3]
    )
    assert list(first) == ["SGD", "Momentum", "AdaGrad", "Adam", "RMSprop"]
    assert all(last[name] < first[name] for name in first)
    assert is_png(tmp_path / "compare_mnist.png")


def test_trajectories(tmp_path):
    out = run("trajectories.py", "--output", tmp_path)
    ends = {name: (float(x), float(y)) for name, x, y in re.findall(r"(\w+) +ends at \((.+), (.+)\)", out)}
    assert list(ends) == ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"]
    assert ends["SGD"] == pytest.approx((-7 * (1 - 0.95 / 10) ** 30, 2 * (1 - 2 * 0.95) ** 30), abs=6e-4)
    assert all(x * x / 20 + y * y < 0.2 for x, y in ends.values())
    assert is_png(tmp_path / "trajectories.png")


def test_custom_rule():
    out = run("custom_rule.py", "--iterations", 100)
    accuracy = {when: float(value) for when, value in re.findall(r"(before|after) .* accuracy (.+)", out)}
    assert accuracy["before"] < 0.4
    assert accuracy["after"] > 0.85


def test_family(tmp_path):
    out = run("family.py", "--output", tmp_path)
    ends = {name: (float(x), float(y)) for name, x, y in re.findall(r"(\w+) +lr .* at \((.+), (.+)\)", out)}
    assert list(ends) == list(FAMILY)
    assert all(x * x / 20 + y * y < 1 for x, y in ends.values()), ends
    assert is_png(tmp_path / "family.png")


def test_sweep(tmp_path):
    out = run("sweep.py", "--steps", 30, "--output", tmp_path)
    best = {name: (float(lr), float(loss)) for name, lr, loss in re.findall(r"(\w+) +best lr (\S+) +loss (\S+)", out)}
    assert list(best) == list(FAMILY)
    assert all(loss < 4 for _, loss in best.values()), best
    assert best["SGD"][0] == pytest.approx(0.9, abs=0.2)
    assert is_png(tmp_path / "sweep.png")


def test_schedules(tmp_path):
    out = run("schedules.py", "--output", tmp_path)
    assert set(re.findall(r"^(\w+)\(", out, re.MULTILINE)) == set(SCHEDULES)
    assert is_png(tmp_path / "schedules.png")


def test_groups(tmp_path):
    out = run("groups.py", "--iterations", 400, "--output", tmp_path)
    norms = {
        case: (float(W), float(b)) for case, W, b in re.findall(r"(.+?)  +weights (\S+)  biases (\S+)  test acc", out)
    }
    (W_none, b_none), (W_group, b_group), (W_all, b_all) = norms.values()
    assert W_group == pytest.approx(W_all, rel=0.01)
    assert W_all < 0.9 * W_none
    assert b_all < b_none < b_group
    assert is_png(tmp_path / "groups.png")


def test_every_example_is_tested():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == set(re.findall(r'run\("(.+?)"', Path(__file__).read_text(encoding="utf-8")))
