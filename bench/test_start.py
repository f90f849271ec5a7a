"""Group *start*: the time of a new process up to its first update."""

import pytest

from .conftest import CLOCK
from .peers import OURS
from .processes import EMPTY, SCRIPTS, environment, seconds
from .timing import blaming
from .trainings import missing

pytestmark = pytest.mark.benchmark(timer=CLOCK)


def _measure(scripts, rounds):
    samples = {library: [] for library in scripts}
    for library, script in scripts.items():
        if library != EMPTY:
            # This fills the cache of compiled code and the file cache of the operating system.
            with blaming(library), environment(empty=False) as env:
                seconds(script, env)
    for _ in range(rounds):
        for library, script in scripts.items():
            with blaming(library), environment(empty=library == EMPTY) as env:
                samples[library].append(seconds(script, env))
    return samples


@pytest.mark.parametrize(
    ("what", "library"), [(what, library) for what, scripts in SCRIPTS.items() for library in scripts]
)
def test_start(what, library, benchmark, report, quick):
    if reason := missing(library):
        pytest.skip(reason)
    if benchmark.disabled:
        with environment(empty=False) as env:
            benchmark.pedantic(seconds, (SCRIPTS[what][library], env))
        return
    scripts = {name: script for name, script in SCRIPTS[what].items() if missing(name) is None}
    if quick:
        scripts = {name: script for name, script in scripts.items() if name.startswith(OURS)}
        if library not in scripts:
            pytest.skip("not in the quick run")
    report(
        *("start", what, library),
        libraries=scripts,
        measure=lambda names: _measure({name: scripts[name] for name in names}, 1 if quick else 4),
    )
