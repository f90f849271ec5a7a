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
from .frameworks import of_tensors, torch_threads
from .peers import OURS, absent, ours
from .results import Results
from .timing import Arrays, Contestant

__all__ = ["ARRAYS", "HALF", "LARGE", "SMALL", "TEN", "added", "races"]

ARRAYS = "update of arrays"

TEN, SMALL, LARGE = "AdamW, ten tensors", "AdamW, 150 small tensors", "AdamW, 1e7 in 100 tensors"
HALF = "AdamW, 1e7 of bfloat16 in 100 tensors, float32 masters"


class Tensors(Race):
    """A race of which all contestants need torch."""

    def absent(self, name: str) -> str | None:
        """Return the reason that a contestant cannot take part, or None."""
        return absent("torch") or (absent("deepspeed") if name == "DeepSpeed" else None)


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


def _half(params: Arrays, grads: Arrays) -> list[Any]:
    """Return parameters and gradients as tensors of bfloat16."""
    import torch

    tensors = [torch.nn.Parameter(torch.tensor(array).bfloat16()) for array in params.values()]
    for p, key in zip(tensors, params, strict=True):
        p.grad = torch.tensor(grads[key]).bfloat16()
    return tensors


def _half_ours(race: Any, params: Arrays, grads: Arrays) -> Contestant:
    import fastoptim.torch

    optimizer = fastoptim.torch.Optimizer(_half(params, grads), fo.AdamW())
    masters = optimizer._masters.arrays.values()
    limit = partial(torch_threads, race.threads)
    return Contestant(optimizer.step, lambda: dict(zip(params, masters, strict=True)), limit=limit)


def _half_torch(race: Any, params: Arrays, grads: Arrays) -> Contestant:
    import torch

    return _with_masters(partial(torch.optim.AdamW, fused=True), race, params, grads)


def _half_deepspeed(race: Any, params: Arrays, grads: Arrays) -> Contestant:
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return _with_masters(partial(DeepSpeedCPUAdam, weight_decay=0.01), race, params, grads)


def _with_masters(make: Callable[[list[Any]], Any], race: Any, params: Arrays, grads: Arrays) -> Contestant:
    """Set up what people write around an AdamW that has no masters."""
    import torch

    tensors = _half(params, grads)
    masters = [torch.nn.Parameter(p.detach().float()) for p in tensors]
    for master in masters:
        master.grad = torch.empty_like(master)
    adamw = make(masters)

    def step() -> None:
        with torch.no_grad():
            torch._foreach_copy_([master.grad for master in masters], [p.grad for p in tensors])
            adamw.step()
            torch._foreach_copy_(tensors, masters)

    arrays = [master.detach().numpy() for master in masters]
    limit = partial(torch_threads, race.threads)
    return Contestant(step, lambda: dict(zip(params, arrays, strict=True)), limit=limit)


def _shapes(n: int, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"W{k}": shape for k in range(n)}


def races() -> Iterator[Tensors]:
    """Yield the cases of the group."""
    libraries = {OURS: _ours, **{name: partial(_torch, how) for name, how in TORCH.items()}}
    # One thread is timed by its CPU time, which other processes disturb least.
    yield Tensors(TEN, {**libraries, ARRAYS: _arrays}, _shapes(10, 100), layout="separate", threads=1)
    yield Tensors(SMALL, libraries, _shapes(150, 80, 100), layout="separate")
    yield Tensors(LARGE, libraries, _shapes(100, 1000, 100), layout="separate")
    yield Tensors(
        HALF, {OURS: _half_ours, "torch fused": _half_torch, "DeepSpeed": _half_deepspeed}, _shapes(100, 1000, 100)
    )


def added(results: Results) -> Figure:
    """How many microseconds a step takes longer than the same update of arrays."""
    times = results.get("tensors", TEN)
    if OURS not in times or ARRAYS not in times:
        raise Skipped(absent("torch") or f"not measured: {TEN}")
    return Figure((times[OURS].median - times[ARRAYS].median) * 1e6, TEN)
