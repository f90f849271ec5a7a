"""The charts of the report and of the README."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from .cases import RULES, updates
from .frameworks import COMPILED
from .history import draw as draw_history
from .peers import CEILING, OURS
from .results import Results, times_ours

__all__ = ["CHARTS"]

COLORS = {
    OURS: "#d62728",
    CEILING: "#555555",
    "NumPy": "#1f77b4",
    "torch": "#f5b041",
    "torch fused": "#ca6f1e",
    "torch foreach": "#7e5109",
    COMPILED: "#9a7d0a",
    "optax": "#2e8b57",
    "jax": "#2e8b57",
    "DeepSpeed": "#8e44ad",
}
LABELS = {"NumPy": "NumPy, the notes' code"}


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
    curves = {rule: _curves(results, rule) for rule in RULES}
    if not all(OURS in each for each in curves.values()):
        return None
    n_rows = -(-len(curves) // 3)
    figure = Figure(figsize=(10, 3 * n_rows), dpi=150, layout="constrained")
    grid = figure.subplots(n_rows, 3, sharex=True, sharey=True)
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    for axes, (rule, each) in zip(grid.flat, curves.items(), strict=False):
        for library, (x, y) in each.items():
            _line(axes, library, x, y)
        axes.set(title=rule, xscale="log", yscale="log")
        _plain(axes)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(EngFormatter("s"))
    for axes in grid[-1]:
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
        bars,
        [f"{warm[n].median:.2f} s" + ("" if n == OURS else f"  ({times_ours(warm, n)}×)") for n in names],
        padding=4,
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
    # All axes share one scale, so it is set after everything is drawn.
    figure.axes[0].set(ylabel="one step", ylim=(5e-6, 2 * slowest))
    _legend(figure)
    return figure


CHARTS = {
    "update.png": draw_update,
    "rules.png": draw_rules,
    "comparison.png": draw_comparison,
    "endurance.png": draw_endurance,
    "history.png": draw_history,
}
"""For each file name the function that draws it; the function returns None if its cases were not measured."""
