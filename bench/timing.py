"""Time several contestants in turns, in one process.

They run in blocks, A B C A B C …, so that other processes disturb all of them alike, and the median over the rounds is
reported. Cases of one thread are timed by the CPU time of the thread, without the time that other processes took.

All other cases are timed by the wall clock. The threads of OpenBLAS, OpenMP, torch and XLA spin on their cores for
milliseconds after their work and would slow down the next contestant, so each block starts with a pause and some steps
that are not timed. These steps also load the parameters into the caches, as in a training loop. A block is at most
10 ms of steps, because a neighbour on the other hyper-thread of a core may slow it down for seconds at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import ceil
from time import perf_counter, process_time, sleep, thread_time
from typing import Any

from numpy.typing import NDArray

__all__ = ["Arrays", "Contestant", "Failed", "Pacing", "blaming", "nothing", "race", "without_gc"]

Arrays = dict[str, NDArray[Any]]
Clock = Callable[[], float]


def nothing() -> None:
    """Do nothing."""


class Failed(Exception):
    """Raised if a library fails, so that the others can race without it. ``library`` is its name."""

    def __init__(self, library: str, error: Exception) -> None:
        super().__init__(f"{library}: {type(error).__name__}: {error}")
        self.library = library


@contextmanager
def blaming(library: str) -> Iterator[None]:
    """Raise `Failed` with the name of a library in place of any other error."""
    try:
        yield
    except Exception as error:
        raise Failed(library, error) from error


@dataclass(frozen=True)
class Contestant:
    """A library that is set up for a case."""

    step: Callable[[], Any]
    result: Callable[[], Any] | None = None
    """Returns the result of the steps so far; None if there is nothing to check."""
    finish: Callable[[], Any] = nothing
    """Waits for asynchronous work that `step` started."""
    limit: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Limits the library to the threads of the case."""
    vanish: Callable[[], Any] = nothing
    """Sets the gradients to zero."""
    updates: int = 1
    """Number of updates in a step."""


@dataclass(frozen=True)
class Pacing:
    """How long to measure: seconds per contestant, and limits to the number of rounds."""

    seconds: float = 0.3
    block: float = 0.01
    lead: float = 0.003
    pause: float = 0.005
    min_rounds: int = 9
    max_rounds: int = 30

    def after_blas(self) -> Pacing:
        """Return the same with longer pauses, because the threads of OpenBLAS spin longer than others."""
        return replace(self, pause=0.04)

    def brief(self) -> Pacing:
        """Return the same for half as long, for the quick run and for what no target asks for."""
        return replace(self, seconds=self.seconds / 2, min_rounds=ceil(self.min_rounds / 2))

    def for_cpu_time(self) -> Pacing:
        """Return the same with more and shorter blocks and without pauses, which CPU time does not need."""
        return replace(self, block=0.004, lead=0.001, pause=0, max_rounds=100)

    def thorough(self) -> Pacing:
        """Return the same for twice as long, so that other processes disturb a smaller part of it."""
        return replace(self, seconds=2 * self.seconds)


@contextmanager
def without_gc():
    """Run the garbage collector now, and keep it off while something is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _block(contestant: Contestant, steps: int, clock: Clock) -> float:
    step = contestant.step
    start = clock()
    for _ in range(steps):
        step()
    contestant.finish()
    return clock() - start


def _warm_up(contestant: Contestant, pacing: Pacing, clock: Clock) -> float:
    """Run until the time of a step is stable, and return it in seconds.

    Our first fourteen updates try one thread and several, so at least twenty steps are run; two suffice if they
    take a second.
    """
    _block(contestant, 1, clock)
    steps, done, spent = 1, 1, 0.0
    while True:
        last = _block(contestant, steps, clock)
        spent += last
        done += steps
        if (done >= 20 and last >= pacing.block) or (done >= 2 and spent >= 1):
            return last / steps
        if last < pacing.block:
            steps *= 2


def race(contestants: Mapping[str, Contestant], pacing: Pacing, threads: int | None = None) -> dict[str, list[float]]:
    """Return for each contestant the seconds of an update, one figure a round: the mean over a block.

    With ``threads=1`` the seconds are the CPU time of the calling thread.

    Raises
    ------
    Failed
        If a contestant raises an error.
    AssertionError
        If other threads worked although there should be one, because their time would not be counted.
    """
    pacing, clock = (pacing.for_cpu_time(), thread_time) if threads == 1 else (pacing, perf_counter)
    lead, steps, once = {}, {}, 0.0
    with without_gc():
        for name, contestant in contestants.items():
            sleep(pacing.pause)
            with blaming(name), contestant.limit():
                seconds = _warm_up(contestant, pacing, clock)
            # A long step wakes the threads and loads what it needs in a small part of its time.
            lead[name] = ceil(pacing.lead / seconds) if seconds < 2 * pacing.block else 0
            steps[name] = ceil(pacing.block / seconds)
            once += pacing.pause + seconds * (lead[name] + steps[name])
        wanted = int(pacing.seconds * len(contestants) / once)
        samples: dict[str, list[float]] = {name: [] for name in contestants}
        whole, own = process_time(), thread_time()
        for _ in range(min(max(wanted, pacing.min_rounds), pacing.max_rounds)):
            for name, contestant in contestants.items():
                sleep(pacing.pause)
                with blaming(name), contestant.limit():
                    _block(contestant, lead[name], clock)
                    seconds = _block(contestant, steps[name], clock)
                    samples[name].append(seconds / steps[name] / contestant.updates)
        whole, own = process_time() - whole, thread_time() - own
    assert threads != 1 or whole < 1.1 * own, f"other threads worked for {whole - own:.3g} s, beside {own:.3g} s"
    return samples
