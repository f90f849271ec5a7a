"""``fastoptim compare``: its options, its results, and errors in the middle of them."""

import os
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest

import fastoptim
from commands import LONG, SMALL, command, posix, raising, rows, small
from fastoptim.cli import main
from fastoptim.comparison import command as compare_command
from fastoptim.comparison import digits, training
from fastoptim.comparison.training import Comparison
from fastoptim.family import NOTES_FIVE
from fastoptim.mnist import MnistUnavailableError


def test_compare(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    code = main(["compare", *SMALL, "--iterations", "130", "--optimizers", "ADAM,nesterov", "--output", str(folder)])
    out, err = capsys.readouterr()
    assert code == 0
    assert err == ""
    header, first, hundredth, titles, adam, nesterov, *written = out.splitlines()
    table = rows(folder)
    assert header.split() == ["iteration", "Adam", "Nesterov"]
    for line, iteration in ((first, 0), (hundredth, 100)):
        assert line.split() == [str(iteration), *(f"{float(loss):.4f}" for loss in table[iteration + 1][1:])]
    assert re.split("  +", titles) == ["optimizer", "iterations", "loss (last 100)", "test accuracy", "seconds"]
    for column, line in enumerate((adam, nesterov), 1):
        mean = sum(float(row[column]) for row in table[-100:]) / 100
        assert re.fullmatch(rf"{table[0][column]} +130 +{mean:.4f} +[01]\.\d{{4}} +\d+\.\d\d", line)
    assert written == [f"wrote {folder / name}" for name in ("losses.csv", "losses.png")]
    assert [row[0] for row in table] == ["iteration", *map(str, range(130))]
    assert (folder / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_options_reach_the_comparison(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Comparison, "train", lambda self, _: seen.append(self.settings))
    main(["compare", "--data", "digits", "--output", str(tmp_path)])
    options = "--iterations 7 --batch-size 8 --hidden 9,10 --optimizers sgd --dtype float64 --seed 11 --threads 12"
    main(["compare", "--data", "digits", "--output", str(tmp_path), *options.split()])
    assert seen == [
        training.Settings(2000, 128, [100] * 4, NOTES_FIVE, "float32", 0, None),
        training.Settings(7, 8, [9, 10], ["SGD"], "float64", 11, 12),
    ]


def test_fallback_is_printed_and_in_the_title(tmp_path, monkeypatch, capsys):
    titles = []
    monkeypatch.setattr(digits, "load_mnist", raising(MnistUnavailableError("MNIST is nowhere")))
    monkeypatch.setattr(Comparison, "write_picture", lambda self, _: titles.append(self.data.title))
    main(["compare", "--hidden", "4", "--iterations", "2", "--output", str(tmp_path)])
    assert capsys.readouterr().out.startswith(
        "MNIST is nowhere; training on the 1,797 digits of scikit-learn\niteration"
    )
    assert titles == ["MNIST is not available: 1,797 digits of scikit-learn"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--iterations 0", "iterations must be an integer from 1"),
        ("--iterations many", "invalid int value: 'many'"),
        ("--iterations -5", "iterations must be an integer from 1"),
        ("--iterations 1e3", "invalid int value: '1e3'"),
        (f"--iterations {'9' * 5000}", "invalid int value"),
        (f"--iterations {'9' * 50}", "iterations must be an integer from 1 to 2147483647"),
        ("--batch-size 0", "batch size must be"),
        ("--batch-size 1438", "batch size must be from 1 to 1437, the number of training images, got 1438"),
        ("--batch-size 2147483647", "batch size must be from 1 to 1437"),
        ("--hidden 3,,3", "expected layer sizes such as 100,100, got '3,,3'"),
        ("--hidden 0", "hidden layer must be"),
        ("--hidden ", "expected layer sizes"),
        ("--hidden 2147483647,2147483647", "do not fit into memory"),
        ("--optimizers SGD,Zebra", "optimizers must be some of .*, got Zebra"),
        ("--optimizers SGD,Adm", "got Adm; did you mean 'Adam'?"),
        ("--optimizers ,", "optimizers must be some of"),
        ("--dtype float16", "invalid choice: 'float16'"),
        ("--seed -1", "seed must be"),
        ("--threads 0", "threads must be"),
        ("--data no/such/folder", "data is auto, mnist, digits or a folder .*, not 'no/such/folder'"),
        ("--data {file}", "data is auto, mnist, digits or a folder"),
        ("--data ", "data is auto, mnist, digits or a folder .*, not ''"),
        ("--data .", "train-images-idx3-ubyte.gz does not exist"),
        ("--output {file}", "argument --output: cannot write to .*file: it is not a folder"),
        ("--output {file}/folder", "argument --output: cannot write to .*"),
        ("--iter 3", "unrecognized arguments: --iter 3"),
        ("--two\nlines", "unrecognized arguments: --two lines"),
    ],
)
def test_bad_option(tmp_path, monkeypatch, capsys, options, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--data", "digits", *options.format(file=tmp_path / "file").split(" ")])
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert re.fullmatch(rf"fastoptim compare: .*{error}.* \(see fastoptim compare --help\)\n", err)
    assert not (tmp_path / "comparison").exists()


@posix
def test_escape_sequences_do_not_reach_the_terminal(tmp_path, monkeypatch, capsys):
    evil = "\x1b[2J\x07\u202e\udcff"
    folder = tmp_path / f"{evil}\n"
    folder.mkdir()
    (folder / "losses.csv").touch()
    long = "x" * 100_000
    for options in (["--output", str(folder)], ["--data", evil], ["--" + evil], ["--dtype", evil], ["--hidden", long]):
        with pytest.raises(SystemExit) as stop:
            main(["compare", *SMALL, *options])
        err = capsys.readouterr().err
        assert stop.value.code == 2
        assert err.removesuffix("\n").isprintable()
        assert len(err) <= 301
    monkeypatch.setattr(Comparison, "train", raising(MemoryError(evil + long)))
    main(["compare", *SMALL, "--output", str(folder), "--overwrite"])
    monkeypatch.setattr(Comparison, "train", lambda self, _: [run.losses.append(1.0) for run in self.runs])
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    monkeypatch.setattr(fastoptim.kernels.cache, "cache_folder", lambda: folder)
    assert main(["compare", *SMALL, "--output", str(folder), "--overwrite"]) == 0
    assert main(["cache"]) == 0
    out, err = capsys.readouterr()
    assert all(line.isprintable() for line in [*out.splitlines(), *err.splitlines()])
    assert max(map(len, err.splitlines())) <= 300
    assert len([line for line in out.splitlines() if line.startswith("wrote ")]) == 2


@pytest.mark.parametrize("name", ["losses.csv", "losses.png"])
def test_earlier_results_are_kept(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(digits, "load_data", raising(AssertionError("loaded")))
    (tmp_path / name).write_text("old")
    with pytest.raises(SystemExit) as stop:
        main(["compare", *SMALL, "--output", str(tmp_path)])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert f"{tmp_path} already holds {name}: add --overwrite, or name another folder by --output" in err
    assert (tmp_path / name).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_overwrite(tmp_path):
    for name in ("losses.csv", "losses.png", "other"):
        (tmp_path / name).write_text("old")
    assert main(["compare", *SMALL, "--iterations", "3", "--output", str(tmp_path), "--overwrite"]) == 0
    assert len(rows(tmp_path)) == 4
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "other").read_text() == "old"


def test_unwritable_output_is_refused_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare_command.tempfile, "TemporaryFile", raising(PermissionError(13, "Permission denied")))
    with pytest.raises(SystemExit) as stop:
        main(["compare", *SMALL, "--output", str(tmp_path)])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert f"argument --output: cannot write to {tmp_path}: Permission denied" in err


@pytest.mark.parametrize(("format", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_formats_of_the_picture(tmp_path, capsys, format, start):  # noqa: A002
    assert main(["compare", *SMALL, "--iterations", "3", "--output", str(tmp_path), "--format", format]) == 0
    assert (tmp_path / f"losses.{format}").read_bytes().startswith(start)
    assert f"wrote {tmp_path / 'losses'}.{format}\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compare", *SMALL, "--output", str(tmp_path), "--format", format])
    assert "already holds losses.csv" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 1])
