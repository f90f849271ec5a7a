"""Run the state machine of tests/test_fuzz.py on all cores, each run with another seed.

A failure is printed with the shortest sequence of operations that reproduces it, and is kept in .hypothesis, where the
next run starts from it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
import warnings
from pathlib import Path

CHUNK = 250
"""Examples per run; Hypothesis remembers the examples of a run and slows down as they grow in number."""


def fuzz(seed: int, n_examples: int) -> int:
    """Run examples and return their number, which is larger than ``n_examples`` if some were invalid."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import hypothesis
    from hypothesis.stateful import run_state_machine_as_test

    import test_fuzz

    warnings.simplefilter("error")
    test_fuzz.Updates.count = 0
    settings = hypothesis.settings(test_fuzz.SETTINGS, max_examples=n_examples, derandomize=False, print_blob=True)
    run_state_machine_as_test(hypothesis.seed(seed)(test_fuzz.Updates), settings=settings)
    return test_fuzz.Updates.count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the first run (default: random)")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    # There are more threads than cores, so waiting threads must not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    seeds = range(options.seed, options.seed - (-options.examples // CHUNK))
    print(f"seeds {seeds.start} to {seeds[-1]}", flush=True)
    start, done = time.perf_counter(), 0
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        runs = [pool.apply_async(fuzz, (seed, min(CHUNK, options.examples))) for seed in seeds]
        for run in runs:
            done += run.get()
            print(f"{done} examples passed, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
