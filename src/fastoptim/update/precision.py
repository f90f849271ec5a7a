"""Which state is stored as bfloat16, and what it is rounded with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

import numpy as np

from fastoptim.dtypes import RANDOM, bfloat16, is_bfloat16
from fastoptim.kernels.bfloat16 import BFLOAT16, RANDOM_BFLOAT16, Stored
from fastoptim.kernels.jit import DISABLED
from fastoptim.parameters import FlatDict
from fastoptim.update.layout import address
from fastoptim.update.validate import Parameter

__all__ = ["Dice", "Precision", "check_kernels", "check_precision", "precision_of"]


@dataclass(frozen=True)
class Precision:
    """The dtypes of the state of one optimizer, where they are not those of the parameters."""

    stored: Mapping[str, Stored]
    """The slots that are stored as bfloat16 beside any parameters, and how they are rounded."""
    wide: frozenset[str]
    """The slots that are float32 beside parameters of bfloat16."""

    def dtype(self, slot: str, of_parameter: np.dtype[Any]) -> np.dtype[Any]:
        """Return the dtype of a slot."""
        if slot in self.stored:
            return bfloat16()
        return np.dtype(np.float32) if slot in self.wide and is_bfloat16(of_parameter) else of_parameter

    def concerns(self, parameter: Parameter) -> bool:
        """Tell whether anything of a parameter is to be stored as bfloat16."""
        return bool(self.stored) or any(map(is_bfloat16, parameter.dtypes))


def precision_of(
    state_dtype: str | None, slots: Sequence[str], of_transforms: Collection[str], initial: Mapping[str, Any]
) -> Precision:
    """Return the dtypes of the state of an optimizer.

    State that begins as a copy of the parameters, and averages and sums that transforms keep, would lose most of their
    changes if they were rounded to bfloat16 after each.

    Parameters
    ----------
    state_dtype : str or None
        That of the optimizer.
    slots : sequence of str
        All of its slots.
    of_transforms : collection of str
        Those of transforms.
    initial : mapping
        What new state begins with, ``"p"`` for a copy of the parameters.
    """
    wide = frozenset(slot for slot in slots if slot in of_transforms or initial.get(slot) == "p")
    kind = RANDOM_BFLOAT16 if state_dtype == RANDOM else BFLOAT16
    return Precision({slot: kind for slot in slots if state_dtype is not None and slot not in wide}, wide)


def check_precision(parameters: Iterable[Parameter], precision: Precision) -> None:
    """Raise `TypeError` for the first parameter that cannot be updated with bfloat16."""
    for each in parameters:
        if not precision.concerns(each):
            continue
        if each.slot_shapes is not None:
            what = "its state" if precision.stored else "its parameter and its gradient"
            raise TypeError(
                f"{each.key!r} is updated as a whole, by NumPy code, so {what} cannot be bfloat16; expected "
                f"{'state_dtype=None' if precision.stored else 'float32'}"
            )
        why = "with state_dtype" if precision.stored else "beside bfloat16"
        for what, array in (("parameter", each.p), ("the gradient of", each.g)):
            if not (is_bfloat16(array.dtype) or array.dtype == np.float32):
                raise TypeError(
                    f"{what} {each.key!r} is of dtype {array.dtype}, expected float32 or bfloat16 {why}; convert it "
                    "with .astype(np.float32)"
                )


def check_kernels(parameters: Iterable[Parameter]) -> None:
    """Raise `TypeError` for the first parameter with bfloat16 that no kernel updates."""
    for each in parameters:
        if each.kernel is None and any(map(is_bfloat16, each.dtypes)):
            if DISABLED:
                why = "NUMBA_DISABLE_JIT is set"
            elif each.rows is not None:
                why = "its gradient is Rows but the rows of its state do not lie one after the other"
            else:
                why = "its memory overlaps itself, its gradient or other parameters; pass a copy"
            raise TypeError(f"parameter {each.key!r} or its state is bfloat16, which needs a kernel, but {why}")


class Dice:
    """What state is rounded with at random: the numbers that kernels read, and the keys of each step.

    The noise of an element is a function of the number of the element in its slot, the slot, the step and the seed, so
    that it depends neither on threads nor on where arrays lie.

    Parameters
    ----------
    base : int
        The address of the element of the first slot that has the number 0.
    n_slots : int
        Number of slots that are rounded at random. Two share the 32 bits of a hash.

    Attributes
    ----------
    words : ndarray
        See `fastoptim.kernels.table`.
    """

    def __init__(self, base: int, n_slots: int) -> None:
        self.words = np.zeros(1 + (n_slots + 1) // 2, np.intp)
        self.words[0] = base

    @classmethod
    def of(cls, state: Mapping[str, FlatDict], precision: Precision, first: int = 0) -> Self | None:
        """Return what a state is rounded with, or None if none of it is rounded at random.

        ``first`` is the number of the first element, which is not 0 in a part of a state.
        """
        slots = [slot for slot, kind in precision.stored.items() if kind is RANDOM_BFLOAT16]
        # All slots have their elements in one order.
        buffer = state[slots[0]].buffers.get(bfloat16()) if slots else None
        return None if buffer is None else cls(address(buffer) - first * buffer.itemsize, len(slots))

    def enter_keys(self, seed: int, step: int) -> None:
        """Enter the keys of a step."""
        keys = self.words[1:]
        for k in range(len(keys)):
            digest = blake2b(f"{seed} {step} {k}".encode(), digest_size=8).digest()
            keys[k] = int.from_bytes(digest, "little", signed=True)
