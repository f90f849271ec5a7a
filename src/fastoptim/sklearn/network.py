"""The network of the estimators for scikit-learn."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastoptim.kernels.passes import weighted
from fastoptim.network.multilayer import MultiLayerNet
from fastoptim.parameters import FlatDict

__all__ = ["Network"]


class Network(MultiLayerNet):
    """A network with scikit-learn's initial weights and losses."""

    def __init__(self, sizes: list[int], activation: str, dtype: DTypeLike, random: np.random.RandomState) -> None:
        super().__init__(sizes[0], sizes[1:-1], sizes[-1], activation, 1.0, dtype=dtype, seed=0)
        factor = 6 if activation == "relu" else 2
        for k, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            # Glorot and Bengio (2010), eq. 16; scikit-learn draws biases in the same way.
            bound = np.sqrt(factor / (inputs + outputs))
            self.params[f"W{k}"] = random.uniform(-bound, bound, (inputs, outputs))
            self.params[f"b{k}"] = random.uniform(-bound, bound, outputs)

    def loss_and_gradient(
        self, x: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any], kind: int, alpha: float, out: FlatDict
    ) -> float:
        """Return the loss of a batch, and write its gradient to ``out``."""
        total, params = float(weights.sum()), self.params.flat
        # As in scikit-learn, the weight decay is divided by the sum of the weights of the rows.
        decay, losses = alpha / total, np.empty(len(x))
        self._runner.run(
            kind,
            x,
            params,
            out=out.flat,
            targets=np.ascontiguousarray(targets, self.dtype),
            losses=losses,
            shares=(weights / total).astype(self.dtype),
            decay=decay,
            compare=weighted,
        )
        loss = float(np.add.reduce(losses))
        return loss + self._runner.penalty(params, decay) if decay else loss
