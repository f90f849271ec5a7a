"""Attack the library: run the attacks that tests/ has at full length, one after the other.

``make red`` runs all of them, ``make red ARGS="caches --count 10"`` one of them, ten times. Each is a function of a
count that raises an exception when it succeeds, and that the tests call with a small count.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import attack_arrays
import attack_caches
import attack_threads
import mutations
import soak_checkpoints

ATTACKS: dict[str, tuple[Callable[[int], object], int]] = {
    "versions": (attack_caches.two_versions_at_once, 1_000),
    "caches": (attack_caches.foreign_caches, 200),
    "arrays": (attack_arrays.main, 1_000_000),
    "exceptions": (attack_threads.exceptions, 10_000),
    "mutations": (mutations.main, 100_000),
    "kills": (soak_checkpoints.main, 1_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(ATTACKS)} (default: all)")
    parser.add_argument("--count", type=int, help="how often, for each attack (default: as in the table)")
    options = parser.parse_args()
    if unknown := {*options.names} - {*ATTACKS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    warnings.simplefilter("error")
    succeeded = []
    for name in options.names or ATTACKS:
        attack, count = ATTACKS[name]
        start = time.perf_counter()
        try:
            attack(count if options.count is None else options.count)
        except Exception:
            traceback.print_exc()
            succeeded.append(name)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"these attacks succeeded: {', '.join(succeeded)}" if succeeded else "no attack succeeded")
    return bool(succeeded)


if __name__ == "__main__":
    sys.exit(main())
