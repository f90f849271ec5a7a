"""Attack the cache of compiled code: two versions of a rule at once, and files of other processors and versions.

``python tests/attack_caches.py 10 20`` compiles 10 pairs of versions at once, and alters or adds files 20 times. Each
update must have the bits of its own rule. `make red` does the same more often.
"""

import os
import random
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from unittest import mock

import numba
import numpy as np
from numba.core.codegen import CPUCodegen

import fastoptim as fo
from fastoptim.kernels import cache, fuse

KINDS = np.float64, np.float64
TEXTS = (
    "def rule(p, g): return p - {} * g",
    "SCALE = {}\ndef rule(p, g): return p - SCALE * g",
    "def helper(g): return {} * g\ndef rule(p, g): return p - helper(g)",
    "import settings\ndef rule(p, g): return p - settings.SCALE * g",
    "import settings\ndef helper(g): return settings.SCALE * g\ndef rule(p, g): return settings.ONE * p - helper(g)",
)


def update_by(rule):
    """Return what an optimizer with this rule makes of 3 where the gradient is 2."""
    optimizer = type("Custom", (fo.Optimizer,), {"rule": staticmethod(rule), "scalars": lambda _: ()})()
    params = {"w": np.full(3, 3.0)}
    optimizer.update(params, {"w": np.full(3, 2.0)})
    assert np.all(params["w"] == params["w"][0])
    return params["w"][0]


def fork(task, *args):
    """Start a task in a child, which begins with what its parent has compiled."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        # OpenBLAS has threads, but no child computes a product.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        task(*args)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def join(*children):
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert not any(statuses), f"a child failed: {statuses}"


class NewCache(tempfile.TemporaryDirectory):
    """An empty folder that is the cache of this process and of its children."""

    def __enter__(self):
        os.environ["NUMBA_CACHE_DIR"] = self.name
        return Path(self.name)


def compile_what_all_rules_share():
    with NewCache():
        update_by(lambda p, g: p + g)


# Two versions at once


def version_of(text, scale):
    settings = ModuleType("settings")
    settings.SCALE, settings.ONE = scale, 1.0
    with mock.patch.dict(sys.modules, settings=settings):
        names = {}
        exec(text.format(scale), names)
    return names["rule"]


def check_version(text, scale, hits=None, start=None):
    if start is not None:
        os.read(start, 1)
    rule = version_of(text, scale)
    found = update_by(rule)
    assert found == 3 - scale * 2, f"{text!r} with {scale}: {found}"
    assert hits in (None, fuse.fuse(rule, KINDS).cache_hits), f"{text!r} with {scale} was not in the cache"


def check_versions(text, scales):
    for scale in scales:
        check_version(text, scale, hits=1)


def two_versions_at_once(count):
    """Compile two versions of a rule in two processes that share a cache; a third one loads both."""
    compile_what_all_rules_share()
    rng = random.Random(0)
    for _ in range(count):
        text, scales = rng.choice(TEXTS), rng.sample(range(2, 100), 2)
        start, release = os.pipe()
        with NewCache():
            children = [fork(check_version, text, scale, None, start) for scale in scales]
            os.write(release, b"..")
            join(*children)
            join(fork(check_versions, text, scales))
        os.close(start)
        os.close(release)
    print(f"{count} pairs of versions compiled at once, and loaded together by a third process")


# Files of other processors and versions


def rule(p, g):
    return p - g


def wrong(p, g):
    return p + g


ELSEWHERE = {
    "another processor": lambda: mock.patch.object(CPUCodegen, "magic_tuple", return_value=("another",)),
    "another Numba": lambda: mock.patch.object(numba, "__version__", "0.1"),
    "another NumPy": lambda: mock.patch.object(np, "__version__", "0.1"),
    "another Python": lambda: mock.patch.object(sys, "version", "3.11 free-threading build"),
    "another library of vector functions": lambda: mock.patch.object(numba.config, "USING_SVML", "another"),
    "another fastoptim": lambda: mock.patch.object(cache, "_digest_of_sources", return_value="another"),
}


def fill_with_wrong_code(elsewhere):
    """Cache, under the name that ``rule`` has elsewhere, a kernel that computes something else."""
    compiled = fuse._compiled_with_helpers
    with elsewhere(), mock.patch.object(fuse, "_compiled_with_helpers", lambda _, *rest: compiled(wrong, *rest)):
        assert update_by(rule) == 5


def check_rule(hits):
    found = update_by(rule)
    assert found == 1, f"wrong code was loaded: {found}"
    assert fuse.fuse(rule, KINDS).cache_hits == hits


def altered(rng, content, other):
    """Return the content of a file after one of the things that happen to files."""
    k = rng.randrange(len(content))
    match rng.randrange(7):
        case 0:
            return content[:k]
        case 1:
            return content[:k] + bytes([content[k] ^ 1 << rng.randrange(8)]) + content[k + 1 :]
        case 2:
            return content[:k] + rng.randbytes(512) + content[k + 512 :]
        case 3:
            return content + content[: k + 1]
        case 4:
            return rng.randbytes(rng.randrange(10_000))
        case 5:
            return content[:32] + other[32:]
        case _:
            return other


def foreign_caches(count):
    """Compute with a cache whose files were altered, or come from another processor or version."""
    compile_what_all_rules_share()
    with NewCache():
        join(fork(fill_with_wrong_code, mock.MagicMock))
        assert fork_fails(check_rule, 1), "wrong code under the right name must be seen, or this proves nothing"
    rng = random.Random(0)
    for _ in range(count):
        with NewCache() as folder:
            join(fork(fill_with_wrong_code, ELSEWHERE[rng.choice([*ELSEWHERE])]))
            (foreign,) = folder.iterdir()
            join(fork(check_rule, 0))
            (own,) = {*folder.iterdir()} - {foreign}
            join(fork(check_rule, 1))
            own.write_bytes(altered(rng, own.read_bytes(), foreign.read_bytes()))
            join(fork(check_rule, 0))
            join(fork(check_rule, 1))
    print(f"{count} caches with files from elsewhere, whose own file was altered")


def fork_fails(task, *args):
    def quietly():
        sys.excepthook = lambda *_: None
        task(*args)

    return os.waitpid(fork(quietly), 0)[1] != 0


if __name__ == "__main__":
    two_versions_at_once(int(sys.argv[1]))
    foreign_caches(int(sys.argv[2]))
