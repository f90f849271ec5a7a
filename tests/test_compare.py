import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import fastoptim as fo
from fastoptim._files import replacing
from fastoptim.comparison import digits, training
from fastoptim.comparison.digits import Data, load_data
from fastoptim.comparison.training import OPTIMIZERS, Comparison, Settings
from fastoptim.family import NOTES_FIVE
from fastoptim.mnist import MnistUnavailableError


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x, t = rng.random((60, 12), dtype=np.float32), rng.integers(10, size=60)
    return Data("noise", x[:50], t[:50], x[50:], t[50:])


def train(data, **settings):
    comparison = Comparison(data, Settings(**{"batch_size": 16, "hidden": [9, 8], "seed": 3, **settings}))
    comparison.train()
    return comparison


def curves(comparison):
    return {run.name: run.losses for run in comparison.runs}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_curves_equal_those_of_a_plain_loop(data, dtype):
    comp = train(data, iterations=230, optimizers=OPTIMIZERS, dtype=dtype, threads=2)
    for run in comp.runs:
        network, optimizer = fo.MultiLayerNet(12, [9, 8], 10, dtype=dtype, seed=3), getattr(fo, run.name)()
        ref = []
        for block, length in enumerate([100, 100, 30]):
            for batch in np.random.default_rng([3, block]).integers(50, size=(100, 16))[:length]:
                x, t = data.x_train[batch], data.t_train[batch]
                optimizer.update(network.params, network.gradient(x, t))
                ref.append(network.loss(x, t))
        assert run.losses == ref
        assert run.seconds > 0
        assert run.end_loss == pytest.approx(np.mean(ref[130:]))
        assert run.network.params["W1"].dtype == dtype


def test_curves_depend_only_on_the_seed(data):
    ref = curves(train(data, iterations=120, threads=1))
    assert tuple(ref) == NOTES_FIVE == ("SGD", "Momentum", "AdaGrad", "Adam", "RMSprop")
    for threads in (2, 3, 7):
        assert curves(train(data, iterations=120, threads=threads)) == ref
    assert curves(train(data, iterations=120, optimizers=["adam"])) == {"Adam": ref["Adam"]}
    assert curves(train(data, iterations=120, seed=4)) != ref


def test_networks_advance_together(data):
    spreads = []

    def progress(runs):
        assert threading.current_thread() is threading.main_thread()
        done = [len(run.losses) for run in runs]
        spreads.append(max(done) - min(done))

    Comparison(data, Settings(iterations=300, batch_size=16, hidden=[3], threads=1)).train(progress)
    assert len(spreads) == 75
    assert max(spreads) == 20


def test_number_of_workers(data, monkeypatch):
    # Each first turn waits for the other two, so the barrier breaks with fewer than three workers.
    barrier = threading.Barrier(3, timeout=30)
    turn = Comparison._train_turn

    def together(self, run):
        if not run.losses:
            barrier.wait()
        turn(self, run)

    monkeypatch.setattr(Comparison, "_train_turn", together)
    comp = train(data, iterations=5, optimizers=["SGD", "Adam", "AdaGrad"], threads=3)
    assert [len(run.losses) for run in comp.runs] == [5, 5, 5]


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_one_thread_per_network_and_settings_are_restored(data, monkeypatch):
    during, parts = [], []

    def num_threads(n):
        parts.append(n)
        return fo.num_threads(n)

    monkeypatch.setattr(training, "num_threads", num_threads)
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        Comparison(data, Settings(iterations=101, batch_size=16, hidden=[3])).train(
            lambda _: during.extend(blas_threads())
        )
        assert blas_threads() == before
    assert set(during) == {1}
    assert parts[-10:] == [1] * 10


