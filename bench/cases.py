"""The case table: what is measured, at which sizes, in which dtypes and layouts; the libraries are in `peers`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod

import naive

__all__ = ["HUGE", "NOTES", "WIDTHS", "Net", "Update", "networks", "updates"]

NOTES = 109_810
"""Parameters of the notes' network 784-100-100-100-100-10, in ten arrays."""

HUGE = 100_000_000

WIDTHS = (784, 100, 100, 100, 100, 10)
_SHAPES = {
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

    ``layout`` is ``"flat"``, where our parameters and gradients are flat dicts, or ``"separate"``, where each is an
    array of its own and the gradients are other arrays at each step, as a network without a flat buffer makes them.
    Peers hold their parameters as their users do. ``threads`` is None for all that there are.
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
        return _SHAPES.get(self.size, {"W": (self.size,)})

    @property
    def n_slots(self) -> int:
        return len(naive.RULES[self.rule].slots)

    @property
    def bytes(self) -> int:
        """What one step must move: it reads the parameter, its gradient and its state, and writes all but one back."""
        return self.size * (3 + 2 * self.n_slots) * int(self.dtype[5:]) // 8

    def shrunk(self) -> Update:
        """Return this case, or one like it that a test of the benchmarks has time for."""
        return self if self.size <= NOTES else replace(self, size=20_011)


def _layouts(size: int) -> tuple[str, ...]:
    # An array that is alone lies in memory the same way in both.
    return ("flat", "separate") if size in _SHAPES else ("flat",)


def updates(*, quick: bool = False, huge: bool = False) -> Iterator[Update]:
    """Yield the cases of the group *update*; the quick ones are those that the targets ask for."""
    sizes = (10, 1_000, 10_000, NOTES, 1_000_000, 10_000_000) + ((HUGE,) if huge else ())
    for rule, dtype, threads, size in product(naive.RULES, ("float32", "float64"), (None, 1), sizes):
        # Ten and ten thousand elements tell what the arithmetic of a rule takes.
        needed = rule == "Adam" or size >= 1_000_000 or size in (10, 10_000)
        essential = (dtype, threads) == ("float32", None) and needed
        if (quick and not essential) or (size == HUGE and (dtype, threads) != ("float32", None)):
            continue
        for layout in _layouts(size):
            yield Update(rule, size, dtype, layout, threads)


@dataclass(frozen=True)
class Net:
    """One method of a fully connected network on one batch."""

    method: str
    widths: tuple[int, ...]
    batch: int
    threads: int | None = None

    @property
    def id(self) -> str:
        name = f"{self.method} {'-'.join(map(str, self.widths))} batch {self.batch}"
        return name if self.threads is None else f"{name} {self.threads} thread"

    @property
    def flops(self) -> int:
        """Multiplications and additions of the products alone."""
        layers = [2 * self.batch * prod(pair) for pair in pairwise(self.widths)]
        return 3 * sum(layers) - layers[0] if self.method == "gradient" else sum(layers)


def networks(*, quick: bool = False) -> Iterator[Net]:
    """Yield the cases of the group *network*."""
    for widths, batch, method, threads in product(
        (WIDTHS, (784, 1024, 1024, 10)), (1, 32, 128, 1024), ("gradient", "loss", "predict"), (None, 1)
    ):
        if not quick or (widths, batch, method) == (WIDTHS, 128, "gradient"):
            yield Net(method, widths, batch, threads)
