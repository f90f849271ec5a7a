"""What was compiled once is not compiled again, in this process or a later one; and what was edited is."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.compiled

USE_AND_COUNT = """
    import importlib, json, pkgutil
    import numpy as np
    from numba.core.dispatcher import Dispatcher
    import fastoptim as fo
    from fastoptim import kernels
    from fastoptim.kernels.fuse import fuse

    net = fo.MultiLayerNet(4, [5], 3, seed=0)
    x, t = np.ones((2, 4)), np.array([0, 2])
    opt = fo.Adam()
    for _ in range(2):
        opt.update(net.params, net.gradient(x, t))
    net.loss(x, t)
    with fo.num_threads(2):
        opt = fo.Adam()
        opt.update({"w": np.ones(100_000, np.float32)}, {"w": np.ones(100_000, np.float32)})

    hits, misses = {}, []
    for module in pkgutil.iter_modules(kernels.__path__):
        for name, function in vars(importlib.import_module(f"fastoptim.kernels.{module.name}")).items():
            if isinstance(function, Dispatcher) and function.signatures and function._cache.cache_path is not None:
                hits[name] = sum(function.stats.cache_hits.values())
                misses += [name] * sum(function.stats.cache_misses.values())
    kernel = fuse(opt.rule, 2, np.float32)
    hits["kernel"] = kernel.cache_hits
    misses += ["kernel"] * (kernel.cache_hits == 0)
    print(json.dumps([hits, misses]))
"""

FIRST_UPDATE = """
    import sys
    import numpy as np
    import fastoptim as fo

    before = set(sys.modules)
    params, grads = ({"w": np.ones(100_000, np.float32)} for _ in range(2))
    fo.Adam().update(params, grads)
    print(len(set(sys.modules) - before))
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
    print(params["w"][0], fuse(Rule.rule, 0, np.float64).cache_hits)
"""


def run(source, tmp_path, **environment):
    """Run source as a script in a process of its own, with a cache of its own; return what it printed."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), **environment}
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_second_process_compiles_nothing(tmp_path):
    _, misses = json.loads(run(USE_AND_COUNT, tmp_path))
    assert {"kernel", "gradient", "loss", "refresh", "_run", "_run_parallel"} <= set(misses)
    hits, misses = json.loads(run(USE_AND_COUNT, tmp_path))
    assert misses == []
    assert {"kernel", "gradient", "loss", "refresh", "_run", "_run_parallel"} <= set(hits)
    assert set(hits.values()) == {1}


def test_an_edited_rule_runs_as_it_now_is(tmp_path):
    assert run(EDITED.format(sign="+"), tmp_path) == "2.0 0"
    assert run(EDITED.format(sign="-"), tmp_path) == "0.0 0"
    assert run(EDITED.format(sign="+"), tmp_path) == "2.0 1"


def test_rules_that_differ_meet_in_one_process_from_the_cache(tmp_path):
    """Kernels of one name, cached by different processes, are not taken for one another when a third loads both."""
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


def test_without_a_place_for_the_cache_it_still_runs(tmp_path):
    """Where a folder would have to be made stands a file, so nothing can be written, even by root."""
    package = tmp_path / "installed" / "fastoptim"
    for module in ("fastoptim", "fastoptim.kernels"):
        (folder,) = importlib.import_module(module).__path__
        shutil.copytree(folder, package / module.partition(".")[2], ignore=shutil.ignore_patterns("__pycache__"))
    for place in (tmp_path / "cache", package / "kernels" / "__pycache__"):
        place.write_text("not a folder")
    home = {
        "PYTHONPATH": str(package.parent),
        "HOME": str(tmp_path / "cache"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for _ in range(2):
        assert run(EDITED.format(sign="+"), tmp_path, **home) == "2.0 0"


def test_what_is_cached_is_loaded_without_a_compiler(tmp_path):
    compiling, loading = (int(run(FIRST_UPDATE, tmp_path)) for _ in range(2))
    assert compiling > 50
    assert loading < 10
