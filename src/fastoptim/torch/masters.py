"""Copies of bfloat16 parameters in float32, which keep the changes that bfloat16 would round away."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Masters"]


class Masters:
    """The float32 copies of the bfloat16 parameters of an optimizer.

    Attributes
    ----------
    arrays : dict
        The copies, by the keys of the parameters.
    """

    def __init__(self) -> None:
        self.arrays: dict[Hashable, NDArray[Any]] = {}
        self._copies: dict[Hashable, tuple[Any, Any, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # `adopt` makes the rest, for the tensors of a copy.
        return {"arrays": self.arrays, "_copies": {}}

    def adopt(self, items: Iterable[tuple[Hashable, Any]]) -> None:
        """Make copies of those parameters that are bfloat16 and have none."""
        for key, p in items:
            if p.dtype is torch.bfloat16:
                if key not in self.arrays:
                    self.arrays[key] = p.detach().float().numpy()
                # A version that no parameter has lets `refresh` compare the numbers.
                self._copies[key] = p, torch.from_numpy(self.arrays[key]), -1

    def refresh(self) -> None:
        """Follow changes of the parameters by other code; elements that did not change keep their copies."""
        for key, (p, copy, version) in self._copies.items():
            if p._version != version:
                now = p.detach()
                copy.copy_(torch.where(copy.to(now.dtype) == now, copy, now.float()))
                self._copies[key] = p, copy, p._version

    def store(self, keys: Collection[Hashable]) -> None:
        """Round the copies with these keys to the parameters."""
        with torch.no_grad():
            for key, (p, copy, _) in self._copies.items():
                if key in keys:
                    p.copy_(copy)

    def note(self) -> None:
        """Take the parameters for unchanged as they are now."""
        self._copies = {key: (p, copy, p._version) for key, (p, copy, _) in self._copies.items()}

    def restore(self, saved: dict[Hashable, Any]) -> None:
        """Take over saved copies of parameters that have any."""
        for key, (p, copy, _) in self._copies.items():
            if key in saved:
                copy.copy_(torch.from_numpy(np.asarray(saved[key])))
                # What was loaded into the parameters in the meantime counts as a change.
                self._copies[key] = p, copy, -1