def test_interrupted_training_can_be_continued(data):
    settings = Settings(iterations=400, batch_size=16, hidden=[9, 8], optimizers=["SGD", "Adam"], threads=2)
    ref = Comparison(data, settings)
    ref.train()
    comp = Comparison(data, settings)
    sgd, adam = comp.runs
    loss, seventh = adam.network.loss, threading.Event()

    def loss_that_waits_to_be_stopped(x, t):
        if len(adam.losses) == 6 and not seventh.is_set():
            seventh.set()
            deadline = time.monotonic() + 30
            while not comp._stopping and time.monotonic() < deadline:
                time.sleep(0.001)
        return loss(x, t)

    def interrupt(_runs):
        assert seventh.wait(30)
        raise KeyboardInterrupt

    adam.network.loss = loss_that_waits_to_be_stopped
    with pytest.raises(KeyboardInterrupt):
        comp.train(interrupt)
    assert (len(sgd.losses), len(adam.losses)) == (20, 7)
    comp.train()
    assert curves(comp) == curves(ref)


def test_stopped_training_can_be_continued(data):
    settings = Settings(iterations=400, batch_size=16, hidden=[9, 8], optimizers=["SGD", "Adam", "AdaGrad"], threads=2)
    ref = Comparison(data, settings)
    ref.train()
    comp = Comparison(data, settings)
    comp.train(lambda _: comp.stop())
    done = [len(run.losses) for run in comp.runs]
    assert 0 < sum(done) <= 200
    comp.train()
    assert curves(comp) == curves(ref)


def test_stop_during_compilation(data, monkeypatch):
    comp = Comparison(data, Settings(iterations=5, batch_size=16, hidden=[3]))
    network, made = Comparison._network, []

    def stop(self, hidden):
        made.append(hidden)
        comp.stop()
        return network(self, hidden)

    monkeypatch.setattr(Comparison, "_network", stop)
    comp.train()
    assert made == [[1]]
    assert not any(run.losses for run in comp.runs)
    monkeypatch.undo()
    comp.train()
    assert [len(run.losses) for run in comp.runs] == [5] * 5


def test_one_network_for_each_core(data, monkeypatch):
    workers = []

    class Pool(training.ThreadPoolExecutor):
        def __init__(self, max_workers, **options):
            workers.append(max_workers)
            super().__init__(max_workers, **options)

    monkeypatch.setattr(training, "ThreadPoolExecutor", Pool)
    for cores in (2, 9):
        monkeypatch.setattr(training.numba.config, "NUMBA_DEFAULT_NUM_THREADS", cores)
        train(data, iterations=1)
    assert workers == [2, 5]


def test_error_in_a_worker_is_raised(data):
    comp = Comparison(data, Settings(iterations=5, batch_size=16, hidden=[3]))
    comp.runs[2].optimizer.update = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        comp.train()


def test_networks_learn_digits():
    comp = Comparison(load_data("digits"), Settings(iterations=400, hidden=[40], optimizers=["Adam", "momentum"]))
    comp.train()
    for line in str(comp.table()).splitlines()[1:]:
        _, iterations, loss, accuracy, _ = line.split()
        assert iterations == "400"
        assert float(loss) < 0.6
        assert float(accuracy) > 0.85
    assert str(comp.table()).splitlines()[0].split("  ")[0].strip() == "optimizer"


def test_table_of_unequal_numbers_of_iterations(data):
    comp = train(data, iterations=30, optimizers=["SGD", "Adam"])
    del comp.runs[1].losses[7:]
    titles, sgd, adam = str(comp.table()).splitlines()
    assert "  loss (last 30)  " in titles
    assert sgd.split()[1:3] == ["30", f"{np.mean(comp.runs[0].losses):.4f}"]
    assert adam.split()[1:3] == ["7", f"{np.mean(comp.runs[1].losses):.4f}"]


@pytest.mark.parametrize(("batch_size", "refused"), [(50, False), (51, True)])
def test_batch_size_is_limited_by_the_data(data, batch_size, refused):
    if refused:
        with pytest.raises(ValueError, match="batch size must be from 1 to 50, the number of training images, got 51"):
            Comparison(data, Settings(batch_size=batch_size))
    else:
        Comparison(data, Settings(batch_size=batch_size, hidden=[3]))


