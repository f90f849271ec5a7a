"""Time several things fairly against each other, in one process.

They take turns in blocks, A B C A B C …, so that whatever the machine does meanwhile meets all of them alike, and the
median over the rounds is taken of each. A block is some 20 ms of steps, not one step: the threads of OpenBLAS, OpenMP,
torch and XLA go on spinning on their cores for milliseconds after their work, and slow whatever comes next, which must
not be charged to it. For the same reason each block begins with a pause and some steps that do not count. They also
bring the parameters back into the caches, as in a loop of training.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import ceil
from time import perf_counter, sleep
from typing import Any

from numpy.typing import NDArray

__all__ = ["Arrays", "Contestant", "Pacing", "nothing", "race", "without_gc"]

Arrays = dict[str, NDArray[Any]]
Clock = Callable[[], float]


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Contestant:
    """One library, set up for one case."""

    step: Callable[[], Any]
    result: Callable[[], Any] | None = None
    """What the steps so far have led to, to be checked; None where there is nothing to check."""
    finish: Callable[[], Any] = nothing
    """Waits for what `step` only started."""
    limit: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Keeps the library to the threads of the case."""
    vanish: Callable[[], Any] = nothing
    """Sets the gradients to zero."""
    updates: int = 1
    """Updates in a step."""


@dataclass(frozen=True)
class Pacing:
    """How long to measure, in seconds for each contestant, but at least a number of rounds."""

    seconds: float = 0.3
    block: float = 0.02
    lead: float = 0.005
    pause: float = 0.005
    min_rounds: int = 9
    max_rounds: int = 30

    def after_blas(self) -> Pacing:
        """Return the same with pauses in which OpenBLAS gives up its cores: it waits far longer than others do."""
        return replace(self, pause=0.04)

    def brief(self) -> Pacing:
        """Return the same for half as long: for the essential in two minutes."""
        return replace(self, seconds=self.seconds / 2, min_rounds=ceil(self.min_rounds / 2))

    def for_cpu_time(self) -> Pacing:
        """Return the same with more and shorter blocks and no pause: threads that spin elsewhere do not count."""
        return replace(self, block=0.004, lead=0.001, pause=0, max_rounds=100)

    def thorough(self) -> Pacing:
        """Return the same for longer: a machine may lend its cores to others for a second, but less often for ten."""
        return replace(self, seconds=3 * self.seconds)


@contextmanager
def without_gc():
    """Collect now, and not while something is timed."""
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
    """Run until nothing is new any more, and return the seconds of a step.

    That is at least twenty steps, because our updates try both ways to run in the first fourteen, unless a step is so
    slow that nothing is left to be learned by the third.
    """
    _block(contestant, 1, clock)
    steps, done, spent = 1, 1, 0.0
    while True:
        last = _block(contestant, steps, clock)
        spent += last
        done += steps
        if (done >= 20 and last >= pacing.block) or (done >= 3 and spent >= 1):
            return last / steps
        if last < pacing.block:
            steps *= 2


def race(contestants: Mapping[str, Contestant], pacing: Pacing, clock: Clock = perf_counter) -> dict[str, list[float]]:
    """Return for each contestant the seconds of an update, one figure a round: the mean over a block.

    Where one thread works, `time.thread_time` as ``clock`` leaves out the time that the machine gave to others.
    """
    lead, steps, once = {}, {}, 0.0
    with without_gc():
        for name, contestant in contestants.items():
            sleep(pacing.pause)
            with contestant.limit():
                seconds = _warm_up(contestant, pacing, clock)
            lead[name], steps[name] = ceil(pacing.lead / seconds), ceil(pacing.block / seconds)
            once += pacing.pause + seconds * (lead[name] + steps[name])
        wanted = int(pacing.seconds * len(contestants) / once)
        samples: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(min(max(wanted, pacing.min_rounds), pacing.max_rounds)):
            for name, contestant in contestants.items():
                sleep(pacing.pause)
                with contestant.limit():
                    _block(contestant, lead[name], clock)
                    seconds = _block(contestant, steps[name], clock)
                    samples[name].append(seconds / steps[name] / contestant.updates)
    return samples
