"""Group *family*: compositions beside plain rules, every rule beside its memory and torch, rows beside torch."""

from __future__ import annotations

import inspect
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

import fastoptim as fo
import naive
from fastoptim.family import FAMILY

from . import notes
from .cases import NOTES, SHAPES
from .frameworks import COMPILED, of_optax, of_tensors, torch_compiled
from .peers import CEILING, ONE_MORE_READ, OURS, PRODUCTS, absent, ceiling, limited, ours
from .timing import Arrays, Contestant, blaming

__all__ = ["BASE", "FUSED", "OPTAX", "TORCH", "TORCH_HAS", "Race", "races"]

BASE, OPTAX = "the plain rule", "optax"

TORCH: dict[str, dict[str, bool]] = {
    "torch fused": {"fused": True},
    "torch foreach": {"foreach": True},
    "torch one by one": {"foreach": False},
}
"""torch's implementations of a rule, of which the fastest counts."""

TORCH_HAS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {}),
    "Momentum": ("SGD", {"momentum": 0.9}),
    "Nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "AdaGrad": ("Adagrad", {}),
    "RMSprop": ("RMSprop", {}),
    "Adam": ("Adam", {}),
    "AdamW": ("AdamW", {}),
    "AMSGrad": ("Adam", {"amsgrad": True}),
    "AdaMax": ("Adamax", {}),
    "NAdam": ("NAdam", {}),
    "RAdam": ("RAdam", {}),
    "AdaDelta": ("Adadelta", {}),
    "Rprop": ("Rprop", {}),
}
"""The rules that torch has: its class and arguments, where the defaults are those of ``like="torch"``."""

FUSED = {name for name, (cls, _) in TORCH_HAS.items() if cls in ("SGD", "Adagrad", "Adam", "AdamW")}
"""Those that torch has as one fused kernel."""

CHAIN: dict[str, Any] = {"clip_norm": 1.0, "weight_decay": 0.01, "ema": 0.999}
STEPS = 10_000


@dataclass(frozen=True)
class Race:
    """A case whose contestants are made by functions of the case, its parameters and its gradients.

    ``layout`` and ``threads`` are for ours. Where ``agrees``, all contestants must lead to the same parameters. With
    ``uses_blas`` each waits until the threads of BLAS sleep.
    """

    id: str
    make: dict[str, Callable[[Any, Arrays, Arrays], Contestant]]
    shapes: dict[str, tuple[int, ...]]
    layout: str = "flat"
    threads: int | None = None
    n_slots: int = 0
    agrees: bool = True
    uses_blas: bool = False

    def absent(self, name: str) -> str | None:
        """Return the reason that a contestant cannot take part, or None."""
        return absent("optax") if name == OPTAX else absent("torch") if name.startswith("torch") else None

    def contestants(self, names: list[str]) -> dict[str, Contestant]:
        """Set up contestants, and check that three steps of each lead where ours do.

        Raises
        ------
        Failed
            If a parameter differs by more than a thousandth of the largest change and four units in the last place.
        """
        rng = np.random.default_rng(0)
        params, grads = (
            {key: np.resize(naive.draw(rng, min(int(np.prod(shape)), 100_003), "float32"), shape) for key, shape in
             self.shapes.items()}
            for _ in range(2)
        )  # fmt: skip
        ready: dict[str, Contestant] = {}
        first: dict[str, Any] = {}
        for name in names:
            with blaming(name):
                ready[name] = contestant = self.make[name](self, params, grads)
                with contestant.limit():
                    for _ in range(3):
                        contestant.step()
                    contestant.finish()
                if not self.agrees or contestant.result is None:
                    continue
                result = {key: np.array(p) for key, p in contestant.result().items()}
                first = first or result
                for key, p in params.items() if result is not first else ():
                    tolerance = 1e-3 * float(abs(first[key] - p).max()) + 4 * float(np.spacing(abs(p).max()))
                    error = float(abs(result[key] - first[key]).max())
                    assert error <= tolerance, f"{key} differs by {error:.1e}"
        return ready

    def shrunk(self) -> Race:
        """Return the same race with arrays small enough for a test of the benchmarks."""
        return replace(self, shapes={key: tuple(min(n, 7) for n in shape) for key, shape in self.shapes.items()})


