"""Headline figures of each release: ``python -m bench.history`` adds the file of the version that was measured last."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .results import FOLDER, Results
from .targets import judge

__all__ = ["HEADLINES", "draw", "headlines", "releases"]

HISTORY = Path(__file__).parent / "history"
"""A file for each version: its number, the date and processor of the measurement, and ratios by names of targets."""

HEADLINES = {
    "NumPy": {
        "ten arrays, flat dict: faster than NumPy": "Adam, the notes' ten arrays",
        "1e6: faster than NumPy": "Adam, a million parameters",
        "the comparison: faster than NumPy": "the comparison",
    },
    "torch": {
        "ten arrays, flat dict: faster than torch fused": "Adam, the notes' ten arrays",
        "1e6: faster than torch fused": "Adam, a million parameters",
        "the comparison: faster than torch": "the comparison",
    },
    "JAX": {
        "1e6: faster than optax": "Adam, a million parameters",
        "the comparison: faster than jax": "the comparison",
    },
}
"""For each library the targets whose figures are kept, and their names in the chart."""

COLORS = {
    "Adam, the notes' ten arrays": "#0072b2",
    "Adam, a million parameters": "#d55e00",
    "the comparison": "#009e73",
}


def headlines(results: Results) -> dict[str, Any]:
    """Return what the file of a release says."""
    kept = {what for names in HEADLINES.values() for what in names}
    found = {v.target.what: v.figure.value for v in judge(results) if v.figure and v.target.what in kept}
    return {
        "version": results.versions["fastoptim"],
        "date": results.when[:10],
        "processor": results.machine["cpu"].get("brand_raw", results.machine["processor"]),
        "figures": {what: float(f"{value:.3g}") for what, value in found.items()},
    }


def releases(folder: Path = HISTORY) -> list[dict[str, Any]]:
    """Return what the files say, the oldest version first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return sorted(found, key=lambda release: [int(part) for part in release["version"].split(".")])


def draw(results: Results) -> Figure | None:
    """Draw the figures of all releases, and at the end those of this measurement."""
    points = [(release["version"], release) for release in releases()]
    if now := headlines(results) if results.cases.get("update") else None:
        points.append((f"main\n{now['date']}", now))
    figure = Figure(figsize=(10, 3), dpi=150, layout="constrained")
    for axes, (library, names) in zip(figure.subplots(1, len(HEADLINES), sharex=True), HEADLINES.items(), strict=True):
        for what, label in names.items():
            y = [each["figures"].get(what, float("nan")) for _, each in points]
            axes.plot(range(len(points)), y, marker="o", color=COLORS[label], label=label)
        axes.set_title(f"{library}'s time by fastoptim's", loc="left")
        axes.set_xticks(range(len(points)), [name for name, _ in points])
        axes.set(ylim=(0, 1.05 * axes.get_ylim()[1]), xlim=(-0.5, len(points) - 0.5))
        axes.yaxis.set_major_formatter("{x:g}×")
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def main(measured: Path = FOLDER / "all.jsonl", folder: Path = HISTORY) -> None:
    """Write the file of the version that was measured."""
    results = Results.load(measured)
    if not results.ended:
        sys.exit("the last `make bench` was interrupted: run it again")
    release = headlines(results)
    path = folder / f"{release['version']}.json"
    if path.exists():
        sys.exit(f"{path.name} exists: set src/fastoptim/_version.py to the new version, and run `make bench` with it")
    path.write_text(json.dumps(release, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
