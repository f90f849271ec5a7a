"""The libraries that take part in the races of updates, behind one interface: ours, the ceiling, and the peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

import fastoptim as fo
import naive

from . import notes
from .cases import HUGE, Update
from .frameworks import OPTAX_RULES, TORCH_RULES, deepspeed_contestant, optax_contestant, torch_contestant
from .timing import Arrays, Contestant, blaming

__all__ = [
    "CEILING",
    "CEILING_SERIAL",
    "LIBRARIES",
    "ONE_MORE_READ",
    "OURS",
    "OURS_SERIAL",
    "PRODUCTS",
    "absent",
    "ceiling",
    "contestants",
    "limited",
    "ours",
    "racing",
    "versions",
]

PACKAGES = ("fastoptim", "numpy", "scipy", "numba", "llvmlite", "torch", "jax", "optax", "deepspeed")

OURS, OURS_SERIAL, CEILING, CEILING_SERIAL = "fastoptim", "fastoptim, 1 thread", "ceiling", "ceiling, 1 thread"

ONE_MORE_READ = "Adam after g.max()"
PRODUCTS = "products alone"
"""What a global norm costs at least, because it needs all gradients before the first of them is used."""


@cache
def absent(package: str) -> str | None:
    """Return the reason that a package cannot take part, or None."""
    try:
        version(package)
    except PackageNotFoundError:
        return f"{package} is not installed"
    return None


def versions() -> dict[str, str]:
    """Return the versions of the installed packages."""
    installed = {package: version(package) for package in PACKAGES if absent(package) is None}
    # What is installed in place keeps the number that it had then.
    return installed | {"fastoptim": fo.__version__}


@dataclass(frozen=True)
class Library:
    """A contestant. ``make`` copies its arguments, so that libraries do not share parameters or gradients."""

    make: Callable[..., Contestant]
    needs: tuple[str, ...] = ()
    takes: Callable[[Any], bool] = lambda _case: True

    @property
    def absent(self) -> str | None:
        return next(filter(None, map(absent, self.needs)), None)


def _copies(arrays: Arrays) -> Arrays:
    return {key: array.copy() for key, array in arrays.items()}


def _gradients(case: Any, grads: Arrays, pack: Callable[[Arrays], Any] = _copies) -> list[Any]:
    # Two alternating sets give other arrays at each step, in as little memory as an allocator that reuses it.
    return [pack(grads) for _ in range(1 if case.layout == "flat" else 2)]


def _vanish(sets: list[Any]) -> None:
    for grads in sets:
        for g in grads.values():
            g[...] = 0


# Ours


def limited(threads: int | None) -> AbstractContextManager[Any]:
    """Limit our optimizers to a number of threads; None sets no limit."""
    return nullcontext() if threads is None else fo.num_threads(threads)


def ours(optimizer: fo.Optimizer, case: Any, params: Arrays, grads: Arrays) -> Contestant:
    """Set up an optimizer of ours for a case, which has a layout and a number of threads."""
    pack = fo.flatten if case.layout == "flat" else _copies
    p, sets = pack(params), _gradients(case, grads, pack)
    if case.layout == "flat":
        step = partial(optimizer.update, p, *sets)
    else:
        next_g = cycle(sets).__next__

        def step() -> None:
            optimizer.update(p, next_g())

    return Contestant(step, lambda: p, limit=partial(limited, case.threads), vanish=partial(_vanish, sets))


def _fastoptim(case: Update, params: Arrays, grads: Arrays) -> Contestant:
    return ours(getattr(fo, case.rule)(), case, params, grads)


def _serial(make: Callable[..., Contestant], case: Update, params: Arrays, grads: Arrays) -> Contestant:
    return make(replace(case, threads=1), params, grads)


# The ceiling: rules that read and write as much memory as a real one, with trivial arithmetic. Every value must
# change, or the compiler removes the store.


def _touch_0(p, g):
    return p + g


def _touch_1(p, g, a):
    return p + g, a + g


def _touch_2(p, g, a, b):
    return p + g, a + g, b + g


def _touch_3(p, g, a, b, c):
    return p + g, a + g, b + g, c + g


def _touch_4(p, g, a, b, c, d):
    return p + g, a + g, b + g, c + g, d + g


def _no_scalars(_self: fo.Optimizer) -> tuple[float, ...]:
    return ()


_TOUCH = [
    type("Touch", (fo.Optimizer,), {"slots": tuple("abcd"[:n]), "rule": staticmethod(rule), "scalars": _no_scalars})
    for n, rule in enumerate((_touch_0, _touch_1, _touch_2, _touch_3, _touch_4))
]


def ceiling(case: Any, params: Arrays, grads: Arrays) -> Contestant:
    """Set up a kernel that moves as much memory as a rule of ``case.n_slots`` slots."""
    # One contiguous buffer is the fastest layout, so the ceiling is always flat. It uses all threads at once and does
    # not try whether one is faster.
    best = replace(case, layout="flat", threads=case.threads or numba.config.NUMBA_NUM_THREADS)
    contestant = ours(_TOUCH[case.n_slots](), best, params, grads)
    return Contestant(contestant.step, limit=contestant.limit)


# The notes


def _numpy(case: Update, params: Arrays, grads: Arrays) -> Contestant:
    # The oracle's loop is slower than the notes' code, so it is used only for rules that the notes do not have.
    optimizer = notes.RULES.get(case.rule, naive.RULES[case.rule])()
    p, sets = _copies(params), _gradients(case, grads)
    next_g = cycle(sets).__next__
    return Contestant(lambda: optimizer.update(p, next_g()), lambda: p, vanish=partial(_vanish, sets))


# All of them


def _is_big(case: Update) -> bool:
    return case.threads is None and case.size >= 1_000_000


def _not_huge(case: Update) -> bool:
    return case.size < HUGE


def _torch_has(case: Update) -> bool:
    return case.rule in TORCH_RULES


LIBRARIES = {
    OURS: Library(_fastoptim),
    OURS_SERIAL: Library(partial(_serial, _fastoptim), takes=_is_big),
    CEILING: Library(ceiling),
    CEILING_SERIAL: Library(partial(_serial, ceiling), takes=_is_big),
    "NumPy": Library(_numpy, takes=_not_huge),
    "torch fused": Library(
        partial(torch_contestant, fused=True), ("torch",), lambda case: _torch_has(case) and case.rule != "RMSprop"
    ),
    "torch foreach": Library(
        partial(torch_contestant, foreach=True), ("torch",), lambda case: case.rule == "RMSprop" and _not_huge(case)
    ),
    "torch": Library(torch_contestant, ("torch",), lambda case: _torch_has(case) and _not_huge(case)),
    # XLA creates its threads when the process starts, so it cannot be limited to one.
    "optax": Library(
        optax_contestant,
        ("jax", "optax"),
        lambda case: case.rule in OPTAX_RULES and case.threads is None and _not_huge(case),
    ),
    "DeepSpeed": Library(
        deepspeed_contestant, ("torch", "deepspeed"), lambda case: (case.rule, case.dtype) == ("Adam", "float32")
    ),
}
"""By name. Slow peers are left out at a hundred million elements, where the memory would not suffice for all."""


def racing(case: Update, *, quick: bool = False) -> list[str]:
    """Return the libraries that take part in a case, installed or not; with ``quick`` those that the targets need."""
    names = [name for name, library in LIBRARIES.items() if library.takes(case)]
    return [name for name in names if not quick or case.rule in ("Adam", "RMSprop") or name in (OURS, CEILING)]


def _draw(case: Update) -> tuple[Arrays, Arrays]:
    # With gradients near one, the different epsilons of torch's Adam and the notes' make no visible difference.
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> NDArray[Any]:
        few = naive.draw(rng, min(int(np.prod(shape)), 1_000_003), case.dtype)
        return np.resize(few, shape)

    params = {key: draw(shape) for key, shape in case.shapes.items()}
    return params, {key: draw(shape) for key, shape in case.shapes.items()}


def contestants(case: Update, names: list[str]) -> dict[str, Contestant]:
    """Set up libraries for a case and check that three steps of each agree with three steps of the notes."""
    params, grads = _draw(case)
    ready = {}
    for name in names:
        with blaming(name):
            ready[name] = LIBRARIES[name].make(case, params, grads)
    check(case, ready, params, grads)
    return ready


def check(case: Update, ready: Mapping[str, Contestant], params: Arrays, grads: Arrays) -> None:
    """Raise `Failed` if a parameter differs from the oracle's by a thousandth of its change in three steps."""
    oracle, ref = naive.RULES[case.rule](), _copies(params)
    for _ in range(3):
        oracle.update(ref, grads)
    for name, contestant in ready.items():
        with blaming(name), contestant.limit():
            for _ in range(3):
                contestant.step()
            contestant.finish()
            result = contestant.result() if contestant.result else {}
            for key, found in result.items():
                error, change = (float(abs(ref[key] - array).max()) for array in (found, params[key]))
                assert error <= 1e-3 * change, f"{key} differs by {error:.1e}"
