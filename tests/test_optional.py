"""Without a library that is optional, what needs it says how to install it, and nothing else is missing."""

import importlib
import re
import sys
import types

import pytest

import fastoptim as fo
import script
from fastoptim._optional import imported_for

PACKAGES = {
    "mpi": ("mpi4py", "'fastoptim[mpi]'"),
    "sklearn": ("sklearn", "scikit-learn"),
    "torch": ("torch", "torch"),
}
"""For each package, the library that it needs and what pip is told to install."""


@pytest.fixture(params=PACKAGES)
def package(request, monkeypatch):
    """The name of a package, in a process that lacks its library."""
    library, _ = PACKAGES[request.param]
    hidden = f"fastoptim.{request.param}"
    for name in [name for name in sys.modules if f"{name}.".startswith((f"{hidden}.", f"{library}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(vars(fo), request.param, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    return request.param


@pytest.mark.parametrize("source", ["import fastoptim.{}", "fastoptim.{}", "from fastoptim import {}"])
def test_without_its_library(package, source):
    library, install = PACKAGES[package]
    line = f"fastoptim.{package} needs {library}: pip install {install}"
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(line)}$") as raised:
        exec(source.format(package), {"fastoptim": fo})
    assert raised.value.name == library


def test_an_error_of_the_library_itself_is_its_own(package, monkeypatch, tmp_path):
    """A library that is installed, but broken, is not to be installed."""
    library, _ = PACKAGES[package]
    (tmp_path / f"{library}.py").write_text("raise ImportError('the loader finds no symbol')", encoding="utf-8")
    monkeypatch.delitem(sys.modules, library)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="the loader finds no symbol"):
        importlib.import_module(f"fastoptim.{package}")


def test_a_module_of_this_package_is_never_to_be_installed():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'fastoptim\.mpi4'"), imported_for("a", "b"):
        importlib.import_module("fastoptim.mpi4")


def test_the_core_needs_none_of_them(tmp_path):
    source = f"""
    import sys
    libraries = {[library for library, _ in PACKAGES.values()]}
    sys.modules.update(dict.fromkeys(libraries))
    import numpy as np
    import fastoptim as fo
    params = {{"w": np.ones(3)}}
    fo.SGD(lr=0.5).update(params, {{"w": np.ones(3)}})
    print(params["w"][0], [name for name in libraries if sys.modules[name]])
    """
    assert script.run(source, tmp_path) == "0.5 []"


@pytest.mark.parametrize("package", PACKAGES)
def test_an_attribute_is_the_package(package, monkeypatch):
    module = types.ModuleType(f"fastoptim.{package}")
    monkeypatch.delitem(vars(fo), package, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert getattr(fo, package) is module
