"""Time this working tree in turns with another commit, for example before and after a change to the engine.

Both versions are installed into temporary folders and run in processes of their own, with the same Python and the same
dependencies. Only one of them measures at a time, and they take turns many times a second. Updates by Adam on float32
arrays, and `gradient` and `loss` of networks, are timed by CPU time of the thread where one thread works, else by the
wall clock, which needs a quiet machine.
The first update is timed by CPU time of new processes that find their compiled code in the cache.

A ratio is this tree's median time by the commit's: below 1, this tree is faster. Beside it is the range of the ratios
of single pairs of processes, because a process may be some percent faster or slower for as long as it lives, by where
its memory lies. The figures are kept in .benchmarks/against.json, from which `make targets` reads them, beside those of
other cases between the same two commits.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
THIS = "this"
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
BLOCK_S, FIRST_WARM_UP_S, WARM_UP_S, PAUSE_S = 0.01, 0.1, 0.05, 0.06


# In the child


def serve() -> None:
    """Time a block of calls for each line of standard input, which describes a case; answer with the seconds."""
    import numpy as np

    # No limit holds for a BLAS that is loaded later.
    import scipy.linalg.cython_blas  # noqa: F401
    from threadpoolctl import ThreadpoolController

    import fastoptim as fo

    blas = ThreadpoolController()
    print(json.dumps(fo.__file__), flush=True)
    rng = np.random.default_rng(0)
    gc.disable()

    def draw(shapes: dict[str, list[int]]) -> dict[str, Any]:
        return {key: rng.standard_normal(shape, np.float32) for key, shape in shapes.items()}

    def updates(layout: str, shapes: dict[str, list[int]]) -> list[Callable[[], Any]]:
        pack = fo.flatten if layout == "flat" else dict
        # Separate gradients are other arrays at each step, as a network without a flat buffer makes them.
        grads = [pack(draw(shapes)) for _ in range(1 if layout == "flat" else 2)]
        params, update = pack(draw(shapes)), fo.Adam().update
        return [partial(update, params, g) for g in grads]

    def products(method: str, widths: list[int], batch: int, density: float) -> list[Callable[[], Any]]:
        network = fo.MultiLayerNet(widths[0], widths[1:-1], widths[-1], seed=0)
        x = rng.standard_normal((batch, widths[0]), np.float32)
        x *= rng.random(x.shape) < density
        return [partial(getattr(network, method), x, rng.integers(widths[-1], size=batch))]

    def warm_up(seconds: float) -> float:
        end, last = time.perf_counter() + seconds, block(1)
        while time.perf_counter() < end:
            last = block(20)
        return last

    def block(n: int) -> float:
        start = clock()
        for _ in range(n):
            for call in calls:
                call()
        return (clock() - start) / n / len(calls)

    ready: dict[str, Any] = {}
    for line in sys.stdin:
        case = json.loads(line)
        clock = time.thread_time if case["threads"] == 1 else time.perf_counter
        with fo.num_threads(case["threads"]), blas.limit(limits=case["threads"], user_api="blas"):
            if case["id"] not in ready:
                calls = (products if "widths" in case["what"] else updates)(**case["what"])
                block(20)
                seconds = warm_up(FIRST_WARM_UP_S)
                ready[case["id"]] = calls, max(1, int(BLOCK_S / seconds / len(calls)))
            calls, n = ready[case["id"]]
            if case["threads"] != 1:
                # The threads of OpenBLAS spin for 27 ms after the block of the other process. A loop of training does
                # not pause: without a warm-up, threads that wake, and caches that are cold, would be timed instead.
                time.sleep(PAUSE_S)
                warm_up(WARM_UP_S)
            block(1 + n // 10)
            print(block(n), flush=True)


# In the parent


def install(source: Path, target: Path) -> None:
    """Install the package from a copy of a source tree, which leaves no build folder in the tree."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "source"
        copy.mkdir()
        for name in ("src", "kernels"):
            shutil.copytree(source / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for path in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(source / path, copy)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(copy)]
        subprocess.run(command, check=True)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def install_both(rev: str, folder: Path) -> dict[str, dict[str, str]]:
    """Install this tree and a commit; return the environment variables of the processes of each."""
    tree = folder / "tree"
    git("worktree", "add", "--quiet", "--detach", str(tree), rev)
    try:
        install(tree, folder / rev)
    finally:
        git("worktree", "remove", "--force", str(tree))
    install(ROOT, folder / THIS)
    environments = {}
    for name in (THIS, rev):
        cache = str(folder / f"cache of {name}")
        environments[name] = {
            **ENV,
            "PYTHONPATH": str(folder / name),
            "NUMBA_CACHE_DIR": cache,
            "XDG_CACHE_HOME": cache,
        }
    return environments


