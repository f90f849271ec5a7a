"""Group *extended*: a step of the textbook's chapter 6, with batch normalization and dropout, beside its NumPy code.

A step takes 100 of 1,000 samples, computes the gradient and updates by `SGD`, on one thread. The textbook's code
computes in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

import fastoptim as fo
import layers

from . import notes
from .cases import Net
from .networks import limited
from .peers import OURS
from .timing import Contestant

__all__ = ["LIBRARIES", "Extended", "cases"]

LIBRARIES = (OURS, "NumPy")

_NET = Net("gradient", (784, 100, 100, 100, 100, 100, 10), 100, threads=1)


@dataclass(frozen=True)
class Extended:
    """The textbook's network with some options."""

    what: str
    options: dict[str, Any] = field(hash=False)
    net: Net = _NET

    @property
    def id(self) -> str:
        widths = "-".join(map(str, self.net.widths))
        return f"{self.what}, {widths} batch {self.net.batch} {self.net.threads} thread"

    def shrunk(self) -> Extended:
        """Return the same case with a network small enough for a test of the benchmarks."""
        return replace(self, net=self.net.shrunk())

    def contestants(self, names: tuple[str, ...] = LIBRARIES) -> dict[str, Contestant]:
        """Set up libraries, and check that their gradients are those of the textbook's code, to rounding."""
        rng, (first, *hidden, last) = np.random.default_rng(0), self.net.widths
        x, t = self.net.inputs(rng, 1000), rng.integers(last, size=1000)
        sizes = first, hidden, last
        np.random.seed(0)
        ref = layers.MultiLayerNetExtend(*sizes, **self.options)
        ours = fo.MultiLayerNetExtend(*sizes, **self.options, seed=0)
        batch = slice(self.net.batch)
        expected, found = (_seeded(net, x[batch], t[batch]) for net in (ref, ours))
        for key, g in expected.items():
            # The gradient of a bias before batch normalization is rounding error.
            error = np.linalg.norm(found[key] - g) / max(np.linalg.norm(g), 1e-3)
            # Rounding decides for some inputs of ReLU whether a gradient passes.
            assert error < 1e-2, f"{key}: {error:.1e}"
        racing = {OURS: (ours, fo.SGD(lr=0.01)), "NumPy": (ref, notes.SGD(lr=0.01))}

        def step(net: Any, optimizer: Any) -> None:
            drawn = np.random.choice(len(x), self.net.batch)
            optimizer.update(net.params, net.gradient(x[drawn], t[drawn]))

        limit = partial(limited, self.net.threads)
        return {name: Contestant(partial(step, *racing[name]), limit=limit) for name in names}


def _seeded(net: Any, x: Any, t: Any) -> dict[str, Any]:
    """Return the gradient, with the same elements dropped in every network."""
    np.random.seed(1)
    return net.gradient(x, t)


def cases(*, quick: bool = False) -> Iterator[Extended]:
    """Yield the cases of the group; with ``quick`` only that of the target."""
    yield Extended("batch normalization", {"use_batchnorm": True})
    if not quick:
        yield Extended("dropout", {"use_dropout": True, "dropout_ration": 0.2})
        yield Extended("both", {"use_batchnorm": True, "use_dropout": True, "dropout_ration": 0.2})
