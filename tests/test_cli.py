import csv
import errno
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest
import scipy
from threadpoolctl import threadpool_info

import fastoptim
from fastoptim import _terminal
from fastoptim._terminal import Interruption
from fastoptim.cli import main
from fastoptim.comparison import command as compare_command
from fastoptim.comparison import digits, training
from fastoptim.comparison.training import Comparison
from fastoptim.family import NOTES_FIVE
from fastoptim.mnist import MnistUnavailableError

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, streams and folders")

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
        ("--iterations 0", "iterations must be from 1"),
        ("--iterations many", "invalid int value: 'many'"),
        ("--iterations -5", "iterations must be from 1"),
        ("--iterations 1e3", "invalid int value: '1e3'"),
        (f"--iterations {'9' * 5000}", "invalid int value"),
        (f"--iterations {'9' * 50}", "iterations must be from 1 to 2147483647"),
        ("--batch-size 0", "batch size must be"),
        ("--batch-size 1438", "batch size must be from 1 to 1437, the number of training images, got 1438"),
        ("--batch-size 2147483647", "batch size must be from 1 to 1437"),
        ("--hidden 3,,3", "expected layer sizes such as 100,100, got '3,,3'"),
        ("--hidden 0", "hidden layer must be"),
        ("--hidden ", "expected layer sizes"),
        ("--hidden 2147483647,2147483647", "do not fit into memory"),
        ("--optimizers SGD,Zebra", "optimizers must be some of .*, got Zebra"),
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


@posix
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("fastoptim co", ["compare "]),
        ("fastoptim compare --format p", ["pdf", "png"]),
        ("fastoptim compare --lang z", ["zh "]),
        ("fastoptim compare --optimizers SGD,Adam", ["SGD,Adam", "SGD,AdamW"]),
        ("fastoptim compare --optimizers Muon,Muo", []),
    ],
)
def test_completion(tmp_path, typed, expected):
    shell = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "completions"),
        "COMP_LINE": typed,
        "COMP_POINT": str(len(typed)),
        "COMP_TYPE": "9",
    }
    process = command(environ=shell)
    assert process.communicate(timeout=100) == (b"", b"")
    assert process.returncode == 0
    assert sorted((tmp_path / "completions").read_text().splitlines()) == sorted(expected)


