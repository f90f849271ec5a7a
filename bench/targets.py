"""The targets of speed beside the measured figures: ``python -m bench.targets [--measure] [--quick] [--judge]``.

Only with ``--judge`` is a missed target an error. Targets without a measurement, for example because a peer is not
installed, are listed as skipped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import naive

from . import estimators, extended, family, masked, mpi, tensors
from .cases import GAUSSIAN, HUGE, MNIST, NOTES, WIDE, WIDTHS, Net, Update, irregular_updates
from .figures import (
    Figure,
    Skipped,
    against,
    compiling,
    faster,
    faster_than_before,
    faster_than_best,
    faster_update,
    least,
    seconds,
    slowest_first_update,
    slowing,
    threads,
)
from .frameworks import COMPILED
from .peers import CEILING, OURS
from .processes import EMPTY, FULL
from .results import FOLDER, Results

__all__ = ["COLUMNS", "TARGETS", "Target", "judge", "main"]


@dataclass(frozen=True)
class Target:
    """Two lower bounds of a figure, ``least`` and ``aim``; upper bounds where less is better."""

    what: str
    figure: Callable[[Results], Figure]
    least: float
    aim: float
    unit: str = "×"
    less_is_better: bool = False

    def meets(self, value: float, bound: float) -> bool:
        return value <= bound if self.less_is_better else value >= bound

    def show(self, value: float) -> str:
        return f"{value:.3g}{self.unit}"


_BIG = (1_000_000, 10_000_000, HUGE)
_OTHERS = [rule for rule in naive.RULES if rule != "Adam"]


def _update(rule: str, size: int, library: str, package: str | None = None, layout: str = "flat"):
    return faster_update(Update(rule, size, layout=layout), library, package)


def _irregular(what: str, rules: Iterable[str] = ("Adam",), threads: int | None = None):
    """Return the figure of NumPy's time by ours, in the worst of the irregular cases with this text in their name."""
    cases = [case for case in irregular_updates() if case.rule in rules and what in case.what]
    return least(*(faster(case.group, case.id, "NumPy") for case in cases if case.threads == threads))


def _irregular_rows() -> Iterator[Target]:
    yield Target("W[:, :50] of a (100, 100) matrix: faster than NumPy", _irregular("W[:, :50]"), 1.5, 3)
    mixed = "float32 with float64 gradients"
    yield Target(f"{mixed}, 5,000: faster than NumPy", _irregular(f"{mixed}, 5,000"), 2, 4)
    yield Target(f"{mixed}, 2 × 78,400: faster than NumPy", _irregular(f"{mixed}, 2 × 78,400"), 4, 10)
    yield Target("ten small arrays, one strided: faster than NumPy", _irregular("one of them strided"), 3, 5)
    yield Target("two, and four, Python floats: faster than NumPy", _irregular("Python floats"), 1.2, 3)
    sgd_on_floats = _irregular("Python floats", rules=["SGD"])
    yield Target("SGD on Python floats: faster than NumPy", sgd_on_floats, 0.3, 0.7)
    yield Target("F-ordered gradients, 5,000: faster than NumPy", _irregular("F-ordered"), 2, 4)
    two_dicts = _irregular("two dicts", rules=["SGD", "Momentum", "Adam"])
    yield Target("SGD, Momentum, Adam for two dicts in turn: faster than NumPy", two_dicts, 3, 6)
    yield Target("ten arrays rebound before each step: faster than NumPy", _irregular("rebound"), 1, 2)
    yield Target("two overlapping views, 30,000 each: faster than NumPy", _irregular("overlapping", threads=1), 1, 3)
    rest = [case for case in irregular_updates() if (case.rule, case.group) != ("SGD", "floats")]
    every = least(*(faster(case.group, case.id, "NumPy") for case in rest))
    yield Target("six rules, each of these cases, float16, integers: faster than NumPy", every, 0.9, 1.5)


def _family(text: str, library: str, package: str | None = None):
    """Return the figure of a contestant's time by ours, in the worst of the races with this text in their name."""
    races = [race for race in family.races() if text in race.id and library in race.make]
    return least(*(faster("family", race.id, library, package) for race in races))


def _beside_torch(rules: Iterable[str], libraries: Iterable[str]):
    names = {f"{rule} as torch's" for rule in rules}
    ids = [race.id for race in family.races() if race.id.partition(",")[0] in names]
    return least(*(faster_than_best("family", name, libraries, "torch") for name in ids))


