import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import numba
import pytest

from . import cases, irregular, networks, peers
from .timing import Pacing

STARTED = pytest.StashKey()


def pytest_addoption(parser):
    group = parser.getgroup("fastoptim")
    group.addoption("--quick", action="store_true", help="only what the targets ask for, in two minutes")
    group.addoption("--seconds", type=float, help="of measuring for each case and library")
    group.addoption("--iterations", type=int, help="of the comparison; 300 by default, 100 in the quick run")
    group.addoption("--huge", action="store_true", help="also a hundred million elements: needs 16 GB, and minutes")


def pytest_collection_modifyitems(items):
    for item in items:
        # What torch and JAX warn of is not ours to mend.
        item.add_marker(pytest.mark.filterwarnings("default"))


def _busy() -> tuple[float, float]:
    """Return how many seconds of processor time this process and its children took, and how many all did."""
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
    # The report is committed: it says what the machine is, not what it is called.
    machine["node"] = ""


def _threading_layer() -> str:
    try:
        return numba.threading_layer()
    except ValueError:
        return "none"


class Clock:
    """Tells the time that has been measured already.

    pytest-benchmark runs one function a test, and one test after the other; our libraries take turns, all of a case
    at once. So each test plays back what its library took, and pytest-benchmark reads it off this clock.
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
    """The case measured last, and its figures: the tests of one case follow each other."""
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
    """Measure a case once for all its libraries and hand each test the figures of its own."""

    def report(group: str, case: str, library: str, measure: Callable[[], dict[str, list[float]]], **extra: Any):
        if latest.get("case") != (group, case):
            latest.clear()
            latest.update(case=(group, case), samples=measure())
        samples = latest["samples"][library]
        benchmark.group = f"{group}: {case}"
        benchmark.extra_info.update(group=group, case=case, library=library, **extra)
        benchmark.pedantic(CLOCK.play(samples), rounds=len(samples))

    return report


def pytest_generate_tests(metafunc):
    quick, huge = (metafunc.config.getoption(name) for name in ("quick", "huge"))
    table = {
        "test_update": [
            (c, name) for c in cases.updates(quick=quick, huge=huge) for name in peers.racing(c, quick=quick)
        ],
        "test_irregular_update": [(c, name) for c in cases.irregular_updates() for name in irregular.OPTIMIZERS],
        "test_network": [
            (c, name) for c in cases.networks(quick=quick) for name, each in networks.NETWORKS.items() if each.takes(c)
        ],
    }.get(metafunc.function.__name__)
    if table:
        metafunc.parametrize(("case", "library"), table, ids=[f"{case.id}-{name}" for case, name in table])
