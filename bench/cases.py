"""The case table: sizes, dtypes and layouts that are measured. The libraries are in `peers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

import naive

from . import notes

RULES = tuple(naive.RULES)
"""The rules that are measured: those of which there is plain NumPy code."""

__all__ = [
    "FASHION",
    "GAUSSIAN",
    "HUGE",
    "MNIST",
    "NETWORKS",
    "NOTES",
    "SHAPES",
    "WIDE",
    "WIDTHS",
    "Irregular",
    "Net",
    "Turns",
    "Update",
    "irregular_updates",
    "networks",
    "updates",
]

NOTES = 109_810
"""Parameters of the notes' network 784-100-100-100-100-10, in ten arrays."""

HUGE = 100_000_000

WIDTHS = (784, 100, 100, 100, 100, 10)
WIDE = (784, 1024, 1024, 10)

MNIST, FASHION, GAUSSIAN = 0.19, 0.5, 1.0
"""Which fraction of the pixels is not zero, in MNIST and in Fashion-MNIST; and of inputs that have no zeros."""

SHAPES = {
    10: {"W": (2, 4), "b": (2,)},
    NOTES: {
        key: shape
        for k, (n_in, n_out) in enumerate(pairwise(WIDTHS), 1)
        for key, shape in ((f"W{k}", (n_in, n_out)), (f"b{k}", (n_out,)))
    },
}


@dataclass(frozen=True)
class Update:
    """One optimizer on one set of parameters.

    With ``layout="flat"`` our parameters and gradients are flat dicts. With ``layout="separate"`` each array has its
    own memory and the gradients are other arrays at each step, as in a network without a flat buffer. Peers hold
    their parameters as their users do. ``threads`` is None for all threads.
    """

    rule: str
    size: int
    dtype: str = "float32"
    layout: str = "flat"
    threads: int | None = None

    @property
    def id(self) -> str:
        name = f"{self.rule} {self.size:,} {self.dtype} {self.layout}"
        return name if self.threads is None else f"{name} {self.threads} thread"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return SHAPES.get(self.size, {"W": (self.size,)})

    @property
    def n_slots(self) -> int:
        return len(naive.RULES[self.rule].slots)

    @property
    def bytes(self) -> int:
        """Bytes that one step must move: it reads parameter, gradient and state, and writes all but the gradient."""
        return self.size * (3 + 2 * self.n_slots) * int(self.dtype[5:]) // 8

    def shrunk(self) -> Update:
        """Return this case, or a similar one that is small enough for a test of the benchmarks."""
        return self if self.size in SHAPES else replace(self, size=20_011)


def _layouts(size: int) -> tuple[str, ...]:
    # A single array has the same memory layout in both.
    return ("flat", "separate") if size in SHAPES else ("flat",)


def updates(*, quick: bool = False, huge: bool = False) -> Iterator[Update]:
    """Yield the cases of the group *update*; with ``quick`` only those that the targets need."""
    sizes = (10, 1_000, 10_000, NOTES, 1_000_000, 10_000_000) + ((HUGE,) if huge else ())
    kinds = (("float32", None), ("float64", None), ("float32", 1))
    for rule, (dtype, threads), size in product(RULES, kinds, sizes):
        # The arithmetic per element of a rule is derived from ten and ten thousand elements.
        needed = rule == "Adam" or size >= 1_000_000 or size in (10, 10_000)
        first = (dtype, threads) == kinds[0]
        # Memory alone decides from ten million elements on, and the first kind has one thread there as a contestant.
        if (quick and not (first and needed)) or (size >= 10_000_000 and not first):
            continue
        for layout in _layouts(size):
            yield Update(rule, size, dtype, layout, threads)


Draw = Callable[..., Any]
"""Random values of a shape and a dtype, float64 by default."""

Turns = list[tuple[dict[str, Any], dict[str, Any]]]
"""Parameters and gradients of updates that one optimizer makes in turn, over and over."""


def _two_gradients(params: dict[str, Any], gradient: Callable[[Any], Any]) -> Turns:
    # As in a training loop, the gradients are other objects at each step.
    return [(params, {key: gradient(p) for key, p in params.items()}) for _ in range(2)]


def _draw_like(draw: Draw, params: dict[str, Any]) -> Turns:
    return _two_gradients(params, lambda p: draw(p.shape, p.dtype))


