"""The command line: its commands, their help, completion by the shell, and what an import of it imports."""

import os
import re

import pytest

import fastoptim
from commands import command, posix
from fastoptim.cli import main


@pytest.mark.parametrize("argv", [[], ["train"]])
def test_no_such_command(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command_name", ["info", "cache"])
def test_errors_point_to_the_help_of_their_command(command_name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command_name, "--all"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"fastoptim {command_name}: unrecognized arguments: --all (see fastoptim {command_name} --help)\n"
    )


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert re.fullmatch(r"fastoptim \d+\.\d+.*\n", capsys.readouterr().out)


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
