"""Compiled code is loaded from the cache on disk unless the source was edited or the file is damaged."""

import importlib
import json
import os
import shutil
from pathlib import Path

import numba
import numpy as np
import pytest

import attack_caches
from fastoptim.kernels.jit import jit
from script import finish, start
from script import run as run_script

COUNT = """
    import importlib, json, pkgutil
    import numpy as np
    from numba.core.dispatcher import Dispatcher
    import fastoptim as fo
    from fastoptim import kernels
    from fastoptim.kernels import passes
    from fastoptim.kernels.cache import CodeCache
    from fastoptim.kernels.fuse import fuse
    from fastoptim.kernels.masked import product
    from fastoptim.kernels.methods import Method

    def count(rule, n_slots, dtype):
        hits, misses = {}, []
        for module in pkgutil.iter_modules(kernels.__path__):
            for name, function in vars(importlib.import_module(f"fastoptim.kernels.{module.name}")).items():
                if isinstance(function, Dispatcher) and function.signatures and isinstance(function._cache, CodeCache):
                    hits[name] = sum(function.stats.cache_hits.values())
                    misses += [name] * sum(function.stats.cache_misses.values())
                elif isinstance(function, Method) and "compiled" in vars(function):
                    hits[name] = function.compiled.cache_hits
                    misses += [name] * (hits[name] == 0)
        compiled = {"kernel": fuse(rule, (dtype,) * (2 + n_slots))}
        dtype = np.dtype(dtype)
        if product.cache_info().currsize:
            compiled["multiply"] = product(dtype)
            compiled["propagate"] = passes.propagate(dtype, passes.labelled, False)
            compiled["weight_gradients"] = passes.weight_gradients(dtype)
        for name, kernel in compiled.items():
            hits[name] = kernel.cache_hits
            misses += [name] * (kernel.cache_hits == 0)
        return hits, misses
"""

USE_AND_COUNT = f"""{COUNT}
    net = fo.MultiLayerNet(4, [5], 3, seed=0)
    x, t = np.ones((2, 4)), np.array([0, 2])
    opt = fo.Adam()
    for _ in range(2):
        opt.update(net.params, net.gradient(x, t))
    net.loss(x, t)
    with fo.num_threads(2):
        opt = fo.Adam()
        opt.update(dict(w=np.ones(100_000, np.float32)), dict(w=np.ones(100_000, np.float32)))

    print(json.dumps(count(opt.rule, 2, np.float32)))
"""

KERNELS = {"kernel", "multiply", "propagate", "weight_gradients", "bind", "set_scalars", "run_short", "run_parallel"}

FIRST_UPDATE = """
    import sys
    import numpy as np
    import fastoptim as fo

    params, grads = ({"w": np.ones(100_000, np.float32)} for _ in range(2))
    opt = fo.Adam()
    before = set(sys.modules)
    opt.update(params, grads)
    # The modules of the standard library differ between versions of Python.
    print(sum(name.startswith(("numba.", "llvmlite.")) for name in set(sys.modules) - before))
"""

EDITED = """
    import numpy as np
    import fastoptim as fo
    from fastoptim.kernels.fuse import fuse

    class Rule(fo.Optimizer):
        def scalars(self):
            return ()

        @staticmethod
        def rule(p, g):
            return p {sign} g

    params = {{"w": np.ones(2)}}
    Rule().update(params, {{"w": np.ones(2)}})
    print(params["w"][0], fuse(Rule.rule, (np.float64, np.float64)).cache_hits)
"""


def run(source, tmp_path, *arguments, **environment):
    """Run a script with a cache in a temporary folder."""
    return run_script(source, tmp_path, *arguments, **{"NUMBA_CACHE_DIR": str(tmp_path / "cache"), **environment})


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A function that makes a new dispatcher of the same function, as another process would; the cache is empty."""

    def fresh():
        def add_one(x):
            return x + 1

        return jit(add_one)

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    numba.config.reload_config()
    yield fresh
    monkeypatch.undo()
    numba.config.reload_config()


def misses(function, *args):
    """Call a function and check its results; return how many signatures it had to compile."""
    for arg in args:
        assert function(arg) == arg + 1
        assert type(function(arg)) is type(arg + 1)
    return sum(function.stats.cache_misses.values())


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with the cache of a process that started without one, and the names of what it compiled."""
    folder = tmp_path_factory.mktemp("filled")
    _, missed = json.loads(run(USE_AND_COUNT, folder))
    return folder, missed


