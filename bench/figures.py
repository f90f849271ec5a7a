"""The figures that targets are set for, each a function of the results.

All are from medians of one process; limits are of the fastest rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .cases import NOTES, Update
from .peers import CEILING, CEILING_SERIAL, OURS, OURS_SERIAL
from .processes import EMPTY, FULL
from .results import Measured, Results, duration

__all__ = [
    "Figure",
    "Skipped",
    "against",
    "compiling",
    "faster",
    "faster_update",
    "least",
    "seconds",
    "slowing",
    "threads",
]


class Skipped(Exception):
    """There is no figure, and why."""


@dataclass(frozen=True)
class Figure:
    """A figure, the case that it is of, what it would be if ours were as fast as the machine allows, and what does.

    ``best`` is the part of what the machine allows that the fastest round of ours reached: in the median there is also
    what the machine did for others.
    """

    value: float
    where: str = ""
    limit: float | None = None
    why: str = ""
    best: float | None = None


def _measured(results: Results, group: str, case: str, library: str, package: str | None = None) -> Measured:
    if package is not None and package not in results.versions:
        raise Skipped(f"{package} is not installed")
    measured = results.get(group, case).get(library)
    if measured is None:
        raise Skipped(f"not measured: {case}, {library}")
    return measured


def _seconds(results: Results, group: str, case: str, library: str, package: str | None = None) -> float:
    return _measured(results, group, case, library, package).median


@dataclass(frozen=True)
class Bound:
    """The least time that the machine allows, and what takes it: the best that was seen, not the median."""

    seconds: float
    why: str


def _memory(results: Results, case: str, group: str = "update") -> Bound | None:
    ceiling = results.get(group, case).get(CEILING)
    what = "memory alone takes" if group == "update" else "the products alone, by the same BLAS, take"
    return ceiling and Bound(ceiling.fastest, f"{what} {duration(ceiling.fastest)}")


def _arithmetic(results: Results, case: Update) -> Bound | None:
    """What the arithmetic takes: no longer than the quickest case that lies in the caches of one core, less its start.

    For rules with a root and a division that is the time of the processor's divider, which no vector width shortens.
    """

    def fastest(size: int, threads: int | None) -> float | None:
        measured = results.get("update", replace(case, size=size, layout="flat", threads=threads).id).get(OURS)
        return measured and measured.fastest

    start = fastest(10, None)
    # Ten thousand elements are too few for a second thread.
    some = {size: fastest(size, threads) for size, threads in ((10_000, None), (NOTES, 1), (1_000_000, 1))}
    if start is None or not any(some.values()):
        return None
    each = min((seconds - start) / (size - 10) for size, seconds in some.items() if seconds)
    threads = case.threads or results.machine["threads"]
    return Bound(start + each * case.size / threads, f"its arithmetic takes {each * 1e9:.2f} ns an element on one core")


def _bound(results: Results, case: Update) -> Bound | None:
    bounds = [bound for bound in (_memory(results, case.id), _arithmetic(results, case)) if bound]
    return max(bounds, key=lambda bound: bound.seconds, default=None)


def _ratio(other: float, ours: Measured, where: str, bound: Bound | None) -> Figure:
    value = other / ours.median
    if bound is None:
        return Figure(value, where)
    return Figure(value, where, other / bound.seconds, bound.why, bound.seconds / ours.fastest)


def faster(group: str, case: str, library: str, package: str | None = None):
    """How many times faster ours is than another library."""

    def figure(results: Results) -> Figure:
        other = _seconds(results, group, case, library, package)
        return _ratio(other, _measured(results, group, case, OURS), case, _memory(results, case, group))

    return figure


def faster_update(case: Update, library: str, package: str | None = None):
    """How many times faster our update is than another library's; than the ceiling, its fraction of that."""

    def figure(results: Results) -> Figure:
        other = _seconds(results, "update", case.id, library, package)
        return _ratio(other, _measured(results, "update", case.id, OURS), case.id, _bound(results, case))

    return figure


def threads(size: int):
    """How many times faster all threads are than one; the limit is what the ceiling gains by them."""
    case = Update("Adam", size).id

    def figure(results: Results) -> Figure:
        ours = _seconds(results, "update", case, OURS_SERIAL) / _seconds(results, "update", case, OURS)
        one, all_ = (_seconds(results, "update", case, library) for library in (CEILING_SERIAL, CEILING))
        return Figure(
            ours, case, one / all_, f"memory alone takes {duration(one)} by one core, {duration(all_)} by all"
        )

    return figure


def least(*figures: Callable[[Results], Figure]) -> Callable[[Results], Figure]:
    """The worst of some figures, as far as they were measured."""

    def figure(results: Results) -> Figure:
        found, reasons = [], []
        for each in figures:
            try:
                found.append(each(results))
            except Skipped as reason:
                reasons.append(reason)
        if not found:
            raise reasons[0]
        return min(found, key=lambda figure: figure.value)

    return figure


def seconds(group: str, case: str, library: str) -> Callable[[Results], Figure]:
    """The seconds themselves."""
    return lambda results: Figure(_seconds(results, group, case, library))


def compiling(results: Results) -> Figure:
    """How many seconds longer a run is with an empty cache of compiled code."""
    case = "make compare, 20 iterations"
    empty, full = (_seconds(results, "start", case, library) for library in (EMPTY, FULL))
    return Figure(empty - full)


def slowing(results: Results) -> Figure:
    """How much slower the slowest window of steps is than the fastest, for the rule where that is most.

    On one thread, for there the time of a step tells of its arithmetic, and not of who else wants the cores.
    """
    runs = {case: libraries[OURS_SERIAL] for case, libraries in results.cases.get("endurance", {}).items()}
    if not runs:
        raise Skipped("not measured: endurance")
    where, worst = max(runs.items(), key=lambda item: item[1].slowest / item[1].fastest)
    return Figure(worst.slowest / worst.fastest, where)


def against(text: str) -> Callable[[Results], Figure]:
    """Our time by that of another commit, in the worst of the cases of `make against` with a text in their name."""

    def figure(results: Results) -> Figure:
        found = results.against
        cases = {case: times for case, times in found["cases"].items() if text in case} if found else {}
        if not cases:
            raise Skipped("not measured: make against REV=edaf04f")
        worst, value = max(((case, t["this"] / t["other"]) for case, t in cases.items()), key=lambda pair: pair[1])
        return Figure(value, f"{worst}; {found['commit']} against {found['rev']}")

    return figure
