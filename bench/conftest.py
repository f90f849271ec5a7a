import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import numba
import pytest

from . import cases, estimators, extended, family, irregular, networks, peers, tensors
from .frameworks import COMPILED
from .timing import Pacing

STARTED = pytest.StashKey()


def pytest_addoption(parser):
    group = parser.getgroup("fastoptim")
    group.addoption("--quick", action="store_true", help="only what the targets need, in five minutes")
    group.addoption("--seconds", type=float, help="to measure each library in each case")
    group.addoption("--iterations", type=int, help="of the comparison (default: 300, or 100 with --quick)")
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


def pytest_configure(config):
    config.stash[STARTED] = perf_counter(), _busy()


def pytest_benchmark_update_json(config, output_json):
    machine = output_json["machine_info"]
    machine["versions"] = peers.versions()
    machine["threads"] = numba.config.NUMBA_NUM_THREADS
    machine["threading_layer"] = _threading_layer()
    machine["quick"] = config.getoption("quick")
    started, (own, all_) = config.stash[STARTED]
    own, all_ = (now - then for now, then in zip(_busy(), (own, all_), strict=True))
    machine["others"] = max(0.0, all_ - own) / (perf_counter() - started)
    # The report is committed and public, so the host name is removed.
    machine["node"] = ""


def _threading_layer() -> str:
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


@pytest.fixture
def report(benchmark, latest):
    """Return a function that measures a case once for all its libraries and reports those of one library."""

    def report(group: str, case: str, library: str, measure: Callable[[], dict[str, list[float]]], **extra: Any):
        if latest.get("case") != (group, case):
            latest.clear()
            latest.update(case=(group, case), samples=measure())
        samples = latest["samples"][library]
        benchmark.group = f"{group}: {case}"
        benchmark.extra_info.update(group=group, case=case, library=library, **extra)
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