def test_second_process_compiles_nothing(filled):
    folder, missed = filled
    assert set(missed) >= KERNELS
    hits, missed = json.loads(run(USE_AND_COUNT, folder))
    assert missed == []
    assert set(hits) >= KERNELS
    assert set(hits.values()) == {1}


def test_edited_rule_is_compiled_anew(tmp_path):
    assert run(EDITED.format(sign="+"), tmp_path) == "2.0 0"
    assert run(EDITED.format(sign="-"), tmp_path) == "0.0 0"
    assert run(EDITED.format(sign="+"), tmp_path) == "2.0 1"


def test_global_that_changes_during_the_compilation(tmp_path):
    """What was compiled then is kept neither by the process nor on disk."""
    source = """
        from types import ModuleType
        import numpy as np
        import fastoptim as fo
        from fastoptim.kernels import fuse

        class Rule(fo.Optimizer):
            def scalars(self):
                return ()

            @staticmethod
            def rule(p, g):
                return p - settings.SCALE * g

        settings = ModuleType("settings")
        cfunc = fuse.cfunc

        def update(compile_kernel):
            settings.SCALE, fuse.cfunc = 1.0, compile_kernel
            params = {"w": np.full(2, 9.0)}
            Rule().update(params, {"w": np.ones(2)})
            return params["w"][0]

        def change_and_compile(*args):
            settings.SCALE = 2.0
            return cfunc(*args)

        print(update(change_and_compile), update(cfunc))
    """
    assert run(source, tmp_path) == "7.0 8.0"


def copy_package(place):
    """Copy the package to where an installation would have it."""
    for module in ("fastoptim", "fastoptim.kernels"):
        (folder,) = importlib.import_module(module).__path__
        target = place / "fastoptim" / module.partition(".")[2]
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return place


UPGRADE = """
    import sys
    from pathlib import Path
    import numpy as np
    import fastoptim as fo

    params, opt = {"w": np.ones(2)}, fo.SGD(lr=0.5)
    for file in sys.argv[1:]:
        source = Path(file).read_text()
        assert "sources, i), *values)" in source
        Path(file).write_text(source.replace("sources, i), *values)", "sources, i), 2.0)"))
    opt.update(params, {"w": np.ones(2)})
    print(params["w"][0])
"""
"""Edit files, so that the learning rate is 2 in kernels compiled by processes that start later; then update."""


def test_upgrade_of_the_package_in_a_running_process(tmp_path):
    place = copy_package(tmp_path / "installed")
    fuse = place / "fastoptim" / "kernels" / "fuse.py"
    assert run(UPGRADE, tmp_path, str(fuse), PYTHONPATH=str(place)) == "0.5"
    assert run(UPGRADE, tmp_path, PYTHONPATH=str(place)) == "-1.0"


def test_zipped_application_keeps_no_cache(tmp_path):
    """There are no sources that would tell one version from another, nor are there in a frozen application."""
    place = copy_package(tmp_path / "installed")
    fuse = place / "fastoptim" / "kernels" / "fuse.py"
    for expected, arguments in (("0.5", [str(fuse)]), ("-1.0", [])):
        archive = shutil.make_archive(str(tmp_path / "app"), "zip", place)
        assert run(UPGRADE, tmp_path, *arguments, PYTHONPATH=archive) == expected
    assert not list(tmp_path.rglob("*.nbc"))


def test_one_process_loads_different_rules_of_one_name(tmp_path):
    """Two processes cache kernels of the same name; a third one loads both without confusing them."""
    source = """
        import numpy as np
        import fastoptim as fo

        def make(text):
            names = {"fo": fo}
            exec("class Rule(fo.Optimizer):\\n"
                 "    def scalars(self): return ()\\n"
                 "    @staticmethod\\n"
                 f"    def rule(p, g): return {text}", names)
            return names["Rule"]()

        for text in %r:
            params = {"w": np.full(3, 2.0)}
            make(text).update(params, {"w": np.full(3, 5.0)})
            print(params["w"][0])
    """
    assert run(source % ["p + g"], tmp_path) == "7.0"
    assert run(source % ["p * g"], tmp_path) == "10.0"
    assert run(source % ["p + g", "p * g"], tmp_path).split() == ["7.0", "10.0"]