@pytest.mark.parametrize("argv", [[], ["train"]])
def test_no_such_command(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


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


def interrupt_after(monkeypatch, calls):
    progress, count = compare_command._Screen.show, iter(range(calls))

    def call(self, runs):
        progress(self, runs)
        if next(count, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(compare_command._Screen, "show", call)


def test_keyboard_interrupt_writes_what_was_computed(tmp_path, monkeypatch, capsys):
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


def test_keyboard_interrupt_before_the_first_iteration(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Comparison, "train", raising(KeyboardInterrupt()))
    (tmp_path / "losses.csv").write_text("old")
    assert main(["compare", *SMALL, "--output", str(tmp_path), "--overwrite"]) == 130
    assert capsys.readouterr().err == "fastoptim: interrupted before the first iteration: nothing is written\n"
    assert (tmp_path / "losses.csv").read_text() == "old"


def test_keyboard_interrupt_while_loading(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digits, "load_data", raising(KeyboardInterrupt()))
    assert main(["compare", "--output", str(tmp_path / "new")]) == 130
    assert capsys.readouterr().err == "fastoptim: interrupted\n"
    assert not (tmp_path / "new").exists()


def send_signal(monkeypatch, owner, method, number=signal.SIGINT):
    """Make each call of a method send a signal to this process."""
    call = getattr(owner, method)

    def signalled(*args):
        os.kill(os.getpid(), number)
        return call(*args)

    monkeypatch.setattr(owner, method, signalled)


LONG = ["compare", *SMALL, "--iterations", "900", "--threads", "1", "--optimizers", "SGD", "--output"]


@pytest.fixture
def interruption():
    """An installed handler of both signals, removed after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handler = Interruption()
    handler.listen()
    yield handler
    for number, function in before.items():
        signal.signal(number, function)


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_keeps_what_was_computed(tmp_path, monkeypatch, capsys, interruption, number, code):
    send_signal(monkeypatch, compare_command._Screen, "show", number)
    assert main([*LONG, str(tmp_path)], interruption) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert "interrupted: what was computed so far follows" in out
    assert len(rows(tmp_path)) == 101
    assert (tmp_path / "losses.png").exists()


@posix
@pytest.mark.parametrize("method", ["write_csv", "table", "write_picture"])
def test_first_signal_while_writing_does_not_stop_it(tmp_path, monkeypatch, capsys, interruption, method):
    send_signal(monkeypatch, Comparison, method)
    assert main([*LONG, str(tmp_path), "--iterations", "3"], interruption) == 130
    assert capsys.readouterr().err == ""
    assert len(rows(tmp_path)) == 4
    assert (tmp_path / "losses.png").exists()


@posix
def test_signal_during_compilation(tmp_path, monkeypatch, capsys, interruption):
    send_signal(monkeypatch, Comparison, "_compile")
    assert main([*LONG, str(tmp_path)], interruption) == 130
    assert capsys.readouterr().err == "fastoptim: interrupted before the first iteration: nothing is written\n"
    assert not any(tmp_path.iterdir())


@posix
def test_signal_while_loading_data(tmp_path, monkeypatch, capsys, interruption):
    send_signal(monkeypatch, digits, "load_data", signal.SIGTERM)
    assert main([*LONG, str(tmp_path)], interruption) == 143
    assert capsys.readouterr().err == "fastoptim: interrupted\n"


SEND_TWO_SIGNALS = """
import os, signal, sys
from fastoptim.comparison import command
from fastoptim.comparison.training import Comparison

def send_signal(owner, method, number):
    call = getattr(owner, method)
    def signalled(*args):
        os.kill(os.getpid(), number)
        return call(*args)
    setattr(owner, method, signalled)

send_signal(command._Screen, "show", signal.SIGINT)
send_signal(Comparison, sys.argv.pop(1), signal.{name})
from fastoptim.__main__ import main
sys.exit(main())
"""


@posix
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize(
    ("method", "written"), [("table", set()), ("write_csv", set()), ("write_picture", {"losses.csv"})]
)
def test_second_signal_leaves_at_once(tmp_path, name, code, method, written):
    for file in ("losses.csv", "losses.png"):
        (tmp_path / file).write_text("old")
    process = command(method, *LONG, str(tmp_path), "--overwrite", run=("-c", SEND_TWO_SIGNALS.format(name=name)))
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (code, b"fastoptim: interrupted\n")
    assert b"interrupted: what was computed so far follows" in out
    assert {path.name for path in tmp_path.iterdir()} == {"losses.csv", "losses.png"}
    assert {path.name for path in tmp_path.iterdir() if path.read_bytes() != b"old"} == written


def test_second_keyboard_interrupt(tmp_path, monkeypatch, capsys):
    interrupt_after(monkeypatch, 2)
    monkeypatch.setattr(Comparison, "write_picture", raising(KeyboardInterrupt()))
    assert main([*LONG, str(tmp_path)]) == 130
    assert capsys.readouterr().err == "fastoptim: interrupted\n"
    assert len(rows(tmp_path)) > 100


@posix
def test_ignored_signal_stays_ignored(tmp_path, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interruption = Interruption()
        interruption.listen()
        send_signal(monkeypatch, compare_command._Screen, "show")
        assert main([*LONG, str(tmp_path), "--iterations", "110"], interruption) == 0
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


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
    assert len(rows(tmp_path)) == 101


def command(*argv, run=("-m", "fastoptim"), **options):
    environ = {**os.environ, **options.pop("environ", {})}
    # Otherwise nothing is left in the buffers when Python exits.
    environ.pop("PYTHONUNBUFFERED", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-W", "error", *run, *argv], env=environ, **pipes | options)


def small(folder):
    return "compare", *SMALL, "--iterations", "3", "--output", folder


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


def test_broken_pipe(tmp_path):
    process = command(*small(str(tmp_path)))
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=100) == 0
    assert (tmp_path / "losses.png").exists()


def test_closed_pipe_of_windows(monkeypatch, capsys):
    """Windows reports it as an invalid argument."""
    silenced = []
    monkeypatch.setattr(_terminal, "_silence", silenced.append)
    error = OSError(errno.EINVAL, "Invalid argument")
    if os.name != "nt":
        assert _terminal.write("", raising(error)) == 1
        assert "Invalid argument" in capsys.readouterr().err
        monkeypatch.setattr(_terminal, "_CLOSED_PIPE", {errno.EINVAL})
    assert _terminal.write("", raising(error)) == 0
    assert capsys.readouterr().err == ""
    assert silenced


@posix
@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_closed_streams(tmp_path, closed):
    process = command(*small(str(tmp_path)), preexec_fn=lambda: [os.close(number) for number in closed])
    assert process.communicate(timeout=100)[1] == b""
    assert process.returncode == 0
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert len(rows(tmp_path)) == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")  # noqa: PTH110
def test_full_disk(tmp_path):
    import resource

    def no_large_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    with Path("/dev/full").open("wb") as full:
        process = command(*small(str(tmp_path)), stdout=full, preexec_fn=no_large_files)
        _, err = process.communicate(timeout=100)
    stdout, png = err.decode().splitlines()
    assert process.returncode == 1
    assert re.fullmatch("fastoptim: cannot write to standard output: .*No space left on device", stdout)
    assert re.fullmatch("fastoptim: losses.png not written: .*File too large", png)
    assert [path.name for path in tmp_path.iterdir()] == ["losses.csv"]


@posix
def test_terminal_closed_during_training(tmp_path):
    terminal, end = os.openpty()
    process = command(*small(str(tmp_path)), "--iterations", "2000", stdout=end, stderr=end, start_new_session=True)
    os.close(end)
    with open(terminal, "rb", buffering=0) as screen:  # noqa: PTH123 - a number
        shown = b""
        while b"iteration" not in shown:
            shown += screen.read(100)
    assert process.wait(timeout=100) == 1
    assert len(rows(tmp_path)) == 2001
    assert (tmp_path / "losses.png").exists()


@posix
@pytest.mark.parametrize("argv", [("--help",), ("compare", "--help"), ("compare", "--iterations", "x")])
@pytest.mark.parametrize("end", ["/dev/full", "closed", "broken"])
def test_help_and_errors_on_unusable_streams(argv, end):
    if end == "/dev/full":
        if not Path(end).exists():
            pytest.skip("/dev/full is Linux's")
        write = os.open(end, os.O_WRONLY)
    else:
        read, write = os.pipe()
        os.close(read)
    close = (lambda: [os.close(1), os.close(2)]) if end == "closed" else None
    process = command(*argv, stdout=write, stderr=write, preexec_fn=close)
    os.close(write)
    assert process.wait(timeout=100) == (0 if "--help" in argv else 2)


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


SEND_SIGNAL = """
import atexit, os, signal, sys
where = sys.argv.pop(1)
def send_signal():
    os.kill(os.getpid(), signal.SIGINT)
class Finder:
    def find_spec(self, name, *_):
        if name == where:
            send_signal()
sys.meta_path.insert(0, Finder())
if where == "exit":
    atexit.register(send_signal)
from fastoptim.__main__ import main
sys.exit(main())
"""


@posix
@pytest.mark.parametrize("module", ["fastoptim.cli", "argparse", "numba", "sklearn.datasets"])
def test_signal_during_imports(tmp_path, module):
    process = command(module, *small(str(tmp_path)), run=("-c", SEND_SIGNAL))
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (130, b"", b"fastoptim: interrupted\n")
    assert not any(tmp_path.iterdir())


@posix
@pytest.mark.parametrize(("where", "code"), [("matplotlib.figure", 130), ("exit", 0)])
def test_signal_at_the_end(tmp_path, where, code):
    process = command(where, *small(str(tmp_path)), run=("-c", SEND_SIGNAL))
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (code, b"")
    assert b"losses.png" in out


def test_numba_is_imported_lazily():
    code = "import sys, fastoptim.cli; print({'numpy', 'numba'} & sys.modules.keys())"
    assert command(run=("-c", code)).communicate(timeout=100)[0] == f"set(){os.linesep}".encode()
    for name in fastoptim.__all__:
        assert getattr(fastoptim, name) is not None
    with pytest.raises(AttributeError, match="module 'fastoptim' has no attribute 'adam'"):
        fastoptim.adam  # noqa: B018


def test_import_on_32_bits():
    code = "import sys; sys.maxsize = 2**31 - 1; import fastoptim"
    error = command(run=("-c", code)).communicate(timeout=100)[1]
    assert error.splitlines()[-1].startswith(b"ImportError: fastoptim needs a 64-bit Python")


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert re.fullmatch(r"fastoptim \d+\.\d+.*\n", capsys.readouterr().out)


def info(out):
    return [(line[:16].strip(), line[17:]) for line in out.splitlines()]


def test_info(capsys, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/where/code/is")
    assert main(["info"]) == 0
    out, err = capsys.readouterr()
    rows = dict(info(out))
    assert err == ""
    assert rows["fastoptim"] == fastoptim.__version__
    assert rows["Python"].startswith(platform.python_version())
    assert rows["NumPy"] == np.__version__
    assert rows["SciPy"] == scipy.__version__
    assert rows["Numba"] == f"{numba.__version__}, llvmlite {llvmlite.__version__}"
    assert re.fullmatch(r".+, \d+ cores", rows["CPU"])
    assert rows["threading layer"] == f"{numba.threading_layer()}, {numba.get_num_threads()} threads"
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    assert sorted(value for name, value in info(out) if name == "BLAS") == sorted(
        f"{library['internal_api']} {library['version']}, {library['num_threads']} threads, {library['filepath']}"
        for library in libraries
    )
    assert libraries
    assert rows["compiled code"] == str(Path("/where/code/is"))


def test_show_config_prints_the_same(capsys):
    fastoptim.show_config()
    shown = capsys.readouterr().out
    assert main(["info"]) == 0
    assert shown == capsys.readouterr().out


def test_info_without_optional_sources(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setattr(numba, "threading_layer", raising(ValueError("No threading layer\ncould be loaded.")))
    monkeypatch.setattr(Path, "read_text", raising(FileNotFoundError("/proc/cpuinfo")))
    monkeypatch.setattr(platform, "processor", lambda: "i486")
    assert main(["info"]) == 0
    rows = dict(info(capsys.readouterr().out))
    assert rows["BLAS"] == "unknown: pip install threadpoolctl"
    assert rows["threading layer"] == "none: No threading layer could be loaded."
    assert rows["CPU"].startswith("i486, ")


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder with two files of compiled code and one other file."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    (tmp_path / "a.nbc").write_bytes(bytes(1000))
    (tmp_path / "b.nbc").write_bytes(bytes(234))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(bytes(9))
    return tmp_path


def test_cache(code, capsys):
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{code}: 2 files, 1,234 bytes\n"
    assert len(list(code.iterdir())) == 3


def test_cache_clear_deletes_only_compiled_code(code, capsys):
    assert main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out == f"{code}: deleted 2 files, 1,234 bytes\n"
    assert [path.name for path in code.iterdir()] == ["train-images-idx3-ubyte.gz"]
    assert main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out == f"{code}: deleted 0 files, 0 bytes\n"


def test_missing_cache_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "none"))
    for options in ([], ["--clear"]):
        assert main(["cache", *options]) == 0
        assert "0 files, 0 bytes" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_cache_clear_reports_errors(code, monkeypatch, capsys):
    monkeypatch.setattr(Path, "unlink", raising(PermissionError(13, "Permission denied")))
    assert main(["cache", "--clear"]) == 1
    assert capsys.readouterr() == ("", f"fastoptim: cannot clear {code}: Permission denied\n")


@posix
@pytest.mark.parametrize("argv", [("info",), ("cache",)])
def test_output_to_a_full_disk(argv):
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is Linux's")
    with Path("/dev/full").open("wb") as full:
        process = command(*argv, stdout=full)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert re.fullmatch(rb"fastoptim: cannot write to standard output: .*No space left on device\n", err)


@pytest.mark.parametrize("command_name", ["info", "cache"])
def test_errors_point_to_the_help_of_their_command(command_name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command_name, "--all"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"fastoptim {command_name}: unrecognized arguments: --all (see fastoptim {command_name} --help)\n"
    )