def test_show(tmp_path, monkeypatch, capsys, code):
    opened = []
    monkeypatch.setattr(compare_command.webbrowser, "open", lambda url: opened.append(url) or not code)
    assert main(["compare", *SMALL, "--iterations", "3", "--output", str(tmp_path), "--show"]) == code
    assert opened == [(tmp_path / "losses.png").resolve().as_uri()]
    assert ("--show found no program that shows pictures" in capsys.readouterr().err) == bool(code)


@pytest.mark.parametrize("library", ["tqdm", "matplotlib", "sklearn", "threadpoolctl"])
def test_missing_extra(tmp_path, monkeypatch, capsys, library):
    monkeypatch.chdir(tmp_path)
    for name in ("fastoptim.comparison.training", "fastoptim.comparison.digits"):
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit) as stop:
        main(["compare", *SMALL])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert re.fullmatch(
        rf"fastoptim compare: .* needs {library}.*: pip install 'fastoptim\[compare\]' \(see .*\)\n", err
    )
    assert not any(tmp_path.iterdir())


def test_in_a_thread(tmp_path):
    codes = []
    argv = ["compare", *SMALL, "--iterations", "3", "--output", str(tmp_path)]
    thread = threading.Thread(target=lambda: codes.append(main(argv)))
    thread.start()
    thread.join(60)
    assert codes == [0]