def _family_rows() -> Iterator[Target]:
    yield Target("a user's copy of Adam: faster than the built-in", _family("user's copy", family.BASE), 0.97, 1)
    elementwise = _family("value clip and l2", family.BASE)
    yield Target("AdamW, value clip, l2, 1e6 and 1e7: faster than plain Adam", elementwise, 0.95, 1)
    yield Target("with a clip of the norm", _family("and norm clip", family.BASE), 0.8, 0.85)
    yield Target("ten arrays in five groups: faster than in one", _family("five groups", family.BASE), 0.95, 1)
    one_pass = _family(", 10,000,000", CEILING)
    yield Target("every rule of one pass, 1e7: fraction of the ceiling", one_pass, 0.92, 0.97, "")
    big, small = "bfloat16 state, 30,000,000", "bfloat16 state, 1,000,000"
    yield Target("Adam, bfloat16 state, 3e7: faster than float32", _family(big, family.BASE), 1.25, 1.4)
    yield Target("same: faster than torch fused", _family(big, "torch fused", "torch"), 1.3, 1.5)
    yield Target("same, 1e6: faster than float32", _family(small, family.BASE), 0.9, 1)
    fused, unfused = family.FUSED, family.TORCH_HAS.keys() - family.FUSED
    yield Target("rules that torch fuses: faster than its best", _beside_torch(fused, family.TORCH), 1.3, 2)
    yield Target("rules that torch does not fuse: same", _beside_torch(unfused, family.TORCH), 3, 5)
    compiled = _beside_torch(family.TORCH_HAS, [COMPILED])
    yield Target("all of them: faster than torch.compile of the step", compiled, 1.2, 2)
    chain = "AdamW, norm clip, decay, EMA, cosine"
    yield Target(f"{chain}: faster than optax under jit", _family(chain, family.OPTAX, "optax"), 3, 5)
    yield Target(f"{chain}: faster than torch", _family(chain, "torch fused", "torch"), 8, 15)
    sweep = _family("60 learning rates", "NumPy")
    yield Target("sweep of 60 learning rates, 1,000 steps: faster than NumPy", sweep, 50, 200)
    sparse = _family("row-sparse Adam", "torch SparseAdam", "torch")
    yield Target("row-sparse Adam, 1,000 of 1e6 × 64: faster than torch.SparseAdam", sparse, 2, 5)
    yield Target(
        "Muon, four 1024 × 1024: faster than torch's", _family("Muon, four", "torch one by one", "torch"), 1, 1.3
    )


def _tensor_rows() -> Iterator[Target]:
    for library, bounds in zip(family.TORCH, ((1.05, 1.15), (3, 5), (3, 5)), strict=True):
        figure = faster("tensors", tensors.LARGE, library, "torch")
        yield Target(f"{tensors.LARGE}: faster than {library}", figure, *bounds)
    figure = faster("tensors", tensors.SMALL, "torch fused", "torch")
    yield Target(f"{tensors.SMALL}: faster than torch fused", figure, 2, 4)
    figure = faster("tensors", tensors.HALF, "torch fused", "torch")
    yield Target(f"{tensors.HALF}: faster than torch fused", figure, 1.2, 1.5)
    figure = faster("tensors", tensors.HALF, "DeepSpeed", "deepspeed")
    yield Target(f"{tensors.HALF}: faster than DeepSpeed", figure, 1.2, 1.5)
    what = f"{tensors.TEN}: what a step takes longer than that of arrays"
    yield Target(what, tensors.added, 15, 8, unit=" µs", less_is_better=True)


def _mpi_rows() -> Iterator[Target]:
    yield Target(f"{mpi.CASE}: faster than {mpi.REPLICAS}", faster("mpi", mpi.CASE, mpi.REPLICAS), 0.9, 1.3)
    what = f"{mpi.CASE}: state of a rank, times 2"
    yield Target(what, mpi.share_of_state, 1.02, 1, unit="", less_is_better=True)


def _network_rows() -> Iterator[Target]:
    notes, wide = ("-".join(map(str, widths)) for widths in (WIDTHS, WIDE))
    mnist, dense = f"density {MNIST:g}", f"density {GAUSSIAN:g}"
    for kind, bounds in (("x @ W", (2.8, 3.4)), ("x.T @ delta", (3.5, 4))):
        case = masked.name(kind)
        yield Target(f"{case}, one thread: faster than BLAS", faster("masked", case, masked.BLAS), *bounds)
    for what, bounds, texts in (
        ("gradient, batch 128, MNIST's zeros", (2, 2.4), (f"gradient {notes} batch 128", mnist)),
        ("loss, same", (2.1, 2.6), (f"loss {notes} batch 128", mnist)),
        ("both, without zeros in the inputs", (0.97, 1.1), (f"{notes} batch 128", dense)),
        ("both, batch 1, MNIST's zeros", (1, 1.2), (f"{notes} batch 1 ", mnist)),
        ("both, batch 32, same", (1.8, 2.2), (f"{notes} batch 32", mnist)),
        ("both, batch 1024, same", (2, 2.3), (f"{notes} batch 1024", mnist)),
        (f"both, {wide}, batch 128, same", (1.3, 1.6), (f"{wide} batch 128", mnist)),
    ):
        yield Target(f"{what}: faster than another commit", faster_than_before(*texts), *bounds)


