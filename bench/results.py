"""The measured times, in a file to which each case is added as soon as it is measured.

The first line describes the machine; each other line is one library in one case, or says that the run has ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
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
    failures: list[str] = field(default_factory=list)
    ended: bool = True
    """Whether the run reached its end; else some cases are missing."""

    @classmethod
    def load(cls, path: Path) -> Results:
        # What follows the last end of line was not written to its end.
        head, *lines = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])
        cases: dict[str, dict[str, dict[str, Measured]]] = {}
        for line in lines:
            if samples := line.get("samples"):
                measured = Measured(median(samples), min(samples), max(samples), samples, line["extra"])
                cases.setdefault(line["group"], {}).setdefault(line["case"], {})[line["library"]] = measured
        failures = [f"{line['group']}, {line['case']}, {line['error']}" for line in lines if "error" in line]
        machine = head["machine"] | {"others": lines[-1]["others"] if lines else 0.0}
        turns = path.parent / "against.json"
        against = json.loads(turns.read_text(encoding="utf-8")) if turns.exists() else None
        ended = any("ended" in line for line in lines)
        return cls(cases, machine, head["commit"], head["when"], against, failures, ended)

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
