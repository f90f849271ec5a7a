import json
import os
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numba
import pytest

from . import cases, estimators, extended, family, irregular, networks, peers, tensors
from .frameworks import COMPILED
from .timing import Failed, Pacing

RECORD = pytest.StashKey()


def pytest_addoption(parser):
    group = parser.getgroup("fastoptim")
    group.addoption("--quick", action="store_true", help="only what the targets need, in five minutes")
    group.addoption("--seconds", type=float, help="to measure each library in each case")
    group.addoption("--iterations", type=int, help="of the comparison (default: 300, or 100 with --quick)")
    group.addoption("--record", type=Path, help="file to which each case is added as soon as it is measured")
    group.addoption("--huge", action="store_true", help="add cases of 100 million elements: 16 GB and some minutes")


def pytest_collection_modifyitems(items):
    for item in items:
        # Warnings of torch and JAX must not fail our benchmarks.
        item.add_marker(pytest.mark.filterwarnings("default"))


def _busy() -> tuple[float, float]:
    """Return the CPU seconds of this process and its children, and those of all processes."""
    own = sum(os.times()[:4])
    stat = Path("/proc/stat")
    if not stat.exists():
        return own, own
    user, nice, system, _idle, _iowait, *rest = map(int, stat.read_text().split("\n")[0].split()[1:])
    return own, (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")


class Record:
    """The file of the measured times, which `results` reads. Without a path nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.started, self.busy = path, perf_counter(), _busy()

    def start(self, config: pytest.Config) -> None:
        """Begin the file with the line that describes the machine."""
        if self.path is None:
            return
        machine = config.hook.pytest_benchmark_generate_machine_info(config=config)
        machine["versions"] = peers.versions()
        machine["threads"] = numba.config.NUMBA_NUM_THREADS
        machine["threading_layer"] = _threading_layer()
        machine["quick"] = config.getoption("quick")
        # The report is committed and public, so the host name is removed.
        machine["node"] = ""
        commit = config.hook.pytest_benchmark_generate_commit_info(config=config)
        head = {"machine": machine, "commit": commit, "when": datetime.now().isoformat(timespec="seconds")}
        self.path.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def add(self, **line: Any) -> None:
        """Add a line, with the cores that other processes kept busy until now."""
        if self.path is None:
            return
        own, all_ = (now - then for now, then in zip(_busy(), self.busy, strict=True))
        line["others"] = max(0.0, all_ - own) / (perf_counter() - self.started)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def pytest_configure(config):
    config.stash[RECORD] = Record(config.getoption("record"))


def pytest_collection_finish(session):
    session.config.stash[RECORD].start(session.config)


def pytest_sessionfinish(session, exitstatus):
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        session.config.stash[RECORD].add(ended=True)


def _threading_layer() -> str:
    # Numba chooses its layer when it starts its threads, which this call does.
    numba.get_num_threads()
    try:
        return numba.threading_layer()
    except ValueError:
        return "none"


class Clock:
    """A clock that replays durations measured earlier.

    pytest-benchmark measures one function per test, one test after the other, but the libraries of a case must take
    turns. So a case is measured once for all its libraries, and each test replays the durations of its library to
    pytest-benchmark.
    """

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def play(self, samples: Iterable[float]) -> Callable[[], None]:
        self.now, following = 0.0, iter(samples)

        def advance() -> None:
            self.now += next(following)

        return advance


CLOCK = Clock()


@pytest.fixture(scope="session")
def latest():
    """The last case measured and its durations. One is enough, because the tests of a case are consecutive."""
    return {}


@pytest.fixture(scope="session")
def quick(request):
    return request.config.getoption("quick")


@pytest.fixture(scope="session")
def pacing(quick, request):
    seconds = request.config.getoption("seconds")
    pacing = Pacing() if seconds is None else Pacing(seconds)
    return pacing.brief() if quick else pacing


@pytest.fixture(scope="session")
def iterations(quick, request):
    return request.config.getoption("iterations") or (100 if quick else 300)


def measured(measure: Callable[[list[str]], dict[str, list[float]]], libraries: Iterable[str]) -> dict[str, Any]:
    """Return the samples, or the error, of each library. One that fails is left out, and the others start again."""
    left, failed = list(libraries), {}
    while left:
        try:
            return failed | measure(left)
        except Failed as error:
            left.remove(error.library)
            failed[error.library] = error
        except Exception as error:
            return failed | dict.fromkeys(left, error)
    return failed


@pytest.fixture
def report(benchmark, latest, request):
    """Return a function that measures a case once for all its libraries and reports those of one library."""

    def report(
        *where: str, libraries: Iterable[str], measure: Callable[[list[str]], dict[str, list[float]]], **extra: Any
    ) -> None:
        group, case, library = where
        if latest.get("case") != (group, case):
            latest.clear()
            latest.update(case=(group, case), samples=measured(measure, libraries))
        samples, record = latest["samples"][library], request.config.stash[RECORD]
        if isinstance(samples, Exception):
            error = str(samples) if isinstance(samples, Failed) else repr(samples)
            record.add(group=group, case=case, library=library, error=" ".join(error.split())[:200])
            raise samples
        record.add(group=group, case=case, library=library, samples=samples, extra=extra)
        benchmark.group = f"{group}: {case}"
        benchmark.pedantic(CLOCK.play(samples), rounds=len(samples))

    return report


def _few(table: list[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """Return the cases that differ where they are shrunk; of peers in float32, and once under `torch.compile`."""
    few = {
        (case.shrunk().id, library): (case, library)
        for case, library in table
        if library != COMPILED and (" float64 " not in case.id or library in (peers.OURS, peers.CEILING))
    }
    return [*few.values(), *[each for each in table if each[1] == COMPILED][:1]]


def pytest_generate_tests(metafunc):
    quick, huge = (metafunc.config.getoption(name) for name in ("quick", "huge"))
    table = {
        "test_update": [
            (c, name) for c in cases.updates(quick=quick, huge=huge) for name in peers.racing(c, quick=quick)
        ],
        "test_irregular_update": [(c, name) for c in cases.irregular_updates() for name in irregular.OPTIMIZERS],
        "test_family": [(c, name) for c in family.races(quick=quick) for name in c.make],
        "test_tensors": [(c, name) for c in tensors.races() for name in c.make],
        "test_network": [
            (c, name) for c in cases.networks(quick=quick) for name, each in networks.NETWORKS.items() if each.takes(c)
        ],
        "test_estimators": [(c, name) for c in estimators.cases(quick=quick) for name in estimators.LIBRARIES],
        "test_extended": [(c, name) for c in extended.cases(quick=quick) for name in extended.LIBRARIES],
    }.get(metafunc.function.__name__)
    if table and metafunc.config.getoption("benchmark_disable"):
        table = _few(table)
    if table:
        metafunc.parametrize(("case", "library"), table, ids=[f"{case.id}-{name}" for case, name in table])