def _ours(make: Callable[[], fo.Optimizer], race: Race, params: Arrays, grads: Arrays) -> Contestant:
    return ours(make(), race, params, grads)


def _array(size: int) -> dict[str, tuple[int, ...]]:
    return {"W": (size,)}


# Compositions beside a plain rule


class OwnAdam(fo.Optimizer):
    """Adam as a user writes it."""

    slots = ("m", "v")

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__()
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2

    def scalars(self) -> tuple[float, ...]:
        """Return the corrected learning rate, ``1 - beta1`` and ``1 - beta2``."""
        lr_t = self.lr * (1 - self.beta2**self.iter) ** 0.5 / (1 - self.beta1**self.iter)
        return lr_t, 1 - self.beta1, 1 - self.beta2

    @staticmethod
    def rule(p, g, m, v, lr_t, one_minus_beta1, one_minus_beta2):
        m += one_minus_beta1 * (g - m)
        v += one_minus_beta2 * (g * g - v)
        p -= lr_t * m / (np.sqrt(v) + 1e-7)
        return p, m, v


def _after_a_read(race: Race, params: Arrays, grads: Arrays) -> Contestant:
    p, g, update = fo.flatten(params), fo.flatten(grads), fo.Adam().update

    def step() -> None:
        g.flat.max()
        update(p, g)

    return Contestant(step, limit=partial(limited, race.threads))


_Limits = dict[str, Callable[[Any, Arrays, Arrays], Contestant]]


def _beside(what: str, mine: Callable[[], fo.Optimizer], shapes: Any, limits: _Limits, **how: Any) -> Race:
    # One thread is timed by its CPU time, which other processes disturb least.
    make = {OURS: partial(_ours, mine), BASE: partial(_ours, fo.Adam), **limits}
    return Race(what, make, shapes, threads=1, **how)


def _compositions() -> Iterator[Race]:
    for size in (10, 10_000, 1_000_000):
        yield _beside(f"a user's copy of Adam, {size:,}", OwnAdam, _array(size), {})
    stages: dict[str, Any] = {"clip_value": 1.0, "l2": 1e-4, "weight_decay": 0.01}
    for size in (1_000_000, 10_000_000):
        for name, on, limits in (
            ("value clip and l2", stages, {}),
            ("value clip, l2 and norm clip", stages | {"clip_norm": 1.0}, {ONE_MORE_READ: _after_a_read}),
        ):
            yield _beside(f"AdamW with {name}, {size:,}", partial(fo.AdamW, **on), _array(size), limits, agrees=False)
    groups = {f"?{k}": {"lr": 0.001} for k in range(1, 6)}
    for layout in ("flat", "separate"):
        what = f"ten arrays in five groups, {layout}"
        yield _beside(what, partial(fo.Adam, groups=groups), SHAPES[NOTES], {}, layout=layout)


# State of half the bytes beside that of float32


def _low_precision() -> Iterator[Race]:
    torch = {"torch fused": partial(_torch, "Adam", TORCH["torch fused"], False)}
    for state_dtype in ("bfloat16", "bfloat16-stochastic"):
        for size in (1_000_000, 30_000_000):
            low = partial(_ours, partial(fo.Adam, state_dtype=state_dtype))
            make = {OURS: low, BASE: partial(_ours, fo.Adam), CEILING: ceiling}
            make |= torch if size > 1_000_000 else {}
            # Two slots of two bytes are the bytes of one slot of four.
            yield Race(f"{state_dtype} state, {size:,}", make, _array(size), threads=1, n_slots=1, agrees=False)


# State in files that the system keeps in memory, beside state in memory


def _in_files() -> fo.Optimizer:
    folder = tempfile.TemporaryDirectory()
    optimizer = fo.Adam(state_dir=folder.name)
    weakref.finalize(optimizer, folder.cleanup)
    return optimizer


def _state_files() -> Iterator[Race]:
    make = {OURS: partial(_ours, _in_files), BASE: partial(_ours, fo.Adam)}
    for size in (1_000_000, 30_000_000):
        yield Race(f"state in files, {size:,}", make, _array(size), threads=1)


# Every rule beside the memory that it moves