def test_updates_run_without_a_writable_cache_folder(tmp_path):
    """A file stands where the folder would have to be made, so not even root can write the cache."""
    package = copy_package(tmp_path / "installed") / "fastoptim"
    for place in (tmp_path / "cache", package / "kernels" / "__pycache__"):
        place.write_text("not a folder")
    home = {
        "PYTHONPATH": str(package.parent),
        "HOME": str(tmp_path / "cache"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for _ in range(2):
        assert run(EDITED.format(sign="+"), tmp_path, **home) == "2.0 0"


def halved(file, _other):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def one_byte_short(file, _other):
    file.write_bytes(file.read_bytes()[:-1])


def one_byte_long(file, _other):
    file.write_bytes(file.read_bytes() + b"\0")


def empty(file, _other):
    file.write_bytes(b"")


def checksum_only(file, _other):
    file.write_bytes(file.read_bytes()[:32])


def garbage(file, _other):
    file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))


def replaced_by_a_folder(file, _other):
    file.unlink()
    file.mkdir()


def deleted(file, _other):
    file.unlink()


def file_of_another_signature(file, other):
    file.write_bytes(other.read_bytes())


DAMAGES = (
    halved,
    one_byte_short,
    one_byte_long,
    empty,
    checksum_only,
    garbage,
    replaced_by_a_folder,
    deleted,
    file_of_another_signature,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_compiled_anew_and_replaced(damage, fresh, tmp_path):
    assert misses(fresh(), 1) == 1
    (file,) = tmp_path.rglob("*.nbc")
    assert misses(fresh(), 1, 1.0) == 1
    (other,) = set(tmp_path.rglob("*.nbc")) - {file}
    assert misses(fresh(), 1, 1.0) == 0
    damage(file, other)
    assert misses(fresh(), 1, 1.0) == 1
    assert misses(fresh(), 1, 1.0) == (damage is replaced_by_a_folder)
    assert not list(tmp_path.rglob("*.tmp"))


def test_file_with_any_bit_flipped_is_not_loaded(fresh, tmp_path):
    assert misses(fresh(), 1) == 1
    (file,) = tmp_path.rglob("*.nbc")
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    function = fresh()
    sig = (numba.int64,)
    load = function._cache.load_overload
    assert load(sig, function.targetctx) is not None
    for position in [*range(40), *rng.integers(len(whole), size=200)]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        assert load(sig, function.targetctx) is None


def test_damaged_files_of_all_kernels(filled, tmp_path):
    """Each file is damaged in another way before a process trains a network."""
    shutil.copytree(filled[0] / "cache", tmp_path / "cache")
    files = sorted((tmp_path / "cache").rglob("*.nbc"))
    # Backwards, because the file before may be copied.
    for k, file in reversed([*enumerate(files)]):
        DAMAGES[k % len(DAMAGES)](file, files[k - 1])
    _, missed = json.loads(run(USE_AND_COUNT, tmp_path))
    assert len(missed) == len(files)


def test_updates_run_on_a_full_disk(tmp_path):
    """A file-size limit of 0 has the effect of a full disk: no file can be written."""
    pytest.importorskip("resource", reason="this system does not limit the size of files")
    limit = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    """
    assert run(limit + EDITED.format(sign="+"), tmp_path) == "2.0 0"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_four_processes_start_at_once_on_an_empty_cache(tmp_path):
    source = f"""{COUNT}
    params = dict(w=np.ones(100, np.float32))
    opt = fo.Adam(lr=0.5)
    for _ in range(2):
        opt.update(params, dict(w=np.ones(100, np.float32)))
    print(json.dumps([params["w"].sum().item(), count(opt.rule, 2, np.float32)[1]]))
    """
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    processes = [start(source, tmp_path, **cache) for _ in range(4)]
    results = [json.loads(finish(process)) for process in processes]
    total, missed = json.loads(run(source, tmp_path))
    assert [result[0] for result in results] == [total] * 4
    assert sum(bool(result[1]) for result in results) > 1
    assert missed == []


def test_loading_from_the_cache_does_not_import_the_compiler(tmp_path):
    compiling, loading = (int(run(FIRST_UPDATE, tmp_path)) for _ in range(2))
    assert compiling > 50
    assert loading < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_attacks(tmp_path):
    assert run(Path(attack_caches.__file__).read_text(encoding="utf-8"), tmp_path, "2", "2")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_with_state_are_loaded_from_the_cache(dtype, tmp_path):
    source = f"""
        import numpy as np
        from fastoptim.kernels import rules
        from fastoptim.kernels.finite import finite
        from fastoptim.kernels.fuse import fuse
        T = np.{dtype}
        print(fuse(rules.adam, (T,) * 4).cache_hits, finite(T).cache_hits)
    """
    assert [run(source, tmp_path) for _ in range(2)] == ["0 0", "1 1"]
