"""Write what was measured: bench/report.md and its charts. ``python -m bench.report [--quick]`` after `make bench`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

import naive

from .cases import networks, updates
from .peers import CEILING, LIBRARIES, OURS
from .results import FOLDER, Measured, Results
from .targets import COLUMNS, judge

__all__ = ["main"]

HERE = Path(__file__).parent

COLORS = {
    OURS: "#d62728",
    CEILING: "#555555",
    "NumPy": "#1f77b4",
    "torch": "#f5b041",
    "torch fused": "#ca6f1e",
    "torch foreach": "#7e5109",
    "optax": "#2e8b57",
    "jax": "#2e8b57",
    "DeepSpeed": "#8e44ad",
}
LABELS = {"NumPy": "NumPy, the notes' code"}


# Text


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a table of Markdown; all columns but the first are numbers."""
    header = list(header)
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _ratio(found: dict[str, Measured], library: str) -> str:
    return f"{found[library].median / found[OURS].median:.2f}" if library in found else "–"


def machine(results: Results) -> Iterator[str]:
    """What it was measured on, with what, and how to do it again."""
    info, commit = results.machine, results.commit
    cpu = info["cpu"]
    name = f"{cpu.get('brand_raw', info['processor'])}, {info['threads']} threads, {info['system']}"
    yield from (
        f"- {name}; Python {info['python_version']}; Numba's threading layer {info['threading_layer']}",
        "- " + ", ".join(f"{package} {version}" for package, version in results.versions.items()),
        f"- commit {commit['id'][:12]}{' with changes' if commit['dirty'] else ''}, {results.when[:10]}",
        f"- other processes kept {info['others']:.2f} cores busy meanwhile",
        f"- reproduce with `make bench{'-quick' if info['quick'] else ''}`",
        "",
        "Every figure is the median of blocks of steps, in which all libraries of a line took turns in one process",
        "(see `bench/timing.py`), after their results were found equal. Ratios say how many times as long as fastoptim",
        "another library takes. The *ceiling* is a kernel with the same memory traffic and trivial arithmetic.",
        "",
    )


def targets(results: Results) -> Iterator[str]:
    yield "## Targets\n"
    yield "In the column *ceiling* stands what the figure would be if fastoptim took no longer than the ceiling.\n"
    yield from table(
        ("what", *COLUMNS, ""),
        ((v.target.what, *v.shown, v.text) for v in judge(results)),
    )


def update(results: Results) -> Iterator[str]:
    yield "## One update\n"
    yield "![Adam](update.png)\n"
    yield "![All rules](rules.png)\n"
    yield "Separate: the arrays of a dict lie anywhere, and the gradients are other ones at each step.\n"
    found = {case: results.get("update", case.id) for case in updates(huge=True)}
    found = {case: libraries for case, libraries in found.items() if OURS in libraries}
    for dtype, threads in dict.fromkeys((case.dtype, case.threads) for case in found):
        rows = {case: found[case] for case in found if (case.dtype, case.threads) == (dtype, threads)}
        present = {name for row in rows.values() for name in row}
        peers = [name for name in LIBRARIES if name in present - {OURS, CEILING}]
        yield f"### {dtype}, {'all threads' if threads is None else 'one thread'}\n"
        yield from table(
            ("rule", "elements", "", "fastoptim", "elements/s", "GB/s", "of the ceiling", *peers),
            (
                (
                    *(case.rule, f"{case.size:,}", case.layout, _time(row[OURS].median)),
                    *(f"{case.size / row[OURS].median:.2g}", f"{case.bytes / row[OURS].median / 1e9:.3g}"),
                    *(f"{row[CEILING].median / row[OURS].median:.2f}", *(_ratio(row, name) for name in peers)),
                )
                for case, row in rows.items()
            ),
        )


