"""Start-up time, measured in new processes with an empty and with a full cache of compiled code."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from .cases import NOTES, Update
from .peers import OURS

__all__ = ["EMPTY", "FULL", "SCRIPTS", "environment", "first_update", "seconds"]

EMPTY, FULL = f"{OURS}, empty cache", f"{OURS}, full cache"

ROOT = Path(__file__).parent.parent


@contextmanager
def environment(*, empty: bool) -> Iterator[dict[str, str]]:
    """Yield the environment variables of a process whose cache of compiled code is empty, or is the usual one.

    Python may write bytecode there even if this process may not, because an installed library has its bytecode.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if not empty:
        yield env
        return
    with tempfile.TemporaryDirectory() as folder:
        yield {**env, "NUMBA_CACHE_DIR": folder}


@dataclass(frozen=True)
class Script:
    """Python code for a new process. The whole process is timed, or with ``inside`` the code prints its seconds."""

    code: str
    inside: bool = False


def _import(what: str, before: str = "") -> Script:
    timed = f"from time import perf_counter\nstart = perf_counter()\nimport {what}\nprint(perf_counter() - start)"
    return Script(f"{before}\n{timed}", inside=True)


_SHAPES = list(Update("Adam", NOTES).shapes.values())

_OURS = f"""
import numpy as np
import fastoptim as fo
params, grads = ({{k: np.ones(shape, np.float32) for k, shape in enumerate({_SHAPES})}} for _ in range(2))
fo.Adam().update(params, grads)
"""


def first_update(rule: str) -> Script:
    """Return the script that times the first update of the notes' ten arrays by a rule, after all imports."""
    return Script(
        f"""
import numpy as np
import fastoptim as fo
from time import perf_counter
params, grads = ({{k: np.ones(shape, np.float32) for k, shape in enumerate({_SHAPES})}} for _ in range(2))
optimizer = fo.{rule}()
start = perf_counter()
optimizer.update(params, grads)
print(perf_counter() - start)
""",
        inside=True,
    )


_TORCH = f"""
import torch
params = [torch.nn.Parameter(torch.ones(shape)) for shape in {_SHAPES}]
for p in params:
    p.grad = torch.ones_like(p)
torch.optim.Adam(params, fused=True).step()
"""

_OPTAX = f"""
import jax, optax
params, grads = ([jax.numpy.ones(shape) for shape in {_SHAPES}] for _ in range(2))
adam = optax.adam(1e-3)
state = adam.init(params)
@jax.jit
def step(params, state, grads):
    change, state = adam.update(grads, state, params)
    return optax.apply_updates(params, change), state
jax.block_until_ready(step(params, state, grads))
"""

_COMPARE = """
import tempfile
from fastoptim.cli import main
with tempfile.TemporaryDirectory() as folder:
    main(["compare", "--data", "digits", "--iterations", "20", "--output", folder])
"""


def _empty_and_full(script: Script) -> dict[str, Script]:
    return {EMPTY: script, FULL: script}


SCRIPTS: dict[str, dict[str, Script]] = {
    # Numba and SciPy are dependencies, so only the time beyond their import is ours.
    "import": {
        OURS: _import("fastoptim.optimizers, fastoptim.network", "import numba, scipy.linalg"),
        "NumPy": _import("numpy"),
        "Numba and SciPy": _import("numba, scipy.linalg"),
        "torch": _import("torch"),
        "jax": _import("jax, optax"),
    },
    "first update": {**_empty_and_full(Script(_OURS)), "torch": Script(_TORCH), "jax": Script(_OPTAX)},
    "make compare, 20 iterations": _empty_and_full(Script(_COMPARE)),
}
"""For each measurement, its script by library."""


def seconds(script: Script, env: Mapping[str, str]) -> float:
    """Run a script in a new process and return the seconds it took."""
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script.code], env=env, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    )
    whole = perf_counter() - start
    return float(done.stdout) if script.inside else whole