def _rows() -> Iterator[Target]:
    fused = ("torch fused", "torch")
    yield Target(
        "Adam, flat, 1e6 to 1e8: fraction of the ceiling",
        least(*(_update("Adam", size, CEILING) for size in _BIG)),
        *(0.90, 0.97, ""),
    )
    yield Target(
        "the other rules, same",
        least(*(_update(rule, size, CEILING) for rule in _OTHERS for size in _BIG)),
        *(0.90, 0.97, ""),
    )
    yield Target("ten arrays, flat dict: faster than torch fused", _update("Adam", NOTES, *fused), 4, 6)
    yield Target("ten arrays, flat dict: faster than NumPy", _update("Adam", NOTES, "NumPy"), 18, 25)
    separate = {"layout": "separate"}
    yield Target(
        "ten arrays, fresh gradients: faster than torch fused", _update("Adam", NOTES, *fused, **separate), 3, 5
    )
    yield Target("ten arrays, fresh gradients: faster than NumPy", _update("Adam", NOTES, "NumPy", **separate), 10, 15)
    yield Target("1e3 in one array: faster than torch fused", _update("Adam", 1_000, *fused), 4, 8)
    yield Target("1e3 in one array: faster than NumPy", _update("Adam", 1_000, "NumPy"), 1.5, 3)
    yield Target("10 parameters in a dict of two: faster than NumPy", _update("Adam", 10, "NumPy", **separate), 1, 2)
    yield from _irregular_rows()
    yield from _family_rows()
    yield from _tensor_rows()
    yield from _mpi_rows()
    in_turns = {"less_is_better": True}
    yield Target(
        "10 to 1e6 on one thread: time by that of another commit", against("Adam", "one thread"), 1.03, 1, **in_turns
    )
    yield Target("1e5 and 1e6 on all threads: same, by wall clock", against("Adam", "all threads"), 1.03, 1, **in_turns)
    first = against("first update, CPU")
    yield Target("full cache: first update, time by that of another commit", first, 1.05, 1, **in_turns)
    yield Target("1e6: faster than torch fused", _update("Adam", 1_000_000, *fused), 1.3, 1.6)
    yield Target("1e6: faster than optax", _update("Adam", 1_000_000, "optax", "optax"), 3, 4)
    yield Target("1e6: faster than NumPy", _update("Adam", 1_000_000, "NumPy"), 25, 35)
    for name, (library, package) in {"torch fused": fused, "DeepSpeed": ("DeepSpeed", "deepspeed")}.items():
        for label, size in (("1e7", 10_000_000), ("1e8", HUGE)):
            yield Target(f"{label}: faster than {name}", _update("Adam", size, library, package), 0.97, 1.05)
    yield Target(
        "RMSprop, 1e6: faster than torch",
        least(*(_update("RMSprop", 1_000_000, library, "torch") for library in ("torch foreach", "torch"))),
        *(3, 4),
    )
    yield Target(
        "1e6 and above: all threads against one",
        least(*(threads(size) for size in _BIG)),
        *(1.7, 1.9),
    )
    batch = Net("gradient", WIDTHS, 128, threads=1)
    yield Target(
        "gradient, batch 128, one thread: fraction of the products without zeros",
        faster("network", batch.id, CEILING),
        *(0.80, 0.92, ""),
    )
    yield from _network_rows()
    for library, package, bounds in (
        ("NumPy", None, (9, 12)),
        ("torch", "torch", (4.5, 5.2)),
        (COMPILED, "torch", (3, 3.5)),
        ("jax", "jax", (4, 4.6)),
    ):
        yield Target(f"the comparison: faster than {library}", faster("comparison", "warm", library, package), *bounds)
    normalized = next(extended.cases(quick=True)).id
    yield Target(
        "batch normalization, the textbook's step: faster than NumPy", faster("extended", normalized, "NumPy"), 2, 4
    )
    classifier = next(estimators.cases(quick=True)).id
    figure = faster("estimators", classifier, "scikit-learn")
    yield Target("MLPClassifier, MNIST's zeros, same epochs: faster than scikit-learn's", figure, 2, 5)
    time = {"unit": " s", "less_is_better": True}
    yield Target("import fastoptim, beyond Numba and SciPy", seconds("start", "import", OURS), 0.05, 0.02, **time)
    yield Target("full cache: process start to first update", seconds("start", "first update", FULL), 0.7, 0.5, **time)
    yield Target("empty cache: process start to first update", seconds("start", "first update", EMPTY), 3, 2, **time)
    yield Target("empty cache: what compiling adds to the comparison", compiling, 8, 5, **time)
    for library, bounds in ((EMPTY, (2, 1.2)), (FULL, (0.1, 0.06))):
        what = f"{library.partition(', ')[2]}: first update of any built-in, after the imports"
        yield Target(what, slowest_first_update(library), *bounds, **time)
    yield Target("vanishing gradients: slowest 1,000 steps by fastest", slowing, 1.3, 1.05, less_is_better=True)