def _block_of_columns(draw: Draw, small: bool) -> Turns:
    width = 10 if small else 100
    return _draw_like(draw, {"W": draw((width, width))[:, : width // 2]})


def _one_strided(draw: Draw, _small: bool) -> Turns:
    params = {key: draw(shape) for k in range(5) for key, shape in ((f"W{k}", (10, 10)), (f"b{k}", (10,)))}
    params["W2"] = draw((10, 20))[:, :10]
    return _draw_like(draw, params)


def _fortran_gradients(draw: Draw, small: bool) -> Turns:
    params = {"W": draw((5, 10) if small else (50, 100))}
    return _two_gradients(params, lambda p: np.asfortranarray(draw(p.shape)))


def _float64_gradients(n_arrays: int, size: int, draw: Draw, small: bool) -> Turns:
    params = {f"W{k}": draw(50 if small else size, np.float32) for k in range(n_arrays)}
    return _two_gradients(params, lambda p: draw(p.shape, np.float64))


def _integer_gradients(draw: Draw, small: bool) -> Turns:
    return _two_gradients({"W": draw(50 if small else 5_000)}, lambda p: (5 * draw(p.shape)).astype(int))


def _float16(draw: Draw, small: bool) -> Turns:
    return _draw_like(draw, {"W": draw(50 if small else 5_000, np.float16)})


def _floats(count: int, draw: Draw, _small: bool) -> Turns:
    return _two_gradients({key: float(draw()) for key in "xyzw"[:count]}, lambda _: float(draw()))


def _network(draw: Draw, small: bool) -> dict[str, Any]:
    return {key: draw([min(n, 5) for n in shape] if small else shape) for key, shape in SHAPES[NOTES].items()}


def _two_dicts(draw: Draw, small: bool) -> Turns:
    turns = [_draw_like(draw, _network(draw, small)) for _ in range(2)]
    return [turns[0][0], turns[1][0], turns[0][1], turns[1][1]]


def _rebound(draw: Draw, small: bool) -> Turns:
    # More sets than an optimizer might keep plans for, so that each is new to it.
    params, grads = _network(draw, small), [_network(draw, small) for _ in range(2)]
    return [({key: p.copy() for key, p in params.items()}, grads[k % 2]) for k in range(16)]


def _overlapping(draw: Draw, small: bool) -> Turns:
    size = 30 if small else 30_000
    buffer = draw(2 * size - size // 3)
    return _draw_like(draw, {"a": buffer[:size], "b": buffer[-size:]})


@dataclass(frozen=True)
class Irregular:
    """One optimizer on parameters or gradients other than contiguous arrays of one dtype that stay in place.

    ``build(draw, small)`` returns the turns. Where ``rebinds``, one dict has its arrays replaced before each of them.
    """

    group: str
    what: str
    build: Callable[[Draw, bool], Turns]
    rule: str = "Adam"
    threads: int | None = None
    rebinds: bool = False
    small: bool = False
    parallel: bool = False
    """Whether more than one thread may work, so that wall-clock time is compared, and not CPU time of the thread."""

    @property
    def id(self) -> str:
        name = f"{self.rule}, {self.what}"
        return name if self.threads is None else f"{name}, {self.threads} thread"

    def turns(self) -> Turns:
        return self.build(partial(naive.draw, np.random.default_rng(0)), self.small)

    def shrunk(self) -> Irregular:
        """Return the same case with arrays small enough for a test of the benchmarks."""
        return replace(self, small=True)


_LARGE = (
    Irregular("mixed", "float32 with float64 gradients, 2 × 78,400", partial(_float64_gradients, 2, 78_400)),
    Irregular("shared", "two dicts of ten arrays in turn", _two_dicts),
    Irregular("rebound", "ten arrays rebound before each step", _rebound, rebinds=True),
)
_IRREGULAR = (
    Irregular("strided", "W[:, :50] of a (100, 100) float64 matrix", _block_of_columns),
    Irregular("strided", "ten small arrays, one of them strided", _one_strided),
    Irregular("strided", "F-ordered gradients for C-ordered parameters, 5,000", _fortran_gradients),
    Irregular("mixed", "float32 with float64 gradients, 5,000", partial(_float64_gradients, 1, 5_000)),
    Irregular("mixed", "integer gradients, 5,000", _integer_gradients),
    Irregular("float16", "float16, 5,000", _float16),
    Irregular("floats", "two Python floats", partial(_floats, 2)),
    Irregular("floats", "four Python floats", partial(_floats, 4)),
    Irregular("overlapping", "two overlapping views, 30,000 each", _overlapping, threads=1),
    *(replace(case, parallel=True) for case in _LARGE),
    *(replace(case, threads=1) for case in _LARGE),
)


def irregular_updates() -> Iterator[Irregular]:
    """Yield the cases of the groups *strided*, *mixed*, *float16*, *floats*, *shared*, *rebound*, *overlapping*."""
    for case, rule in product(_IRREGULAR, notes.RULES):
        yield replace(case, rule=rule)


@dataclass(frozen=True)
class Net:
    """One method of a fully connected network on one batch.

    The inputs are normally distributed, and zero but for a fraction of them, ``density``.
    """

    method: str
    widths: tuple[int, ...]
    batch: int
    density: float = MNIST
    threads: int | None = None

    @property
    def id(self) -> str:
        name = f"{self.method} {'-'.join(map(str, self.widths))} batch {self.batch} density {self.density:g}"
        return name if self.threads is None else f"{name} {self.threads} thread"

    def shrunk(self) -> Net:
        """Return this case, or a similar one that is small enough for a test of the benchmarks."""
        return replace(self, widths=tuple(min(width, 60) for width in self.widths), batch=min(self.batch, 32))

    def inputs(self, rng: np.random.Generator, count: int) -> NDArray[Any]:
        """Return inputs as rows."""
        shape = count, self.widths[0]
        return rng.standard_normal(shape, np.float32) * (rng.random(shape) < self.density)


NETWORKS = (*((WIDTHS, batch) for batch in (1, 32, 128, 1024)), (WIDE, 128))
"""Widths and batches of the networks that are measured."""


def networks(*, quick: bool = False) -> Iterator[Net]:
    """Yield the cases of the group *network*; those of all threads only with MNIST's zeros."""
    for (widths, batch), density, method, threads in product(
        NETWORKS, (MNIST, FASHION, GAUSSIAN), ("gradient", "loss", "predict"), (None, 1)
    ):
        if density != MNIST and (method == "predict" or threads is None):
            continue
        if not quick or (widths, batch, method, density, threads) == (WIDTHS, 128, "gradient", MNIST, 1):
            yield Net(method, widths, batch, density, threads)