@pytest.mark.parametrize("source", ["", "nonsense", "MNIST", "no/such/folder", __file__])
def test_unknown_data_source(source):
    with pytest.raises(ValueError, match=r"^data is auto, mnist, digits or a folder with the files of MNIST, not '"):
        load_data(source)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"iterations": 0}, "iterations must be an integer from 1 to .*, not 0"),
        ({"batch_size": -1}, "batch size must be an integer from 1 to .*, not -1"),
        ({"batch_size": 2**31}, "batch size must be"),
        ({"threads": 0}, "threads must be"),
        ({"hidden": [3, 0]}, "hidden layer must be an integer from 1 to .*, not 0"),
        ({"seed": -1}, "seed must be an integer from 0 to 4294967295, not -1"),
        ({"seed": 2**32}, "seed must be"),
        ({"optimizers": ["SGD", "Zebra"]}, "some of SGD, Momentum, .*, got Zebra"),
        ({"optimizers": []}, "some of SGD, .*, got none"),
    ],
)
def test_invalid_settings(settings, error):
    with pytest.raises(ValueError, match=error):
        Settings(**settings)


def test_optimizer_names_ignore_case_and_duplicates():
    assert Settings(optimizers=["rmsPROP", "sgd", "SGD"]).optimizers == ("RMSprop", "SGD")


def test_files(data, tmp_path):
    comp = train(data, iterations=12, optimizers=["SGD", "Adam"])
    del comp.runs[1].losses[10:]
    comp.write_csv(tmp_path / "losses.csv")
    lines = (tmp_path / "losses.csv").read_text().split("\n")
    sgd, adam = comp.runs[0].losses, comp.runs[1].losses
    assert lines[:2] == ["iteration,SGD,Adam", f"0,{sgd[0]!r},{adam[0]!r}"]
    assert lines[11:] == [f"10,{sgd[10]!r},", f"11,{sgd[11]!r},", ""]

    comp.write_picture(tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"losses.csv", "losses.png"}


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with replacing(path) as stream:
            stream.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as stream:
        stream.write(b"new")
    assert path.read_text() == "new"


def test_digits():
    digits = load_data("digits")
    assert digits.x_train.shape == (1437, 64)
    assert digits.x_test.shape == (360, 64)
    assert digits.x_train.dtype == np.float32
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)
    assert set(digits.t_test) == set(range(10))
    np.testing.assert_array_equal(load_data("digits").x_test, digits.x_test)


def test_auto_falls_back_only_if_mnist_is_unavailable(monkeypatch, tmp_path):
    def absent(**_):
        raise MnistUnavailableError("MNIST is nowhere")

    monkeypatch.setattr(digits, "load_mnist", absent)
    auto = load_data("auto")
    assert auto.x_train.shape == (1437, 64)
    assert auto.notice == "MNIST is nowhere; training on the 1,797 digits of scikit-learn"
    assert "MNIST is not available" in auto.title
    with pytest.raises(MnistUnavailableError):
        load_data("mnist")
    monkeypatch.undo()
    monkeypatch.setenv("FASTOPTIM_DATA", str(tmp_path))
    for source in ("auto", "mnist", str(tmp_path)):
        with pytest.raises(FileNotFoundError):
            load_data(source)


@pytest.mark.parametrize(("source", "folder"), [("auto", None), ("mnist", None), (".", ".")])
def test_source_is_passed_to_load_mnist(monkeypatch, source, folder):
    asked = []

    def load(folder):
        asked.append(folder)
        return (1, 2), (3, 4)

    monkeypatch.setattr(digits, "load_mnist", load)
    assert load_data(source) == Data("MNIST", 1, 2, 3, 4)
    assert asked == [folder]
