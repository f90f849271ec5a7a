"""Write the tables of docs/libraries.md, or those that are named: ``python tools/libraries.py differences optax``.

Distances are measured between optimizers of this package. What equals what is in tests/libraries.py, and is measured
against the installed libraries; tables of the others are left as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import libraries
from fastoptim import family, optimizers

PAGE = Path(__file__).parent.parent / "docs" / "libraries.md"

DIFFERENCES = [
    ("Momentum", 'like="torch"', 'like="keras"', "the velocity of torch and optax has no learning rate in it"),
    ("AdaGrad", 'like="torch"', 'like="optax"', "optax and Keras begin with 0.1, and add ε inside the root"),
    ("RMSprop", 'decay_rate=0.9, eps=1e-8, like="torch"', 'like="optax"', "optax and Keras add ε inside the root"),
    ("Adam", 'eps=1e-7, like="torch"', 'eps=1e-7, like="keras"', "torch and optax add ε to the corrected root"),
    ("AMSGrad", 'like="torch"', 'like="optax"', "optax keeps the largest corrected `v`, the others the largest `v`"),
    ("NAdam", 'like="torch"', 'like="optax"', "in optax the momentum has no schedule"),
    ("NAdam", 'eps=1e-8, like="torch"', 'eps=1e-8, like="keras"', "ψ is 0.004 in torch and 1 in Keras"),
    ("RAdam", 'like="torch"', 'like="optax"', "optax adds ε to the corrected root"),
    ("AdaMax", 'eps=1e-7, like="torch"', 'eps=1e-7, like="keras"', "Keras adds ε where it divides by `u`"),
    ("AdaBelief", 'like="optax"', 'like="timm"', "timm rectifies it, as `RAdam`"),
    ("ADOPT", 'like="optax"', 'like="timm"', "the exponent of the bound is 0.333 in timm, 1/4 in the paper and optax"),
    (
        "LARS",
        'weight_decay=0.01, like="paper"',
        'weight_decay=0.01, like="optax"',
        "optax takes the norm after the decay",
    ),
    (
        "Muon",
        'weight_decay=0.0, like="torch"',
        'weight_decay=0.0, like="optax"',
        "optax has weights of shape (inputs, outputs), and corrects the bias of both means; other arrays are NAdam's",
    ),
]
"""A rule, two sets of keywords, and what differs."""


ORDER = ["notes", "paper", "torch", "optax", "keras", "timm"]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    header = list(header)
    yield from ("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def power(number: float) -> str:
    """Return a number as one digit and a power of ten, such as 2e-6."""
    return f"{number:.0e}".replace("e-0", "e-").replace("e+00", "").replace("e+0", "e")


def code(text: str) -> str:
    return f"`{text}`"


def distance(one: str, other: str, scale: float) -> float:
    """Return how far apart two optimizers end, over how far the one that is nearer to the start has gone."""
    rng = np.random.default_rng(0)
    grads = {key: scale * rng.standard_normal((libraries.STEPS, *s)) for key, s in libraries.SHAPES.items()}
    cases = [libraries.Case(text, "") for text in (one, other)]
    ends = [libraries.run_ours(case, grads)[-1] for case in cases]
    start = libraries.vector(libraries.parameters(cases[0]).values())
    return float(np.linalg.norm(ends[0] - ends[1]) / min(np.linalg.norm(end - start) for end in ends))


def differences() -> Iterator[str]:
    def rows() -> Iterator[list[str]]:
        for rule, *keywords, what in DIFFERENCES:
            pair = [f"{rule}(0.01, {each})" for each in keywords]
            yield [*map(code, pair), what, *(power(distance(*pair, scale)) for scale in (1, 1e-7))]

    yield from table(["one", "other", "what differs", "gradients of 1", "of 1e-7"], rows())


def defaults() -> Iterator[str]:
    own = {name: getattr(optimizers, name).defaults for name in family.FAMILY}
    columns = sorted({library for each in own.values() for library in each}, key=ORDER.index)
    rows = (
        [
            code(name),
            *(
                ", ".join(f"{key} {value:g}".replace("e-0", "e-") for key, value in each.get(it, {}).items()) or "–"
                for it in columns
            ),
        ]
        for name, each in own.items()
        if each
    )
    yield from table(["", *columns], rows)


def parity(library: str) -> Iterator[str]:
    command = [sys.executable, libraries.__file__, library]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    cases = [*libraries.CASES[library], *libraries.SCHEDULES.get(library, [])]
    rows = (
        [code(case.ours), ", ".join(map(code, case.calls)), power(worst)]
        for case, (_, _, worst, _) in zip(cases, map(json.loads, lines), strict=True)
    )
    yield from table(["fastoptim", f"{library} {version(library).partition('+')[0]}", "worst difference"], rows)


SECTIONS: dict[str, Callable[[], Iterator[str]]] = {
    "differences": differences,
    "defaults": defaults,
    **{library: partial(parity, library) for library in libraries.LIBRARIES},
}
"""The marker of each table in the page, and what writes it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"some of {', '.join(SECTIONS)} (default: all)")
    for name in parser.parse_args().sections or SECTIONS:
        if missing := name in libraries.LIBRARIES and libraries.missing(name):
            print(f"{name} is left as it is: {' and '.join(missing)} not installed")
            continue
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        lines = "\n".join(["", *SECTIONS[name](), "", ""])
        text, n = pattern.subn(lambda found, lines=lines: found[1] + lines + found[2], PAGE.read_text(encoding="utf-8"))
        assert n == 1, name
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
