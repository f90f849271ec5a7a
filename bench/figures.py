"""The figures that the targets judge, each a function of the results.

A figure is computed from medians of one process, its limit from the fastest rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .cases import NOTES, Update
from .peers import CEILING, CEILING_SERIAL, ONE_MORE_READ, OURS, OURS_SERIAL, PRODUCTS
from .processes import EMPTY, FULL
from .results import Measured, Results, duration

__all__ = [
    "Figure",
    "Skipped",
    "against",
    "compiling",
    "faster",
    "faster_than_before",
    "faster_than_best",
    "faster_update",
    "least",
    "seconds",
    "slowest_first_update",
    "slowing",
    "threads",
]


class Skipped(Exception):
    """Raised if a figure cannot be computed; the message says why."""


@dataclass(frozen=True)
class Figure:
    """A figure, its case, and the limit that the machine sets.

    ``limit`` is the value if we were as fast as the machine allows, and ``why`` names the resource behind it. ``best``
    is the fraction of the machine's speed that our fastest round reached, in which other processes interfere least.
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
    """The shortest time that the machine allows, and the resource that takes it. It is a minimum, not a median."""

    seconds: float
    why: str


def _memory(results: Results, case: str, group: str = "update") -> Bound | None:
    is_memory = group in ("update", "family")
    limits = {
        CEILING: "memory alone takes" if is_memory else "the products alone, without what is zero, take",
        ONE_MORE_READ: "Adam and one more read of the gradients take",
        PRODUCTS: "the products of NumPy's BLAS alone take",
    }
    measured = results.get(group, case)
    bounds = [Bound(measured[name].fastest, what) for name, what in limits.items() if name in measured]
    return next((replace(bound, why=f"{bound.why} {duration(bound.seconds)}") for bound in bounds), None)


def _arithmetic(results: Results, case: Update) -> Bound | None:
    """Bound the time of the arithmetic by the fastest case that fits into the caches of one core, less its overhead.

    For rules with a root and a division it is the time of the processor's divider, which wider vectors do not shorten.
    """

    def fastest(size: int, threads: int | None) -> float | None:
        measured = results.get("update", replace(case, size=size, layout="flat", threads=threads).id).get(OURS)
        return measured and measured.fastest

    start = fastest(10, None)
    # Ten thousand elements are updated by one thread.
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
    """Return the figure of another library's time by ours."""

    def figure(results: Results) -> Figure:
        other = _seconds(results, group, case, library, package)
        return _ratio(other, _measured(results, group, case, OURS), case, _memory(results, case, group))

    return figure


def faster_than_best(group: str, case: str, libraries: Iterable[str], package: str | None = None):
    """Return the figure of the time of the fastest of some libraries by ours."""

    def figure(results: Results) -> Figure:
        times = {name: each.median for name, each in results.get(group, case).items() if name in libraries}
        if not times:
            raise Skipped(f"{package} is not installed" if package not in results.versions else f"not measured: {case}")
        best = min(times, key=lambda name: times[name])
        bound = _memory(results, case, group)
        return _ratio(times[best], _measured(results, group, case, OURS), f"{case}, {best}", bound)

    return figure


def faster_update(case: Update, library: str, package: str | None = None):
    """Return the figure of another library's time by ours; for the ceiling it is the fraction that we reach."""

    def figure(results: Results) -> Figure:
        other = _seconds(results, "update", case.id, library, package)
        return _ratio(other, _measured(results, "update", case.id, OURS), case.id, _bound(results, case))

    return figure


def threads(size: int):
    """Return the figure of the time on one thread by that on all; the limit is the same ratio of the ceiling."""
    case = Update("Adam", size).id

    def figure(results: Results) -> Figure:
        ours = _seconds(results, "update", case, OURS_SERIAL) / _seconds(results, "update", case, OURS)
        one, all_ = (_seconds(results, "update", case, library) for library in (CEILING_SERIAL, CEILING))
        return Figure(
            ours, case, one / all_, f"memory alone takes {duration(one)} by one core, {duration(all_)} by all"
        )

    return figure


def least(*figures: Callable[[Results], Figure]) -> Callable[[Results], Figure]:
    """Return the lowest of those figures that were measured."""

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
    """Return the figure of the seconds that a library takes."""
    return lambda results: Figure(_seconds(results, group, case, library))


def slowest_first_update(library: str) -> Callable[[Results], Figure]:
    """Return the figure of the seconds of the first update by the rule that takes longest."""

    def figure(results: Results) -> Figure:
        times = {rule: each.median for rule, name, each in results.each("first") if name == library}
        if not times:
            raise Skipped("not measured: first updates")
        worst = max(times, key=lambda rule: times[rule])
        return Figure(times[worst], worst)

    return figure


def compiling(results: Results) -> Figure:
    """How many seconds an empty cache of compiled code adds to a run."""
    case = "make compare, 20 iterations"
    empty, full = (_seconds(results, "start", case, library) for library in (EMPTY, FULL))
    return Figure(empty - full)


def slowing(results: Results) -> Figure:
    """The time of the slowest window of steps by that of the fastest, for the rule where it is largest."""
    runs = {case: libraries[OURS] for case, libraries in results.cases.get("endurance", {}).items()}
    if not runs:
        raise Skipped("not measured: endurance")
    where, worst = max(runs.items(), key=lambda item: item[1].slowest / item[1].fastest)
    return Figure(worst.slowest / worst.fastest, where)


def _against(results: Results, texts: tuple[str, ...]) -> Figure:
    """Return our time by that of another commit, in the worst case with these texts in its name."""
    found = results.against
    cases = found["cases"].items() if found else ()
    ratios = {case: times["this"] / times["other"] for case, times in cases if all(text in case for text in texts)}
    if not ratios:
        raise Skipped("not measured: make against REV=edaf04f")
    worst = max(ratios, key=lambda case: ratios[case])
    return Figure(ratios[worst], f"{worst}; {found['commit']} against {found['rev']}")


def against(*texts: str) -> Callable[[Results], Figure]:
    """Return the figure of our time by that of another commit, in the worst case with these texts in its name."""
    return lambda results: _against(results, texts)


def faster_than_before(*texts: str) -> Callable[[Results], Figure]:
    """Return the figure of another commit's time by ours, in the worst case with these texts in its name.

    Its limit is that of the network on one thread, whose products alone are timed by `make bench`.
    """

    def figure(results: Results) -> Figure:
        worst = _against(results, texts)
        name = worst.where.partition(";")[0]
        bound = _memory(results, name.replace(", one thread", " 1 thread"), "network")
        worst = replace(worst, value=1 / worst.value)
        if results.against is None or bound is None:
            return worst
        return replace(worst, limit=results.against["cases"][name]["other"] / bound.seconds, why=bound.why)

    return figure
