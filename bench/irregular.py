"""Our optimizers and those of the notes, set up for the irregular cases."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

import fastoptim as fo

from . import notes
from .cases import Irregular
from .peers import OURS, limited
from .timing import Contestant

__all__ = ["OPTIMIZERS", "contestants"]

OPTIMIZERS = {OURS: lambda rule: getattr(fo, rule)(), "NumPy": lambda rule: notes.RULES[rule]()}


def _contestant(case: Irregular, library: str) -> Contestant:
    update, turns = OPTIMIZERS[library](case.rule).update, case.turns()
    params = dict(turns[0][0])

    def step() -> None:
        for own_params, grads in turns:
            update(own_params, grads)

    def rebinding_step() -> None:
        for arrays, grads in turns:
            params.update(arrays)
            update(params, grads)

    return Contestant(
        rebinding_step if case.rebinds else step,
        result=lambda: [p for own_params, _ in turns for p in own_params.values()],
        limit=partial(limited, case.threads),
        updates=len(turns),
    )


def contestants(case: Irregular, names: Iterable[str] = OPTIMIZERS) -> dict[str, Contestant]:
    """Set up ours and the notes' code, and return those of some names, after a few steps of both.

    Raises
    ------
    AssertionError
        If a parameter of ours differs by more than a thousandth of the largest change and four units in the last
        place, or if one did not change.
    """
    ready = {library: _contestant(case, library) for library in OPTIMIZERS}
    before = [np.array(p) for p in ready["NumPy"].result()]
    for contestant in ready.values():
        with contestant.limit():
            for _ in range(3):
                contestant.step()
    for old, ref, comp in zip(before, *(ready[library].result() for library in ("NumPy", OURS)), strict=True):
        assert np.any(ref != old)
        tolerance = 1e-3 * abs(ref - old).max() + 4 * np.spacing(abs(old).max())
        np.testing.assert_allclose(np.asarray(comp, float), np.asarray(ref, float), rtol=0, atol=float(tolerance))
    return {name: ready[name] for name in names}