def network(results: Results) -> Iterator[str]:
    yield "## The network\n"
    yield "The ceiling is the products alone, by the same BLAS. NumPy's is the notes' code, in float64.\n"
    names = ("NumPy", "torch", "jax")
    yield from table(
        ("method", "widths", "batch", "threads", "fastoptim", "GFLOP/s", "of the products", *names),
        (
            (
                *(case.method, "-".join(map(str, case.widths)), str(case.batch), str(case.threads or "all")),
                *(_time(row[OURS].median), f"{case.flops / row[OURS].median / 1e9:.0f}"),
                *(f"{row[CEILING].median / row[OURS].median:.2f}", *(_ratio(row, name) for name in names)),
            )
            for case in networks()
            if OURS in (row := results.get("network", case.id))
        ),
    )


def comparison(results: Results) -> Iterator[str]:
    warm, cold = results.get("comparison", "warm"), results.get("comparison", "cold")
    if OURS not in warm:
        return
    extra = warm[OURS].extra
    yield "## The comparison\n"
    yield "![The comparison](comparison.png)\n"
    yield f"Five networks of the notes, {extra['iterations']} iterations each, with batches of 128 of {extra['data']}."
    yield "Warm is a second training in one process, cold a process from its start with nothing compiled before."
    yield "The losses are means of the last 100.\n"
    rules = list(extra["loss"])
    yield from table(
        ("library", "warm", "ratio", "cold", *(f"loss {rule}" for rule in rules)),
        (
            (
                *(name, _time(each.median), _ratio(warm, name), _time(cold[name].median if name in cold else None)),
                *(f"{each.extra['loss'][rule]:.3f}" if each.extra["loss"] else "–" for rule in rules),
            )
            for name, each in warm.items()
        ),
    )


def start(results: Results) -> Iterator[str]:
    yield "## Starting\n"
    yield "`import fastoptim` is what it takes beyond `import numba, scipy.linalg`; a first update is a whole process,"
    yield "which updates the notes' ten arrays once with Adam.\n"
    yield from table(
        ("what", "library", "seconds"),
        (
            (what, name, f"{each.median:.3f}")
            for what, libraries in results.cases.get("start", {}).items()
            for name, each in libraries.items()
        ),
    )


def endurance(results: Results) -> Iterator[str]:
    yield "## Endurance\n"
    yield "![Endurance](endurance.png)\n"
    yield "The gradients are zero from the fourth step on. A step of the notes' network, in windows of 1,000.\n"
    yield from table(
        ("rule", "library", "fastest", "slowest", "slowest by fastest"),
        (
            (case, name, _time(each.fastest), _time(each.slowest), f"{each.slowest / each.fastest:.2f}")
            for case, libraries in results.cases.get("endurance", {}).items()
            for name, each in libraries.items()
        ),
    )


# Charts


def _label(library: str, ceiling: str = "memory alone") -> str:
    return f"the ceiling: {ceiling}" if library == CEILING else LABELS.get(library, library)


def _line(axes: Any, library: str, x: list[float], y: list[float]) -> None:
    ours, ceiling = library == OURS, library == CEILING
    axes.plot(
        *(x, y),
        color=COLORS[library],
        label=_label(library),
        linewidth=2.6 if ours else 1.4,
        linestyle="--" if ceiling else "-",
        marker="" if ceiling else "o",
        markersize=5 if ours else 3.5,
        zorder=3 if ours else 4 if ceiling else 2,
    )


