"""Ctrl-C and SIGTERM stop ``fastoptim compare`` and keep what was computed; a second one ends it at once."""

import os
import signal

import pytest

from commands import LONG, SMALL, command, posix, raising, rows, small
from fastoptim._terminal import Interruption
from fastoptim.cli import main
from fastoptim.comparison import command as compare_command
from fastoptim.comparison import digits
from fastoptim.comparison.training import Comparison

pytestmark = pytest.mark.usefixtures("quick_digits")


def interrupt_after(monkeypatch, calls):
    progress, count = compare_command._Screen.show, iter(range(calls))

    def call(self, runs):
        progress(self, runs)
        if next(count, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(compare_command._Screen, "show", call)


def send_signal(monkeypatch, owner, method, number=signal.SIGINT):
    """Make each call of a method send a signal to this process."""
    call = getattr(owner, method)

    def signalled(*args):
        os.kill(os.getpid(), number)
        return call(*args)

    monkeypatch.setattr(owner, method, signalled)


@pytest.fixture
def interruption():
    """An installed handler of both signals, removed after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handler = Interruption()
    handler.listen()
    yield handler
    for number, function in before.items():
        signal.signal(number, function)


def test_keyboard_interrupt_writes_what_was_computed(tmp_path, monkeypatch, capsys):
    interrupt_after(monkeypatch, 2)
    code = main(["compare", *SMALL, "--iterations", "900", "--threads", "1", "--output", str(tmp_path)])
    out, err = capsys.readouterr()
    assert code == 130
    assert err == ""
    assert "interrupted: what was computed so far follows" in out
    assert f"wrote {tmp_path / 'losses.png'}" in out
    table = rows(tmp_path)
    assert 20 < len(table) < 60
    assert [column != "" for column in table[20]] == [True, True, True, True, False, False]


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


def test_second_keyboard_interrupt(tmp_path, monkeypatch, capsys):
    interrupt_after(monkeypatch, 2)
    monkeypatch.setattr(Comparison, "write_picture", raising(KeyboardInterrupt()))
    assert main([*LONG, str(tmp_path)]) == 130
    assert capsys.readouterr().err == "fastoptim: interrupted\n"
    assert len(rows(tmp_path)) > 20


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_keeps_what_was_computed(tmp_path, monkeypatch, capsys, interruption, number, code):
    send_signal(monkeypatch, compare_command._Screen, "show", number)
    assert main([*LONG, str(tmp_path)], interruption) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert "interrupted: what was computed so far follows" in out
    assert len(rows(tmp_path)) == 21
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
