"""``fastoptim info`` and ``fastoptim cache``: versions, threads, and the folder of compiled code."""

import platform
import re
import sys
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest
import scipy
from threadpoolctl import threadpool_info

import fastoptim
from commands import raising
from fastoptim.cli import main


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