def _plain(axes: Any) -> None:
    axes.minorticks_off()
    axes.grid(visible=True, which="major", color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def _curves(results: Results, rule: str) -> dict[str, tuple[list[float], list[float]]]:
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for case in updates(huge=True):
        if (case.rule, case.dtype, case.layout, case.threads) == (rule, "float32", "flat", None):
            for library, each in results.get("update", case.id).items():
                if library in COLORS:
                    x, y = curves.setdefault(library, ([], []))
                    x.append(case.size)
                    y.append(each.median)
    return curves


def draw_update(results: Results) -> Figure | None:
    curves = _curves(results, "Adam")
    if not curves:
        return None
    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    times, ratios = figure.subplots(1, 2)
    ours = dict(zip(*curves[OURS], strict=True))
    for library, (x, y) in curves.items():
        _line(times, library, x, y)
        _line(ratios, library, x, [seconds / ours[size] for size, seconds in zip(x, y, strict=True)])
    times.set_title("One update by Adam, float32", loc="left")
    ratios.set_title("… as a multiple of fastoptim's time", loc="left")
    for axes in (times, ratios):
        axes.set(xscale="log", yscale="log", xlabel="parameters")
        _plain(axes)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    times.yaxis.set_major_formatter(EngFormatter("s"))
    ratios.set_yticks([0.5, 1, 2, 5, 10, 20, 50])
    ratios.yaxis.set_major_formatter("{x:g}×")
    ratios.set_ylim(0.3, None)
    times.legend(loc="upper left", frameon=False, fontsize=9)
    return figure


def draw_rules(results: Results) -> Figure | None:
    curves = {rule: _curves(results, rule) for rule in naive.RULES}
    if not all(OURS in each for each in curves.values()):
        return None
    figure = Figure(figsize=(10, 6), dpi=150, layout="constrained")
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, (rule, each) in zip(grid.flat, curves.items(), strict=True):
        for library, (x, y) in each.items():
            _line(axes, library, x, y)
        axes.set(title=rule, xscale="log", yscale="log")
        _plain(axes)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(EngFormatter("s"))
    for axes in grid[1]:
        axes.set_xlabel("parameters")
    for axes in grid[:, 0]:
        axes.set_ylabel("one update, float32")
    _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    handles = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def draw_comparison(results: Results) -> Figure | None:
    warm = results.get("comparison", "warm")
    if OURS not in warm:
        return None
    names = sorted(warm, key=lambda name: warm[name].median, reverse=True)
    figure = Figure(figsize=(8, 0.5 * len(names) + 1), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(
        [_label(name, "products alone") for name in names],
        [warm[name].median for name in names],
        color=[COLORS[n] for n in names],
    )
    axes.bar_label(
        bars, [f"{warm[n].median:.2f} s" + ("" if n == OURS else f"  ({_ratio(warm, n)}×)") for n in names], padding=4
    )
    iterations = warm[OURS].extra["iterations"]
    axes.set_title(f"The comparison: five networks, five optimizers, {iterations} iterations", loc="left")
    axes.set_xlabel("seconds")
    axes.set_xlim(0, 1.25 * max(warm[name].median for name in names))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def draw_endurance(results: Results) -> Figure | None:
    runs = results.cases.get("endurance", {})
    if not runs:
        return None
    figure = Figure(figsize=(10, 3), dpi=150, layout="constrained")
    for axes, (case, libraries) in zip(
        figure.subplots(1, len(runs), sharey=True, squeeze=False).flat, runs.items(), strict=True
    ):
        for library, each in ((name, libraries[name]) for name in COLORS if name in libraries):
            window = each.extra["window"]
            steps = [window * (k + 0.5) for k in range(len(each.samples))]
            _line(axes, library, steps, each.samples)
        axes.set(title=case.split()[0], yscale="log", xlabel="step", xticks=[0, 10_000, 20_000])
        _plain(axes)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_major_formatter(EngFormatter("s"))
    slowest = max(each.slowest for libraries in runs.values() for name, each in libraries.items() if name in COLORS)
    # All axes share one scale, which is set when everything has been drawn.
    figure.axes[0].set(ylabel="one step", ylim=(5e-6, 2 * slowest))
    _legend(figure)
    return figure


SECTIONS: tuple[Callable[[Results], Iterator[str]], ...] = (targets, update, network, comparison, start, endurance)
CHARTS = {
    "update.png": draw_update,
    "rules.png": draw_rules,
    "comparison.png": draw_comparison,
    "endurance.png": draw_endurance,
}


def main() -> None:
    """Write the report and the charts of the latest measurement."""
    parser = argparse.ArgumentParser(description="Write bench/report.md and its charts.")
    parser.add_argument("--quick", action="store_true", help="of `make bench-quick`")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    results = Results.load(FOLDER / ("quick.json" if options.quick else "all.json"))
    lines = ["# Benchmarks\n", *machine(results)]
    for section in SECTIONS:
        lines += section(results)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, draw in CHARTS.items():
        if figure := draw(results):
            figure.savefig(options.output / name)
        else:
            # A part of the suite was run: a chart of what was not measured would be that of another day.
            lines = [line for line in lines if f"({name})" not in line]
    (options.output / "report.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
