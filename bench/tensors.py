"""Group *tensors*: the optimizer of torch that updates by ours, beside torch's own AdamW and an update of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import fastoptim as fo

from .family import TORCH, Race
from .figures import Figure, Skipped
from .frameworks import of_tensors
from .peers import OURS, absent, ours
from .results import Results
from .timing import Arrays, Contestant

__all__ = ["ARRAYS", "LARGE", "SMALL", "TEN", "added", "races"]

ARRAYS = "update of arrays"

TEN, SMALL, LARGE = "AdamW, ten tensors", "AdamW, 150 small tensors", "AdamW, 1e7 in 100 tensors"


class Tensors(Race):
    """A race of which all contestants need torch."""

    def absent(self, _name: str) -> str | None:
        """Return the reason that a contestant cannot take part, or None."""
        return absent("torch")


def _ours(race: Any, params: Arrays, grads: Arrays) -> Contestant:
    import fastoptim.torch

    def make(tensors: list[Any]) -> Callable[[], Any]:
        return fastoptim.torch.Optimizer(tensors, fo.AdamW()).step

    contestant = of_tensors(make, race, params, grads)
    # Ten tensors of a hundred numbers use one thread anyway; to limit them to it takes microseconds.
    return replace(contestant, limit=nullcontext) if race.threads else contestant


def _torch(how: dict[str, bool], race: Any, params: Arrays, grads: Arrays) -> Contestant:
    import torch

    return of_tensors(lambda tensors: torch.optim.AdamW(tensors, **how).step, race, params, grads)


def _arrays(race: Any, params: Arrays, grads: Arrays) -> Contestant:
    return ours(fo.AdamW(), race, params, grads)


def _shapes(n: int, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"W{k}": shape for k in range(n)}


def races() -> Iterator[Tensors]:
    """Yield the cases of the group."""
    libraries = {OURS: _ours, **{name: partial(_torch, how) for name, how in TORCH.items()}}
    # One thread is timed by its CPU time, which other processes disturb least.
    yield Tensors(TEN, {**libraries, ARRAYS: _arrays}, _shapes(10, 100), layout="separate", threads=1)
    yield Tensors(SMALL, libraries, _shapes(150, 80, 100), layout="separate")
    yield Tensors(LARGE, libraries, _shapes(100, 1000, 100), layout="separate")


def added(results: Results) -> Figure:
    """How many microseconds a step takes longer than the same update of arrays."""
    times = results.get("tensors", TEN)
    if OURS not in times or ARRAYS not in times:
        raise Skipped(absent("torch") or f"not measured: {TEN}")
    return Figure((times[OURS].median - times[ARRAYS].median) * 1e6, TEN)