def start_children(environments: dict[str, dict[str, str]]) -> dict[str, subprocess.Popen[str]]:
    """Start one process of each version, and check that each imports its own version."""
    children = {}
    for name, env in environments.items():
        child = subprocess.Popen(
            [sys.executable, __file__, "--child"], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        children[name] = child
        imported = json.loads(child.stdout.readline())
        if not Path(imported).is_relative_to(env["PYTHONPATH"]):
            raise RuntimeError(f"the process of {name} imported {imported}, expected it below {env['PYTHONPATH']}")
    return children


def ask(child: subprocess.Popen[str], case: dict[str, Any]) -> float:
    print(json.dumps(case), file=child.stdin, flush=True)
    return float(child.stdout.readline())


def network_cases() -> list[dict[str, Any]]:
    """Return the cases of networks as the children get them."""
    from bench.cases import networks
    from numba import config

    cases = []
    for case in networks():
        if case.method != "predict":
            what = {name: getattr(case, name) for name in ("method", "widths", "batch", "density")}
            name = f"{replace(case, threads=None).id}, {'one thread' if case.threads else 'all threads'}"
            cases.append({"id": name, "what": what, "threads": case.threads or config.NUMBA_NUM_THREADS})
    return cases


def update_cases() -> list[dict[str, Any]]:
    """Return the cases of updates as the children get them."""
    from bench.cases import NOTES, Update
    from numba import config

    cases = []
    for size in (10, 1_000, NOTES, 1_000_000):
        for threads in (1,) if size < NOTES else (1, config.NUMBA_NUM_THREADS):
            for layout in ("flat", "separate"):
                name = f"Adam {size:,} {layout}, {'one thread' if threads == 1 else 'all threads'}"
                shapes = Update("Adam", size).shapes
                cases.append({"id": name, "what": {"shapes": shapes, "layout": layout}, "threads": threads})
    return cases


def time_calls(
    cases: list[dict[str, Any]], environments: dict[str, dict[str, str]], pairs: int, rounds: int
) -> dict[str, dict[str, list[list[float]]]]:
    """Return for each case and version the seconds of a call, one list for each process."""
    times = {case["id"]: {name: [] for name in environments} for case in cases}
    for pair in range(pairs if cases else 0):
        print(f"pair {pair + 1} of {pairs}", file=sys.stderr, flush=True)
        children = start_children(environments)
        order = list(children)
        for case in cases:
            samples = {name: [] for name in environments}
            for _ in range(rounds):
                for name in order:
                    samples[name].append(ask(children[name], case))
                order.reverse()
            for name, each in samples.items():
                times[case["id"]][name].append(each)
        for child in children.values():
            child.communicate()
    return times


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def time_first_updates(environments: dict[str, dict[str, str]], runs: int) -> dict[str, dict[str, list[list[float]]]]:
    """Return the seconds of processes that update the notes' ten arrays once, by CPU time and by the wall clock."""
    from bench.processes import FULL, SCRIPTS

    command = [sys.executable, "-c", SCRIPTS["first update"][FULL].code]
    by_cpu, by_wall = ({name: [] for name in environments} for _ in range(2))
    order = list(environments)
    for run in range(runs + 1):
        for name in order:
            cpu, wall = cpu_of_children(), time.perf_counter()
            subprocess.run(command, env=environments[name], check=True)
            if run > 0:  # The first run fills the cache.
                by_cpu[name].append([cpu_of_children() - cpu])
                by_wall[name].append([time.perf_counter() - wall])
        order.reverse()
    return {"first update, CPU time": by_cpu, "first update, wall clock": by_wall}


def show(case: str, times: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Print a line of the table, and return it for the file."""
    from bench.results import duration

    this, other = (median(t for process in processes for t in process) for processes in times.values())
    pairs = [median(a) / median(b) for a, b in zip(*times.values(), strict=True)]
    print(
        f"{case:66} {duration(this):>9} {duration(other):>9} {this / other:>7.3f}  {min(pairs):.3f} to {max(pairs):.3f}"
    )
    return {"this": this, "other": other, "pairs": pairs}


def main() -> None:
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rev", help="commit to compare with, for example edaf04f")
    parser.add_argument("--cases", nargs="+", default=[""], metavar="TEXT", help="only cases with a text in their name")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of processes (default: 15)")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each pair (default: 10)")
    parser.add_argument("--runs", type=int, default=50, help="processes for the first update (default: 50)")
    options = parser.parse_args()
    rev = git("rev-parse", "--short", f"{options.rev}^{{commit}}")
    cases = [case for case in update_cases() + network_cases() if any(text in case["id"] for text in options.cases)]
    with tempfile.TemporaryDirectory() as folder:
        environments = install_both(rev, Path(folder))
        times = time_calls(cases, environments, options.pairs, options.rounds)
        if any(text in "first update" for text in options.cases):
            times.update(time_first_updates(environments, options.runs))
    print(f"{'':66} {'this':>9} {rev:>9} {'ratio':>7}  of single pairs")
    lines = {case: show(case, each) for case, each in times.items()}
    commit = git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain") else "")
    path = ROOT / ".benchmarks" / "against.json"
    path.parent.mkdir(exist_ok=True)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if (before.get("commit"), before.get("rev")) == (commit, rev):
        lines = before["cases"] | lines
    found = {"commit": commit, "rev": rev, "when": f"{datetime.now():%Y-%m-%d %H:%M}", "cases": lines}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--child"] else main()
