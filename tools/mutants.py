"""Mutation testing: alter one operation of the library at a time, and list the mutants that no test detects.

Mutants run as Python (NUMBA_DISABLE_JIT=1), each in a child forked from a process that has imported the slow
dependencies. Survivors in files that are about compiling run once more, compiled. Mutants that are equivalent to the
original are listed in EXPLAINED, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from itertools import islice
from pathlib import Path

os.environ["NUMBA_DISABLE_JIT"] = "1"
ROOT = Path(__file__).parent.parent
FOLDER = tempfile.TemporaryDirectory()
# The tests of each file, the fast ones and those most likely to fail first.
QUICK = ["kernels", "custom_rules", "parameters", "all_or_nothing"]
SLOW = ["fuzz", "nonfinite", "errors", "values"]
TESTS = {
    "src/fastoptim/optimizer.py": [*QUICK, "hyperparameters", "turns", "checkpoints", *SLOW],
    "src/fastoptim/plan.py": [*QUICK, *SLOW],
    "src/fastoptim/optimizers/sgd.py": ["hyperparameters", "optimizers", "nonfinite"],
    "src/fastoptim/optimizers/adaptive.py": ["hyperparameters", "optimizers", "nonfinite"],
    "src/fastoptim/optimizers/adam.py": ["hyperparameters", "optimizers", "nonfinite"],
    "kernels/rules.py": ["optimizers"],
    "kernels/fuse.py": ["kernels", "custom_rules"],
    "kernels/dense.py": ["network"],
    "kernels/losses.py": ["network"],
}
COMPILED = {"kernels/fuse.py": ["custom_rules", "fingerprint", "kernels", "cache"]}
PATIENCE = 3
"""A mutant counts as killed if its tests take this many times as long as without a mutant."""

# File → mutant, as it is printed → why it is equivalent to the original.
NO_DECAY = "Without weight decay zero is added, which changes nothing; a negative decay is an error."
START = "START is zero."
ONE = "Only the first word is used, however many are read."
FIRST_OF_ONE = "There is only one element, or only the first is used."
EMPTY = "Only ranges and rows without elements differ, and no loop runs over them."
NEXT = "while integers(row + width + 8 * START, 1)[0] <= start < stop: | "
FIRST = "first = integers(row + 8 * START, 1)[0] | "
LAST = "last = min(stop, integers(row + width + 8 * START, 1)[0]) | "
VALUES = "values = scalars(T, integers(row + 8 * VALUE, 1)[0], N_SCALARS) | "
CHAIN = "integers(row + width + 8 * START, 1)[0] <= start < stop → integers(row + width + 8 * START, 1)[0]"
NAME = 'names = {**names, "__name__": __name__} | '
OTHER_PROCESS = "Only processes that a test starts detect it, and they import the original file. By hand, a test fails."
EXPLAINED: dict[str, dict[str, str]] = {
    "kernels/fuse.py": {
        f"{NAME}names = {{**names, '__name__': __name__}} → pass": OTHER_PROCESS,
        f"{NAME}'__name__' → '__name___'": OTHER_PROCESS,
        **{f"{line}{change}": ONE for line in (VALUES, NEXT, FIRST, LAST) for change in ("1 → 2", "0 → -1")},
        **{f"{line}{change}": START for line in (NEXT, FIRST, LAST) for change in ("8 → 9", "8 → 7")},
        f"{NEXT}row + width + 8 * START → row + width - 8 * START": START,
        f"{FIRST}row + 8 * START → row - 8 * START": START,
        f"{LAST}row + width + 8 * START → row + width - 8 * START": START,
        f"{NEXT}{CHAIN} < start < stop": EMPTY,
        f"{NEXT}{CHAIN} <= start <= stop": EMPTY,
    },
    "src/fastoptim/plan.py": {
        "first = entries[0] | 0 → -1": "All entries of one kernel have the same dtype and number of slots.",
        "self.table = words[3:].reshape(-1, width) | 1 → 2": "Any negative number is inferred from the size.",
        "self.found, self.done = words[1:2], words[2:3] | 2 → 3": FIRST_OF_ONE,
        "self.found, self.done = words[1:2], words[2:3] | 3 → 4": FIRST_OF_ONE,
        "self.found[0] = 0 | 0 → -1": FIRST_OF_ONE,
        "self.done[0] = 0  # That was the search, not the step. | 0 → -1": FIRST_OF_ONE,
        "return bool(self.found[0]) | 0 → -1": FIRST_OF_ONE,
        "get: Any = operator.itemgetter(*keys) if len(keys) > 1 else lambda arrays: (arrays[keys[0]],) | 0 → -1": (
            FIRST_OF_ONE
        ),
        "strides = entry.slots[0].strides if entry.slots else packed_strides(entry.p) | 0 → -1": (
            "All slots of one parameter have the same strides."
        ),
        "if task is not None and (task.done[0] or not isinstance(task, AllOrNothing)): | 0 → -1": FIRST_OF_ONE,
        "for unfinished in [] if task.done[0] else [task], tasks: | 0 → -1": FIRST_OF_ONE,
        "only = self._tasks[0] if len(self._tasks) == 1 else None | 0 → -1": FIRST_OF_ONE,
        "return renewals[0] if len(renewals) == 1 else renew | 0 → -1": FIRST_OF_ONE,
    },
    "src/fastoptim/optimizer.py": {
        "del turn[0] | 0 → -1": FIRST_OF_ONE,
        "if not plan.done[0]: | 0 → -1": FIRST_OF_ONE,
    },
    "kernels/losses.py": {
        "for j in range(1, scores.size): | 1 → 0": "The first score is compared with itself.",
    },
    "kernels/dense.py": {
        "row[j] = zero if value <= zero else value | value <= zero → value < zero": "Zero maps to zero either way.",
        "below = layers[max(k - 1, 0)] | 0 → -1": "Nothing is below the first layer, and this value is not used.",
        "if decay != 0: | 0 → -1": NO_DECAY,
    },
}

# fmt: off
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}
# fmt: on


def changed(node: ast.AST, **fields: object) -> ast.AST:
    """Return a copy of a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def mutations(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the mutations of one node."""
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in OPERATORS:
        yield changed(node, op=OPERATORS[type(node.op)]())
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            yield changed(node, ops=[*node.ops[:k], OPERATORS[type(op)](), *node.ops[k + 1 :]])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield changed(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield changed(node, value=not node.value)
        elif isinstance(node.value, int | float):
            yield changed(node, value=node.value + 1)
            yield changed(node, value=node.value - 1)
        elif isinstance(node.value, str):
            yield changed(node, value=f"{node.value}_")
    if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield changed(node, value=ast.Constant(None))
    if isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Assign | ast.For):
        yield ast.Pass()


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but docstrings, types, decorators, error messages and exported names."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list"} or (isinstance(node, ast.Raise) and name == "exc"):
            continue
        for child in value if isinstance(value, list) else [value]:
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            name_assigned = ast.unparse(child.targets[0]) if isinstance(child, ast.Assign) else ""
            names_a_type = re.fullmatch("[A-Z]+[a-z]+", name_assigned)
            is_unseen = is_docstring or names_a_type or name_assigned == "__all__" or isinstance(child, ast.JoinedStr)
            if isinstance(child, ast.AST) and not is_unseen:
                yield from walk(child)


def mutants(source: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield the description and the tree of each mutant of a module."""
    for index, original in enumerate(walk(ast.parse(source))):
        for k, _ in enumerate(mutations(original)):
            tree = ast.parse(source)
            old = list(walk(tree))[index]
            before, new = ast.unparse(old).splitlines()[0], list(mutations(old))[k]
            for parent in ast.walk(tree):
                for name, value in ast.iter_fields(parent):
                    if value is old:
                        setattr(parent, name, new)
                    elif isinstance(value, list):
                        value[:] = [new if item is old else item for item in value]
            ast.copy_location(new, old)
            after = ast.unparse(new).splitlines()[0]
            yield f"{source.splitlines()[old.lineno - 1].strip()} | {before} → {after}", ast.fix_missing_locations(tree)


def test(path: Path, tree: ast.Module, tests: list[str], seconds: int, compiled: bool) -> None:
    """Run tests with one module replaced; exit with their result, or be killed after some seconds."""
    signal.alarm(seconds)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    if compiled:
        del os.environ["NUMBA_DISABLE_JIT"]
        # The cache is keyed by the files on disk, which do not show the mutation.
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=FOLDER.name)
    get_code: Callable[..., object] = SourceFileLoader.get_code

    def altered(loader: SourceFileLoader, name: str) -> object:
        is_it = Path(loader.get_filename(name)).resolve() == path
        return compile(tree, str(path), "exec") if is_it else get_code(loader, name)

    SourceFileLoader.get_code = altered  # type: ignore[method-assign, assignment]
    import hypothesis
    import pytest

    # One failure suffices, so Hypothesis need not shrink it.
    hypothesis.settings.register_profile("mutants", phases=[hypothesis.Phase.generate], derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    code = 1
    try:
        options = ["-qx", "--assert=plain", "--tb=no", "-p", "no:cacheprovider"]
        # Tests of sizes and threads concern compiled code only, and are slow in Python.
        options += [] if compiled else ["-m", "not compiled", "-k", "not threads and not thousand and not many_steps"]
        code = pytest.main([*options, *[f"tests/test_{name}.py" for name in tests]])
    finally:
        os._exit(int(code))


def left(file: str, made: list[tuple[str, ast.Module]], n_jobs: int, compiled: bool) -> list[tuple[str, ast.Module]]:
    """Return the mutants of a file that survive; print them if no compiled run follows."""
    path, survived, begin = (ROOT / file).resolve(), [], time.perf_counter()
    tests = (COMPILED if compiled else TESTS)[file]
    is_last, explained = compiled or file not in COMPILED, EXPLAINED.get(file, {})
    running: dict[int, tuple[str, ast.Module]] = {}

    def start(mutant: tuple[str, ast.Module], seconds: int) -> None:
        if (pid := os.fork()) == 0:
            test(path, mutant[1], tests, seconds, compiled)
        running[pid] = mutant

    def wait() -> bool:
        pid, status = os.wait()
        mutant = running.pop(pid)
        if status == 0 and mutant[0]:
            survived.append(mutant)
            if is_last and mutant[0] not in explained:
                print(f"SURVIVED {file}: {mutant[0]}", flush=True)
        return status == 0

    start(("", ast.parse(path.read_text())), 0)
    if not wait():
        raise SystemExit(f"{file}: its tests fail without a mutant")
    seconds = 10 + int(PATIENCE * (time.perf_counter() - begin))
    for mutant in made:
        while len(running) >= n_jobs:
            wait()
        start(mutant, seconds)
    while running:
        wait()
    return survived


def survivors(file: str, n_jobs: int, part: list[int]) -> list[str]:
    """Run the mutants of one file, or a part of them; print and return the descriptions of those that survive."""
    begin, explained = time.perf_counter(), EXPLAINED.get(file, {})
    made = list(islice(mutants((ROOT / file).read_text()), part[0], None, part[1]))
    survived = left(file, made, n_jobs, compiled=False)
    found = [mutant for mutant in survived if mutant[0] not in explained]
    n_explained = len(survived) - len(found)
    if file in COMPILED and found:
        found = left(file, found, n_jobs, compiled=True)
    n_killed, took = len(made) - n_explained - len(found), time.perf_counter() - begin
    print(f"{file}: {len(made)} mutants, {n_killed} killed, {n_explained} explained, {took:.0f} s", flush=True)
    return [text for text, _ in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", default=list(TESTS))
    parser.add_argument(
        "--part", type=int, nargs=2, default=[0, 1], metavar=("K", "N"), help="run every Nth mutant from the Kth on"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    os.chdir(ROOT)
    # The import is slow and not mutated, so the children inherit it.
    import scipy.linalg  # noqa: F401

    found = [survivors(file, options.jobs, options.part) for file in options.files]
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