def _ceilings() -> Iterator[Race]:
    for cls in (getattr(fo, name) for name in FAMILY):
        # Adafactor updates whole arrays, in more passes than one.
        if cls.measure is None and cls is not fo.Adafactor:
            size, n_slots = 10_000_000, len(cls.slots)
            make = {OURS: partial(_ours, cls), CEILING: ceiling}
            yield Race(f"{cls.__name__}, {size:,}", make, _array(size), n_slots=n_slots, agrees=False)


# Rules and compositions beside torch and optax


def _torch(rule: str, how: dict[str, bool], compiled: bool, race: Race, params: Arrays, grads: Arrays) -> Contestant:
    import torch

    cls, arguments = TORCH_HAS[rule]

    def make(tensors: list[Any]) -> Callable[[], Any]:
        step = getattr(torch.optim, cls)(tensors, **arguments, **how).step
        return torch_compiled(lambda: step()) if compiled else step

    return of_tensors(make, race, params, grads)


def _rules_of_torch() -> Iterator[Race]:
    for name in TORCH_HAS:
        cls = getattr(fo, name)
        like = {"like": "torch"} if "torch" in cls.defaults else {}
        make: dict[str, Callable[..., Contestant]] = {OURS: partial(_ours, partial(cls, **like))}
        for library, how in TORCH.items():
            if name in FUSED or library != "torch fused":
                make[library] = partial(_torch, name, how, False)
        make[COMPILED] = partial(_torch, name, {}, True)
        # torch's foreach implementation of Nesterov writes to the gradients, which are the same at each step here.
        agrees = name != "Nesterov"
        big = {"make": make | {CEILING: ceiling}, "shapes": _array(1_000_000), "n_slots": len(cls.slots)}
        yield Race(f"{name} as torch's, 1,000,000", **big, agrees=agrees)
        yield Race(f"{name} as torch's, ten arrays", make, SHAPES[NOTES], layout="separate", agrees=agrees)


def _torch_chain(race: Race, params: Arrays, grads: Arrays) -> Contestant:
    import torch

    def make(tensors: list[Any]) -> Callable[[], None]:
        adamw = torch.optim.AdamW(tensors, weight_decay=CHAIN["weight_decay"], fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, STEPS)
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(CHAIN["ema"])
        averages = [p.detach().clone() for p in tensors]
        originals = [p.grad.clone() for p in tensors]

        def step() -> None:
            torch._foreach_copy_([p.grad for p in tensors], originals)
            torch.nn.utils.clip_grad_norm_(tensors, CHAIN["clip_norm"])
            adamw.step()
            average(averages, tensors, None)
            schedule.step()

        return step

    return of_tensors(make, race, params, grads)


def _optax_chain(_race: Race, params: Arrays, grads: Arrays) -> Contestant:
    import optax

    rate = optax.cosine_decay_schedule(1e-3, STEPS)
    chain = optax.chain(optax.clip_by_global_norm(CHAIN["clip_norm"]), optax.adamw(rate, weight_decay=0.01))
    return of_optax(chain, params, grads, decay=CHAIN["ema"])


def _chain() -> Iterator[Race]:
    adamw = partial(fo.AdamW, lr=fo.schedules.cosine(1e-3, STEPS), **CHAIN)
    make = {OURS: partial(_ours, adamw), "torch fused": _torch_chain, OPTAX: _optax_chain}
    yield Race("AdamW, norm clip, decay, EMA, cosine schedule, ten arrays", make, SHAPES[NOTES], layout="separate")


def _torch_muon(race: Race, params: Arrays, grads: Arrays) -> Contestant:
    import torch
    from torch.optim import _muon

    # torch iterates in bfloat16; here both compute in float32.
    source = inspect.getsource(_muon._zeropower_via_newtonschulz).replace(".bfloat16()", ".float()")
    exec(source, vars(_muon))
    return of_tensors(lambda tensors: torch.optim.Muon(tensors, weight_decay=0.0).step, race, params, grads)


def _products_alone(race: Race, params: Arrays, _grads: Arrays) -> Contestant:
    """Set up the products of the five iterations of each matrix, as `Muon` has NumPy compute them."""
    matrices = [np.ascontiguousarray(p / np.linalg.norm(p)) for p in params.values()]
    s, factor, y = (np.empty_like(matrices[0]) for _ in range(3))

    def step() -> None:
        for x in matrices:
            for _ in range(5):
                np.matmul(x, x.T, out=s)
                np.matmul(s, s.T, out=factor)
                np.matmul(factor, x, out=y)

    return Contestant(step, limit=partial(limited, race.threads))