TARGETS = tuple(_rows())

COLUMNS = ("figure", "at least", "aim", "limit")


@dataclass(frozen=True)
class Verdict:
    """A target, its figure, and the result as text."""

    target: Target
    figure: Figure | None
    text: str

    @property
    def missed(self) -> bool:
        return self.figure is not None and not self.target.meets(self.figure.value, self.target.least)

    @property
    def obstacle(self) -> str:
        """The limit that the machine sets to the figure, if one was measured."""
        figure = self.figure
        if figure is None or figure.limit is None:
            return ": no limit of the machine was measured."
        where, limit = f" ({figure.where})" if figure.where else "", self.target.show(figure.limit)
        reached = f"{figure.value / figure.limit:.0%} of it"
        if figure.best is not None:
            reached += f", and {figure.best:.0%} in the fastest round"
        return f"{where}: {figure.why}, which allows {limit}; we reach {reached}."

    @property
    def shown(self) -> tuple[str, str, str, str]:
        """The figure, its bounds and its limit, as text."""
        value, limit = (self.figure.value, self.figure.limit) if self.figure else (None, None)
        show = self.target.show
        return (
            "–" if value is None else show(value),
            show(self.target.least),
            show(self.target.aim),
            "–" if limit is None else show(limit),
        )


def judge(results: Results) -> list[Verdict]:
    """Compare the results with every target."""
    verdicts = []
    for target in TARGETS:
        try:
            figure = target.figure(results)
        except Skipped as reason:
            verdicts.append(Verdict(target, None, f"skipped: {reason}"))
            continue
        if target.meets(figure.value, target.aim):
            text = "aim"
        elif target.meets(figure.value, target.least):
            text = "pass"
        else:
            text = f"MISSED by {abs(figure.value / target.least - 1):.2%}"
        verdicts.append(Verdict(target, figure, text))
    return verdicts


def measure(path: Path, *options: str) -> int:
    """Run the suite in a new process that writes the times to a file, and return the exit code of pytest."""
    path.parent.mkdir(exist_ok=True)
    columns = ["--benchmark-only", "--benchmark-columns=median,iqr,rounds", "--benchmark-sort=name"]
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:randomly", f"--record={path}", *columns]
    try:
        return subprocess.run([*command, *options], cwd=FOLDER.parent, check=False).returncode
    except KeyboardInterrupt:
        return int(pytest.ExitCode.INTERRUPTED)


def main() -> int:
    """Print the targets beside the figures of the last measurement, or of a new one."""
    parser = argparse.ArgumentParser(description="Print the targets of speed beside what was measured.")
    parser.add_argument("--measure", action="store_true", help="measure first; other options are passed to pytest")
    parser.add_argument("--quick", action="store_true", help="only what the targets need, in five minutes")
    parser.add_argument("--judge", action="store_true", help="exit with code 1 if a target is missed")
    options, passed_on = parser.parse_known_args()
    if passed_on and not options.measure:
        parser.error(f"only --measure passes options on to pytest: {' '.join(passed_on)}")
    quick, all_ = FOLDER / "quick.jsonl", FOLDER / "all.jsonl"
    code = 0
    if options.measure:
        path = quick if options.quick else all_
        code = measure(path, *(["--quick"] if options.quick else []), *passed_on)
    else:
        measured = [path for path in ([quick] if options.quick else [quick, all_]) if path.exists()]
        path = max(measured, key=lambda path: path.stat().st_mtime, default=quick)
    if not path.exists():
        parser.error("nothing was measured yet: run make bench-quick, or make bench")
    results = Results.load(path)
    verdicts = judge(results)
    width = max(len(verdict.target.what) for verdict in verdicts)
    print(f"{'target':<{width}}", *(f"{title:>8}" for title in COLUMNS), sep="  ")
    for v in verdicts:
        where = f" ({v.figure.where})" if v.figure and v.figure.where else ""
        print(f"{v.target.what:<{width}}", *(f"{text:>8}" for text in v.shown), f"{v.text}{where}", sep="  ")
    for failure in results.failures:
        print(f"\nfailed: {failure}")
    if not results.ended:
        print("\nThe run was interrupted: these are the cases that it had measured.")
    if results.is_disturbed:
        print(f"\nOther processes used {results.machine['others']:.2f} cores meanwhile: repeat on a quiet machine.")
    missed = sum(verdict.missed for verdict in verdicts)
    if options.judge and missed:
        print(f"\n{missed} targets missed in the measurement of {results.when[:16]}.")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
