"""Group *estimators*: fits of our estimators for scikit-learn, beside its own, for the same epochs on one thread.

A step is a whole fit, and its time is divided by the number of updates in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.testing import assert_allclose
from sklearn import neural_network

import fastoptim as fo
import fastoptim.sklearn

from .cases import Net
from .networks import limited
from .peers import OURS
from .timing import Contestant

__all__ = ["LIBRARIES", "Fit", "cases"]

LIBRARIES = (OURS, "scikit-learn")

_EPOCHS = 5
_N_BATCHES = 30


_NET = Net("gradient", (784, 100, 10), 200, threads=1)
"""The defaults of scikit-learn, on MNIST."""


@dataclass(frozen=True)
class Fit:
    """A classifier's network, and the dtype of its samples."""

    dtype: str
    net: Net = _NET

    @property
    def id(self) -> str:
        widths = "-".join(map(str, self.net.widths))
        return f"MLPClassifier {widths} {self.dtype} batch {self.net.batch} {self.net.threads} thread"

    def shrunk(self) -> Fit:
        """Return the same case with a network small enough for a test of the benchmarks."""
        return replace(self, net=self.net.shrunk())

    def contestants(self, names: tuple[str, ...] = LIBRARIES) -> dict[str, Contestant]:
        """Set up both, and check that their losses are equal, to rounding."""
        rng = np.random.default_rng(0)
        x = self.net.inputs(rng, _N_BATCHES * self.net.batch).astype(self.dtype)
        y = rng.integers(self.net.widths[-1], size=len(x))
        options: dict[str, Any] = {
            "hidden_layer_sizes": self.net.widths[1:-1],
            "batch_size": self.net.batch,
            "max_iter": _EPOCHS,
            "random_state": 0,
        }
        racing = {
            OURS: fastoptim.sklearn.MLPClassifier(solver=fo.Adam(eps=1e-8), **options),
            "scikit-learn": neural_network.MLPClassifier(**options),
        }
        # Not all of the epochs are enough for convergence.
        warnings.filterwarnings("ignore", category=UserWarning, module="fastoptim|sklearn")
        ours, theirs = (model.fit(x, y).loss_curve_ for model in racing.values())
        assert_allclose(ours, theirs, rtol=1e-2 if self.dtype == "float32" else 1e-9)
        limit = partial(limited, self.net.threads)
        updates = _EPOCHS * _N_BATCHES
        return {name: Contestant(partial(racing[name].fit, x, y), limit=limit, updates=updates) for name in names}


def cases(*, quick: bool = False) -> Iterator[Fit]:
    """Yield the cases of the group; with ``quick`` only that of the target."""
    yield Fit("float32")
    if not quick:
        yield Fit("float64")
