"""``fastoptim`` with standard streams that are closed, broken or full: files are written, errors are one line."""

import errno
import os
import re
from pathlib import Path

import pytest

from commands import command, posix, raising, rows, small
from fastoptim import _terminal

pytestmark = pytest.mark.usefixtures("quick_digits")


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
@pytest.mark.parametrize("argv", [("info",), ("cache",)])
def test_output_to_a_full_disk(argv):
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is Linux's")
    with Path("/dev/full").open("wb") as full:
        process = command(*argv, stdout=full)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert re.fullmatch(rb"fastoptim: cannot write to standard output: .*No space left on device\n", err)
