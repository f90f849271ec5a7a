import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastoptim import cli, compare
from fastoptim.cli import main
from fastoptim.compare import Comparison
from fastoptim.mnist import MnistUnavailableError

pytestmark = pytest.mark.compiled

SMALL = ["--data", "digits", "--hidden", "8", "--batch-size", "16"]


def raising(error):
    def call(*_args, **_kwargs):
        raise error

    return call


def rows(folder):
    return list(csv.reader((folder / "losses.csv").read_text(encoding="ascii").splitlines()))


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
    assert titles.split("  ")[0] == "optimizer"
    for column, line in enumerate((adam, nesterov), 1):
        mean = sum(float(row[column]) for row in table[-100:]) / 100
        assert re.fullmatch(rf"{table[0][column]} +{mean:.4f} +[01]\.\d{{4}} +\d+\.\d\d", line)
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
        compare.Settings(2000, 128, [100] * 4, compare.NOTES_FIVE, "float32", 0, None),
        compare.Settings(7, 8, [9, 10], ["SGD"], "float64", 11, 12),
    ]


def test_fallback_is_one_line_and_in_the_picture(tmp_path, monkeypatch, capsys):
    titles = []
    monkeypatch.setattr(compare, "load_mnist", raising(MnistUnavailableError("MNIST is nowhere")))
    monkeypatch.setattr(Comparison, "write_png", lambda self, _: titles.append(self.data.title))
    main(["compare", "--hidden", "4", "--iterations", "2", "--output", str(tmp_path)])
    assert capsys.readouterr().out.startswith(
        "MNIST is nowhere; training on the 1,797 digits of scikit-learn\niteration"
    )
    assert titles == ["MNIST is not available: 1,797 digits of scikit-learn"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--iterations 0", "iterations must be from 1"),
        ("--iterations many", "invalid int value: 'many'"),
        ("--batch-size 0", "batch size must be"),
        ("--hidden 3,,3", "expected layer sizes such as 100,100, got '3,,3'"),
        ("--hidden 0", "hidden layer must be"),
        ("--optimizers SGD,Adamax", "optimizers must be some of .*, got Adamax"),
        ("--optimizers ,", "optimizers must be some of"),
        ("--dtype float16", "invalid choice: 'float16'"),
        ("--seed -1", "seed must be"),
        ("--threads 0", "threads must be"),
        ("--data no/such/folder", "does not exist"),
        ("--output {file}", "argument --output: cannot write to .*"),
        ("--output {file}/folder", "argument --output: cannot write to .*"),
        ("--iter 3", "unrecognized arguments: --iter 3"),
        ("--two\nlines", "unrecognized arguments: --two lines"),
    ],
)
def test_bad_option(tmp_path, monkeypatch, capsys, options, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--data", "digits", *options.format(file=tmp_path / "file").split(" ")])
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert re.fullmatch(rf"fastoptim( compare)?: .*{complaint}.*\n", err)
    assert not (tmp_path / "comparison").exists()


def test_unwritable_output_is_found_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli.tempfile, "TemporaryFile", raising(PermissionError(13, "Permission denied")))
    with pytest.raises(SystemExit) as stop:
        main(["compare", *SMALL, "--output", str(tmp_path)])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert f"argument --output: cannot write to {tmp_path}: Permission denied" in err


@pytest.mark.parametrize("argv", [[], ["train"]])
def test_no_such_command(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_extra(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "fastoptim.compare")
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(SystemExit) as stop:
        main(["compare"])
    assert stop.value.code == 2
    assert re.fullmatch(r".*threadpoolctl.*pip install fastoptim\[compare\].*\n", capsys.readouterr().err)


def interrupt_after(monkeypatch, calls):
    progress, count = cli._Progress.__call__, iter(range(calls))

    def call(self, runs):
        progress(self, runs)
        if next(count, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli._Progress, "__call__", call)


def test_interruption_writes_what_was_computed(tmp_path, monkeypatch, capsys):
    interrupt_after(monkeypatch, 2)
    code = main(["compare", *SMALL, "--iterations", "900", "--threads", "1", "--output", str(tmp_path)])
    out, err = capsys.readouterr()
    assert code == 130
    assert err == ""
    assert "interrupted: what was computed so far follows" in out
    assert f"wrote {tmp_path / 'losses.png'}" in out
    table = rows(tmp_path)
    assert 100 < len(table) < 300
    assert [column != "" for column in table[100]] == [True, True, True, True, False, False]


def test_interruption_before_the_first_iteration_leaves_old_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Comparison, "train", raising(KeyboardInterrupt()))
    (tmp_path / "losses.csv").write_text("old")
    assert main(["compare", *SMALL, "--output", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "fastoptim: interrupted before the first iteration: nothing is written\n"
    assert (tmp_path / "losses.csv").read_text() == "old"


def test_interruption_while_loading(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "load_data", raising(KeyboardInterrupt()))
    assert main(["compare", "--output", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "fastoptim: interrupted\n"


def test_one_file_that_cannot_be_written_does_not_cost_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Comparison, "write_csv", raising(OSError("disk\nfull")))
    assert main(["compare", *SMALL, "--iterations", "3", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "fastoptim: losses.csv not written: disk full\n"
    assert (tmp_path / "losses.png").exists()


def test_out_of_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Comparison, "train", raising(MemoryError("no 9 TiB")))
    assert main(["compare", *SMALL, "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "fastoptim: the batches do not fit into memory: no 9 TiB\n"


def command(*argv, **environ):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "fastoptim", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environ},
    )


def test_module_on_an_ascii_terminal(tmp_path):
    process = command(
        *("compare", *SMALL, "--iterations", "3", "--output", str(tmp_path / "größe")), PYTHONIOENCODING="ascii"
    )
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, b"")
    assert rb"gr\xf6\xdfe" in out
    assert Path(tmp_path / "größe" / "losses.png").exists()


def test_broken_pipe(tmp_path):
    process = command("compare", *SMALL, "--iterations", "3", "--output", str(tmp_path))
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=100) == 0
    assert (tmp_path / "losses.png").exists()


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert re.fullmatch(r"fastoptim \d+\.\d+.*\n", capsys.readouterr().out)