def _muon() -> Iterator[Race]:
    mine = partial(_ours, partial(fo.Muon, like="torch", weight_decay=0.0))
    make = {OURS: mine, "torch one by one": _torch_muon, PRODUCTS: _products_alone}
    yield Race(
        "Muon, four 1024 × 1024", make, {f"W{k}": (1024, 1024) for k in range(4)}, layout="separate", uses_blas=True
    )


# A sweep beside separate runs of the notes' code

SWEEP_STEPS = 1_000


def _slopes(p: Any) -> dict[str, Any]:
    return {"x": p["x"] / 10, "y": 2 * p["y"]}


def _sweep(race: Race, params: Arrays, together: bool) -> Contestant:
    """Set up the notes' valley in two dimensions, once for each learning rate."""
    rates = np.geomspace(1e-4, 1, len(params["x"]))
    start, last = {"x": -7.0, "y": 2.0}, dict[str, Any]()

    def swept() -> None:
        last.update(fo.sweep(fo.Adam, start, {"lr": rates}, _slopes, SWEEP_STEPS, vectorized=True).params)

    def looped() -> None:
        ends = []
        for lr in rates.tolist():
            p, update = dict(start), notes.RULES["Adam"](lr=lr).update
            for _ in range(SWEEP_STEPS):
                update(p, _slopes(p))
            ends.append(p)
        last.update((key, np.array([p[key] for p in ends])) for key in start)

    return Contestant(swept if together else looped, lambda: last, limit=partial(limited, race.threads))


def _sweeps() -> Iterator[Race]:
    make: dict[str, Callable[..., Contestant]] = {
        OURS: lambda race, params, _: _sweep(race, params, together=True),
        "NumPy": lambda race, params, _: _sweep(race, params, together=False),
    }
    yield Race(f"sweep of 60 learning rates, {SWEEP_STEPS:,} steps", make, {"x": (60,), "y": (60,)}, threads=1)


# A row-sparse gradient beside torch's


def _lookups(grads: Arrays) -> Iterator[tuple[Any, Any]]:
    """Yield sixteen sets of a thousand rows over and over, because a training looks up other rows at each step."""
    g, rng = grads["E"], np.random.default_rng(1)
    count = min(1000, len(g))
    return cycle([(rng.choice(len(g), count, replace=False), g[:count].copy()) for _ in range(16)])


def _row_sparse(race: Race, params: Arrays, grads: Arrays) -> Contestant:
    optimizer, p, lookups = fo.Adam(eps=1e-8), {"E": params["E"].copy()}, _lookups(grads)
    step = lambda: optimizer.update(p, {"E": fo.Rows(*next(lookups))})  # noqa: E731
    return Contestant(step, lambda: p, limit=partial(limited, race.threads))


def _torch_sparse(race: Race, params: Arrays, grads: Arrays) -> Contestant:
    import torch

    def make(tensors: list[Any]) -> Callable[[], None]:
        (weight,) = tensors
        update, lookups = torch.optim.SparseAdam([weight]).step, _lookups(grads)

        def step() -> None:
            rows, values = map(torch.from_numpy, next(lookups))
            weight.grad = torch.sparse_coo_tensor(rows[None], values, weight.shape, check_invariants=False)
            update()

        return step

    return of_tensors(make, race, params, grads)


def _embedding() -> Iterator[Race]:
    make = {OURS: _row_sparse, "torch SparseAdam": _torch_sparse}
    yield Race("row-sparse Adam, 1,000 of 1,000,000 × 64", make, {"E": (1_000_000, 64)}, threads=1)


def races(*, quick: bool = False) -> Iterator[Race]:
    """Yield the cases of the group *family*; with ``quick`` those of a few seconds each."""
    yield from _compositions()
    if not quick:
        yield from _low_precision()
        yield from _state_files()
        yield from _ceilings()
        yield from _rules_of_torch()
        yield from _sweeps()
    yield from _chain()
    yield from _muon()
    yield from _embedding()
