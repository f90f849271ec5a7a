"""The notes' comparison of five optimizers in each library, with the same initial weights and batches.

``python -m bench.trainings LIBRARY ITERATIONS`` trains once, like a user's script.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

import naive
from fastoptim.comparison.digits import Data, load_data
from fastoptim.comparison.training import BLOCK, NOTES_FIVE, Comparison, Settings

from .frameworks import COMPILED, optax_optimizer, torch_compiled, torch_optimizer
from .networks import jax_loss, limited, products, torch_loss
from .peers import CEILING, OURS, absent

__all__ = ["NEEDS", "TRAININGS", "data"]

Losses = dict[str, NDArray[Any]]
"""The losses after each iteration, by optimizer."""

_HIDDEN = (100, 100, 100, 100)


@cache
def data(source: str = "auto") -> Data:
    return load_data(source)


def _networks(data: Data) -> dict[str, naive.MultiLayerNet]:
    def network() -> naive.MultiLayerNet:
        np.random.seed(0)
        return naive.MultiLayerNet(data.x_train.shape[1], _HIDDEN, 10)

    return {name: network() for name in NOTES_FIVE}


def _batches(data: Data, iterations: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the same batches as `fastoptim.comparison.training`, so that losses can be compared between libraries."""
    for start in range(0, iterations, BLOCK):
        rng = np.random.default_rng([0, start // BLOCK])
        for batch in rng.integers(len(data.x_train), size=(BLOCK, 128))[: iterations - start]:
            yield data.x_train[batch], data.t_train[batch]


def _fastoptim(data: Data, iterations: int) -> Losses:
    comparison = Comparison(data, Settings(iterations, hidden=_HIDDEN))
    comparison.train()
    return {run.name: np.array(run.losses) for run in comparison.runs}


def _numpy(data: Data, iterations: int) -> Losses:
    networks, optimizers = _networks(data), {name: naive.RULES[name]() for name in NOTES_FIVE}
    losses: dict[str, list[float]] = {name: [] for name in NOTES_FIVE}
    for x, t in _batches(data, iterations):
        for name, network in networks.items():
            optimizers[name].update(network.params, network.gradient(x, t))
            losses[name].append(network.loss(x, t))
    return {name: np.array(curve) for name, curve in losses.items()}


def _torch(data: Data, iterations: int, loss_of: Callable[..., Any] = torch_loss) -> Losses:
    import torch

    runs = {}
    for name, network in _networks(data).items():
        params = {key: torch.nn.Parameter(torch.tensor(p, dtype=torch.float32)) for key, p in network.params.items()}
        # torch has no fused RMSprop.
        how = {} if name == "RMSprop" else {"fused": True}
        runs[name] = (params, torch_optimizer(name, list(params.values()), **how))
    losses: dict[str, list[float]] = {name: [] for name in NOTES_FIVE}
    for x, t in _batches(data, iterations):
        x, t = torch.from_numpy(x), torch.from_numpy(t).long()
        for name, (params, optimizer) in runs.items():
            optimizer.zero_grad()
            loss_of(params, x, t).backward()
            optimizer.step()
            with torch.no_grad():
                losses[name].append(loss_of(params, x, t).item())
    return {name: np.array(curve) for name, curve in losses.items()}


# The cache keeps compilation out of all trainings but the first.
_compiled_loss = cache(partial(torch_compiled, torch_loss))


def _torch_compiled(data: Data, iterations: int) -> Losses:
    return _torch(data, iterations, _compiled_loss())


@cache
def _jax_step(name: str) -> Callable[..., Any]:
    import jax
    import optax

    optimizer = optax_optimizer(name)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, x, t):
        change, state = optimizer.update(jax.grad(jax_loss)(params, x, t), state, params)
        params = optax.apply_updates(params, change)
        return params, state, jax_loss(params, x, t)

    return step


def _jax(data: Data, iterations: int) -> Losses:
    import jax

    runs = {}
    for name, network in _networks(data).items():
        params = {key: jax.numpy.array(p, np.float32) for key, p in network.params.items()}
        runs[name] = (params, optax_optimizer(name).init(params))
    losses: dict[str, list[Any]] = {name: [] for name in NOTES_FIVE}
    for x, t in _batches(data, iterations):
        for name, (params, state) in runs.items():
            params, state, loss = _jax_step(name)(params, state, x, t)
            runs[name] = params, state
            # The conversion to a number waits for JAX, so it is left to the end.
            losses[name].append(loss)
    return {name: np.array(jax.device_get(curve)) for name, curve in losses.items()}


_Steps = list[tuple[Callable[[], None], Callable[[], None]]]

_STEPS: dict[tuple[int, int], _Steps] = {}
"""The products of networks after a training, by the identity of the data, which `data` keeps, and the iterations."""


def _products_after(data: Data, iterations: int) -> _Steps:
    """Return for each network its products in `gradient` and `loss`, of a batch after the training.

    ReLU passes less then than at the start, so these products are the least.
    """
    comparison = Comparison(data, Settings(iterations, hidden=_HIDDEN))
    comparison.train()
    x, _ = next(_batches(data, 1))
    steps = []
    for run in comparison.runs:
        network = naive.MultiLayerNet(x.shape[1], _HIDDEN, 10)
        network.params = {key: np.array(p, np.float64) for key, p in run.network.params.items()}
        with limited(1):
            steps.append((products("gradient", network, x), products("loss", network, x)))
    return steps


def _products(data: Data, iterations: int) -> Losses:
    """Compute only the matrix products of all networks: one network per thread, with a BLAS of one thread."""
    key = id(data), iterations
    steps = _STEPS[key] if key in _STEPS else _STEPS.setdefault(key, _products_after(data, iterations))

    def block(network: int, count: int) -> None:
        gradient, loss = steps[network]
        for _ in range(count):
            gradient()
            loss()

    with limited(1), ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS) as pool:
        for start in range(0, iterations, 10):
            for network in range(len(steps)):
                pool.submit(block, network, min(10, iterations - start))
    return {}


TRAININGS: dict[str, Callable[[Data, int], Losses]] = {
    OURS: _fastoptim,
    CEILING: _products,
    "NumPy": _numpy,
    "torch": _torch,
    COMPILED: _torch_compiled,
    "jax": _jax,
}

NEEDS = {"torch": ("torch",), COMPILED: ("torch",), "jax": ("jax", "optax")}


def missing(library: str) -> str | None:
    """Return the reason that a library cannot take part, or None."""
    return next(filter(None, map(absent, NEEDS.get(library, ()))), None)


if __name__ == "__main__":
    TRAININGS[sys.argv[1]](data(), int(sys.argv[2]))
