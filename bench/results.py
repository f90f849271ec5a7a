"""The measured times, read from the file that pytest-benchmark writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .peers import OURS

__all__ = ["FOLDER", "Measured", "Results", "duration", "times_ours"]

FOLDER = Path(__file__).parent.parent / ".benchmarks"
"""The folder of measurements, which git ignores."""


@dataclass(frozen=True)
class Measured:
    """Seconds of one library in one case."""

    median: float
    fastest: float
    slowest: float
    samples: list[float]
    extra: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """All times of a run, ``cases[group][case][library]``, and the last ones of `make against`, if there are any."""

    cases: dict[str, dict[str, dict[str, Measured]]]
    machine: dict[str, Any]
    commit: dict[str, Any]
    when: str
    against: dict[str, Any] | None = None

    @classmethod
    def load(cls, path: Path) -> Results:
        data = json.loads(path.read_text(encoding="utf-8"))
        cases: dict[str, dict[str, dict[str, Measured]]] = {}
        for entry in data["benchmarks"]:
            stats, extra = entry["stats"], dict(entry["extra_info"])
            group, case, library = (extra.pop(key) for key in ("group", "case", "library"))
            measured = Measured(stats["median"], stats["min"], stats["max"], stats["data"], extra)
            cases.setdefault(group, {}).setdefault(case, {})[library] = measured
        turns = path.parent / "against.json"
        against = json.loads(turns.read_text(encoding="utf-8")) if turns.exists() else None
        return cls(cases, data["machine_info"], data["commit_info"], data["datetime"], against)

    @property
    def versions(self) -> dict[str, str]:
        return self.machine["versions"]

    @property
    def is_disturbed(self) -> bool:
        """Whether other processes used more than a tenth of a core, so that the figures are unreliable."""
        return self.machine["others"] > 0.1

    def each(self, group: str) -> Iterator[tuple[str, str, Measured]]:
        """Yield case, library and times for all of a group."""
        for case, libraries in self.cases.get(group, {}).items():
            for library, measured in libraries.items():
                yield case, library, measured

    def get(self, group: str, case: str) -> dict[str, Measured]:
        """Return the times of a case by library; the dict is empty if it was not measured."""
        return self.cases.get(group, {}).get(case, {})


def duration(seconds: float) -> str:
    """Return a time as text in s, ms or µs."""
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def times_ours(libraries: Mapping[str, Measured], library: str) -> str:
    """Return a library's time by ours as text."""
    return f"{libraries[library].median / libraries[OURS].median:.2f}" if library in libraries else "–"
