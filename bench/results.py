"""What the suite measured, read from the file that pytest-benchmark writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .peers import OURS

__all__ = ["FOLDER", "Measured", "Results", "duration", "times_ours"]

FOLDER = Path(__file__).parent.parent / ".benchmarks"
"""Of the files of pytest-benchmark; git does not look at it."""


@dataclass(frozen=True)
class Measured:
    """One library on one case, in seconds."""

    median: float
    fastest: float
    slowest: float
    samples: list[float]
    extra: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """All of a run: ``cases[group][case][library]``; beside it what `make against` measured last, if it did."""

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
        """Whether other processes took so much of the machine that no figure can be trusted."""
        return self.machine["others"] > 0.1

    def each(self, group: str) -> Iterator[tuple[str, str, Measured]]:
        """Yield all cases of a group, with each library and its figures."""
        for case, libraries in self.cases.get(group, {}).items():
            for library, measured in libraries.items():
                yield case, library, measured

    def get(self, group: str, case: str) -> dict[str, Measured]:
        """Return what was measured of a case, by library; nothing if it was not."""
        return self.cases.get(group, {}).get(case, {})


def duration(seconds: float) -> str:
    """Return a time as text, in the unit that suits it."""
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def times_ours(libraries: Mapping[str, Measured], library: str) -> str:
    """Return how many times as long as ours a library takes."""
    return f"{libraries[library].median / libraries[OURS].median:.2f}" if library in libraries else "–"
