import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import fastoptim as fo
import mpi_launch
from fastoptim.family import FAMILY
from fastoptim.schedules.specs import SCHEDULES

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Return a function that runs an example as ``python`` would, checks its picture, and returns what it printed."""
    # A process for each would spend most of its time on imports. A second thread of BLAS, which only a BLAS that is
    # loaded can be forbidden, would wait for a core that another test has.
    fo.MultiLayerNet(1, [1], 1).predict(np.zeros(1))
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)

    def run(name, *argv, suffix=".png"):
        path = EXAMPLES / name
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, argv)])
        plt.switch_backend("agg")
        try:
            with mpl.rc_context(), threadpool_limits(1, user_api="blas"):
                runpy.run_path(str(path), run_name="__main__")
            assert all(axes.has_data() for axes in plt.gcf().axes)
        finally:
            plt.close("all")
        assert is_picture((tmp_path / "comparison" / name).with_suffix(suffix))
        return capsys.readouterr().out

    return run


def is_picture(path):
    return path.read_bytes().startswith({".png": b"\x89PNG", ".gif": b"GIF8"}[path.suffix])


def test_compare_mnist(tmp_path):
    # This one is a process of its own, because it limits the threads of BLAS, and runs from any folder.
    argv = [EXAMPLES / "compare_mnist.py", "--iterations", "101", "--data", "digits", "--output", tmp_path]
    command = [sys.executable, "-W", "error", *argv]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200, cwd=EXAMPLES.anchor).stdout
    first, last = (
        {name: float(loss) for name, loss in re.findall(r"(\w+) (\d+\.\d+)", line)} for line in out.splitlines()[1:3]
    )
    assert list(first) == ["SGD", "Momentum", "AdaGrad", "Adam", "RMSprop"]
    assert all(last[name] < first[name] for name in first)
    assert is_picture(tmp_path / "compare_mnist.png")


def test_trajectories(run):
    out = run("trajectories.py")
    ends = {name: (float(x), float(y)) for name, x, y in re.findall(r"(\w+) +ends at \((.+), (.+)\)", out)}
    assert list(ends) == ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"]
    assert ends["SGD"] == pytest.approx((-7 * (1 - 0.95 / 10) ** 30, 2 * (1 - 2 * 0.95) ** 30), abs=6e-4)
    assert all(x * x / 20 + y * y < 0.2 for x, y in ends.values())


def test_custom_rule(run):
    out = run("custom_rule.py", "--iterations", 150)
    runs = re.findall(r"accuracy (\S+) before, (\S+) after; last losses (\S+) to (\S+)", out)
    (before, after, low, high), (_, _, falling_low, falling_high) = (map(float, numbers) for numbers in runs)
    assert before < 0.4
    assert after > 0.85
    assert falling_high / falling_low < 1.2 < high / low


def test_family(run):
    out = run("family.py")
    ends = {name: (float(x), float(y)) for name, x, y in re.findall(r"(\w+) +lr .* at \((.+), (.+)\)", out)}
    assert list(ends) == list(FAMILY)
    assert all(x * x / 20 + y * y < 1 for x, y in ends.values()), ends


def test_sweep(run):
    out = run("sweep.py", "--steps", 30)
    best = {name: (float(lr), float(loss)) for name, lr, loss in re.findall(r"(\w+) +best lr (\S+) +loss (\S+)", out)}
    assert list(best) == list(FAMILY)
    assert all(loss < 4 for _, loss in best.values()), best
    assert best["SGD"][0] == pytest.approx(0.9, abs=0.2)


def test_schedules(run):
    out = run("schedules.py")
    assert set(re.findall(r"^(\w+)\(", out, re.MULTILINE)) == set(SCHEDULES)


def test_groups(run):
    out = run("groups.py", "--iterations", 400)
    norms = {
        case: (float(W), float(b)) for case, W, b in re.findall(r"(.+?)  +weights (\S+)  biases (\S+)  test acc", out)
    }
    (W_none, b_none), (W_group, b_group), (W_all, b_all) = norms.values()
    assert W_group == pytest.approx(W_all, rel=0.01)
    assert W_all < 0.9 * W_none
    assert b_all < b_none < b_group


def test_animation(run):
    out = run("animation.py", "--steps", 4, suffix=".gif")
    assert re.findall(r"(\w+) +within 1 of", out) == ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"]


def test_effective_step(run):
    out = run("effective_step.py", "--steps", 3000)
    errors = {name: (float(a), float(b)) for name, a, b in re.findall(r"(\w+): mean error (\S+) .* (\S+) in the", out)}
    (adagrad_first, adagrad_last), (rmsprop_first, rmsprop_last) = errors["AdaGrad"], errors["RMSprop"]
    assert adagrad_last > 1.4 * adagrad_first
    assert rmsprop_last < 1.25 * rmsprop_first


def test_activations(run):
    out = run("activations.py", "--samples", 100)
    found = re.findall(r"(\w+) +(\S+) +spread of the last layer (\S+) +gradient of the first (\S+)", out)
    spread = {(activation, std): float(spread) for activation, std, spread, _ in found}
    gradient = {(activation, std): float(first) for activation, std, _, first in found}
    assert spread["sigmoid", "0.01"] < 0.02 < 0.1 < spread["sigmoid", "xavier"] < 0.3 < spread["sigmoid", "1.0"]
    assert 1e-7 < spread["relu", "0.01"] < 1e-5 < 0.05 < spread["relu", "xavier"] < 0.3 < 0.6 < spread["relu", "he"] < 1
    assert max(gradient["sigmoid", "0.01"], gradient["relu", "0.01"]) < 1e-5
    assert gradient["sigmoid", "xavier"] < 1e-3 < 0.1 < gradient["relu", "he"]


def test_landscapes(run):
    out = run("landscapes.py")
    found = re.findall(r"(\w+) +(\w+) +lr \S+ +loss (\S+) half way, (\S+) at the end", out)
    losses = {(landscape, rule): (float(middle), float(end)) for landscape, rule, middle, end in found}
    assert len(losses) == 12
    assert all(end < middle for middle, end in losses.values())
    assert all(end > 1e-4 for (landscape, _), (_, end) in losses.items() if landscape != "saddle")
    assert losses["saddle", "SGD"][1] < 1e-9


def test_scale_invariant(run):
    out = run("scale_invariant.py", "--steps", 5000)
    later = {name.strip(): int(steps) for name, steps in re.findall(r"(.+?) norm .* (\d+) steps later", out)}
    assert later["SGD"] > 2 * later["SGD, weight decay 0.01"] > 50
    assert later["Adam"] > 2 * later["Adam, weight decay 0.1"] > 50


def test_scipy_minimize(run):
    out = run("scipy_minimize.py", "--steps", 2000)
    exact = re.findall(r"(\S+) in +\d+ +(\S+) in +\d+ +(\S+) in +\d+$", out, re.MULTILINE)
    assert len(exact) == 5
    assert all(float(value) < 1e-3 for row in exact for value in row)
    line_search, adam, averaged = map(float, re.findall(r" (\d\S+)", out[out.index("with errors") :]))
    assert averaged < adam < line_search


def test_physical_fit(run):
    out = run("physical_fit.py")
    rows = re.findall(r"\w+ +(\S+) ± (\S+) +SciPy (\S+) ± (\S+) +true (\S+)", out)
    assert len(rows) == 4
    for value, error, scipy_value, scipy_error, true in (map(float, row) for row in rows):
        assert value == pytest.approx(scipy_value, abs=2e-3 * error + 1e-4)
        assert error == pytest.approx(scipy_error, rel=0.01, abs=1e-4)
        assert abs(value - true) < 3 * error
    assert int(re.search(r"stopped after (\d+)", out)[1]) < 5000


def test_automatic_gradients(run):
    out = run("automatic_gradients.py", "--steps", 100)
    losses = re.findall(r"mean squared error (\S+)", out)
    differences = dict(re.findall(r"(\w+): largest difference .* (\S+)", out))
    missing = {name for name in ("autograd", "JAX") if f"{name} is not installed" in out}
    assert {*differences} == {"autograd", "JAX"} - missing
    assert len(losses) == 3 - len(missing)
    assert {*losses} == {losses[0]}
    assert float(losses[0]) < 0.3
    assert float(differences.get("autograd", 0)) < 1e-12
    assert float(differences.get("JAX", 0)) < 1e-3


def test_embedding(run):
    out = run("embedding.py", "--steps", 1000)
    assert int(re.search(r"(\d+) of 24 words", out)[1]) > 20


def test_mpi_mnist(tmp_path):
    """On two ranks the network learns what it learns on one, and each has a half of the state."""
    if not mpi_launch.mpiexec():
        pytest.skip("mpi4py or mpiexec is not installed")
    losses = {}
    for n_ranks in (1, 2):
        argv = [EXAMPLES / "mpi_mnist.py", "--iterations", 100, "--data", "digits", "--output", tmp_path]
        command, environment = mpi_launch.command(n_ranks, *argv), mpi_launch.environment()
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200).stdout
        # Lines of two ranks may come without a line break between them.
        found = re.findall(r"rank \d of \d: state of (\d+) of (\d+) parameters, last loss ([\d.]+)", out)
        assert len(found) == n_ranks
        assert all(int(own) <= 1.02 / n_ranks * int(whole) for own, whole, _ in found)
        losses[n_ranks] = {float(loss) for *_, loss in found}
        assert is_picture(tmp_path / "mpi_mnist.png")
    assert len(losses[2]) == 1
    assert losses[1].pop() == pytest.approx(losses[2].pop(), rel=0.05)


def test_torch_model(run):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        out = run("torch_model.py", "--steps", 60)
    finally:
        torch.set_num_threads(threads)
    losses = re.findall(r"^(\w+) +loss (\S+), then (\S+)", out, re.MULTILINE)
    assert [name for name, *_ in losses] == ["AdamW", "Lion", "AdaBelief", "Muon"]
    assert all(float(last) < 0.75 * float(first) for _, first, last in losses), losses


def test_low_precision(run):
    pytest.importorskip("ml_dtypes", reason="bfloat16 is a dtype of ml_dtypes")
    out = run("low_precision.py", "--iterations", 150, "--data", "digits")
    ends = {name: float(loss) for name, loss in re.findall(r"^(\S+) +\S+  mean (\S+)", out, re.MULTILINE)}
    assert list(ends) == ["float32", "bfloat16", "bfloat16-stochastic"]
    assert all(abs(end - ends["float32"]) < 0.2 * ends["float32"] + 0.02 for end in ends.values()), ends
    v = {name: (float(half), float(end)) for name, half, end in re.findall(r"(\S+): v (\S+) half way, (\S+) at", out)}
    assert v["bfloat16"][0] == v["bfloat16"][1] > 8 * v["float32"][1]
    assert v["bfloat16-stochastic"] == pytest.approx(v["float32"], rel=0.05)


def test_overfitting(run):
    out = run("overfitting.py", "--epochs", 150)
    found = re.findall(r"learned (\S+), new (\S+), best (\S+)", out)
    (learned, new, best), (learned_decay, new_decay, _), (learned_drop, new_drop, _) = (map(float, r) for r in found)
    assert learned > 0.98
    assert max(learned_decay, learned_drop) < 0.9
    assert new < best - 0.04
    assert min(new_decay, new_drop) > new


def test_batch_norm(run):
    out = run("batch_norm.py", "--epochs", 5)
    found = re.findall(r"weights of \S+ +with (\S+), without (\S+)", out)
    ends = np.array(found, float).T
    assert ends.shape == (2, 6)
    assert ends[0].min() > 0.25
    assert np.sum(ends[1] < 0.25) == 5


def test_a_downloaded_example_needs_no_other_file_than_pictures(tmp_path):
    for name in "schedules.py", "pictures.py":
        shutil.copy(EXAMPLES / name, tmp_path)
    command = [sys.executable, "-W", "error", "schedules.py"]
    subprocess.run(command, capture_output=True, check=True, timeout=200, cwd=tmp_path)
    assert is_picture(tmp_path / "comparison" / "schedules.png")


def test_every_example_is_tested():
    names = {path.name for path in EXAMPLES.glob("*.py")} - {"pictures.py"}
    assert names == set(re.findall(r'(?:run\(|EXAMPLES / )"(.+?)"', Path(__file__).read_text(encoding="utf-8")))