@pytest.mark.parametrize(
    "error", [OSError("disk\nfull"), ValueError("a backend that is none"), MemoryError("disk full")]
)
@pytest.mark.parametrize("name", ["losses.csv", "table", "losses.png"])
def test_one_failed_result_does_not_stop_the_others(tmp_path, monkeypatch, capsys, name, error):
    monkeypatch.setattr(
        Comparison, {"losses.csv": "write_csv", "losses.png": "write_picture"}.get(name, name), raising(error)
    )
    assert main(["compare", *SMALL, "--iterations", "3", "--output", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert err == f"fastoptim: {name} not written: {' '.join(str(error).split())}\n"
    results = {path.name for path in tmp_path.iterdir()} | ({"table"} if "test accuracy" in out else set())
    assert results == {"losses.csv", "table", "losses.png"} - {name}
    for file in ("losses.csv", "losses.png"):
        assert (f"wrote {tmp_path / file}" in out) == (file in results)


def test_folder_deleted_during_training_is_created_again(tmp_path, monkeypatch):
    train = Comparison.train

    def train_and_tidy_up(self, progress):
        train(self, progress)
        shutil.rmtree(tmp_path / "new")

    monkeypatch.setattr(Comparison, "train", train_and_tidy_up)
    assert main(["compare", *SMALL, "--iterations", "3", "--output", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "losses.png").exists()


def test_out_of_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Comparison, "train", raising(MemoryError("no 9 TiB")))
    assert main(["compare", *SMALL, "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "fastoptim: the batches do not fit into memory: no 9 TiB\n"


def test_out_of_memory_keeps_what_was_computed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare_command._Screen, "show", raising(MemoryError("no 9 TiB")))
    assert main([*LONG, str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert err == "fastoptim: the batches do not fit into memory: no 9 TiB\n"
    assert "interrupted" not in out
    assert len(rows(tmp_path)) == 21


def test_ascii_terminal_without_a_display(tmp_path):
    environ = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "TkAgg", "DISPLAY": ""}
    process = command(*small(str(tmp_path / "größe")), environ=environ)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, b"")
    assert rb"gr\xf6\xdfe" in out
    assert b"loss (last 3)" in out
    assert Path(tmp_path / "größe" / "losses.png").exists()


def test_invalid_environment_variable_of_a_library(tmp_path):
    process = command(*small(str(tmp_path)), environ={"TQDM_NCOLS": "wide"})
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err.count(b"\n")) == (2, b"", 1)
    assert b"wide" in err


@posix
def test_locale_cannot_encode_the_folder(tmp_path):
    folder = os.fsencode(tmp_path) + b"/gr\xf6\xdfe"
    environ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = command(*small(folder), environ=environ)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, b"")
    assert os.path.exists(folder + b"/losses.png")  # noqa: PTH110 - of bytes


@posix
@pytest.mark.skipif(sys.version_info[:3] == (3, 13, 0), reason="a missing attribute is a SystemError there")
def test_deleted_folder(tmp_path):
    (tmp_path / "gone").mkdir()
    code = "import os, sys, fastoptim.cli; os.rmdir(os.getcwd()); sys.exit(fastoptim.cli.main())"
    process = command(*small(str(tmp_path)), run=("-c", code), cwd=tmp_path / "gone")
    out, err = process.communicate(timeout=100)
    # Whether anything asks for the folder depends on what else is installed: coverage's hook at the start does.
    if process.returncode:
        assert (process.returncode, out) == (2, b"")
        assert re.fullmatch(rb"fastoptim compare: .*No such file or directory.*\n", err)
    else:
        assert err == b""
        assert (tmp_path / "losses.png").exists()
