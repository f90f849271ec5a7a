"""The notes' network in every library. The ceiling is the matrix products alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

import fastoptim as fo
import naive

from .cases import Net
from .frameworks import torch_threads
from .peers import CEILING, OURS, Library
from .timing import Contestant

__all__ = ["NETWORKS", "contestants", "jax_loss", "limited", "products", "torch_loss"]

Batch = tuple[NDArray[Any], NDArray[Any]]


@cache
def _blas() -> ThreadpoolController:
    # Searching all loaded libraries takes milliseconds.
    return ThreadpoolController()


@contextmanager
def limited(threads: int | None):
    """Limit our network, its BLAS and NumPy's BLAS to a number of threads; None sets no limit."""
    with ExitStack() as stack:
        if threads is not None:
            stack.enter_context(_blas().limit(limits=threads, user_api="blas"))
            stack.enter_context(fo.num_threads(threads))
        yield


def _call(case: Net, network: Any, batch: Batch) -> Callable[[], Any]:
    return partial(getattr(network, case.method), *(batch[:1] if case.method == "predict" else batch))


def _contestant(case: Net, network: Any, batch: Batch) -> Contestant:
    step = _call(case, network, batch)
    return Contestant(step, step, limit=partial(limited, case.threads))


def _fastoptim(case: Net, network: naive.MultiLayerNet, batch: Batch) -> Contestant:
    ours = fo.MultiLayerNet(case.widths[0], case.widths[1:-1], case.widths[-1])
    ours.params = network.params
    return _contestant(case, ours, batch)


# The ceiling: the matrix products of a step through the same np.dot, and nothing else.


@numba.njit(nogil=True)
def _forward(a, w, z):
    for k in range(len(w)):
        np.dot(a[k], w[k], z[k])


@numba.njit(nogil=True)
def _backward(a, w, z, dw, below):
    for k in range(len(w) - 1, -1, -1):
        np.dot(a[k].T, z[k], dw[k])
        if k > 0:
            np.dot(z[k], w[k].T, below[k])


def products(case: Net) -> Callable[[], None]:
    """Return a function that computes only the matrix products of one call of a method."""
    rng = np.random.default_rng(0)
    draw = partial(rng.standard_normal, dtype=np.float32)
    a = tuple(draw((case.batch, width)) for width in case.widths[:-1])
    z = tuple(draw((case.batch, width)) for width in case.widths[1:])
    w, dw = (tuple(draw(pair) for pair in pairwise(case.widths)) for _ in range(2))
    below = tuple(np.empty_like(x) for x in a)

    def gradient() -> None:
        _forward(a, w, z)
        _backward(a, w, z, dw, below)

    return gradient if case.method == "gradient" else partial(_forward, a, w, z)


def _products(case: Net, _network: naive.MultiLayerNet, _batch: Batch) -> Contestant:
    return Contestant(products(case), limit=partial(limited, case.threads))


def _numpy(case: Net, network: naive.MultiLayerNet, batch: Batch) -> Contestant:
    return _contestant(case, network, batch)


# torch


def torch_loss(params: dict[str, Any], x: Any, t: Any) -> Any:
    """Return torch's loss of the notes' network, with weights of shape (inputs, outputs) as in the notes."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(_torch_scores(params, x), t)


def _torch_scores(params: dict[str, Any], x: Any) -> Any:
    import torch

    depth = len(params) // 2
    for k in range(1, depth + 1):
        x = torch.addmm(params[f"b{k}"], x, params[f"W{k}"])
        if k < depth:
            x = x.relu()
    return x


def _torch(case: Net, network: naive.MultiLayerNet, batch: Batch) -> Contestant:
    import torch

    x, t = map(torch.from_numpy, batch)
    params = {key: torch.nn.Parameter(torch.tensor(p, dtype=torch.float32)) for key, p in network.params.items()}

    def gradient() -> dict[str, Any]:
        for p in params.values():
            p.grad = None
        torch_loss(params, x, t).backward()
        return {key: p.grad.numpy() for key, p in params.items()}

    @torch.no_grad()
    def loss() -> float:
        return torch_loss(params, x, t).item()

    @torch.no_grad()
    def predict() -> Any:
        return _torch_scores(params, x).numpy()

    step = {"gradient": gradient, "loss": loss, "predict": predict}[case.method]
    return Contestant(step, step, limit=partial(torch_threads, case.threads))


# jax


def jax_loss(params: dict[str, Any], x: Any, t: Any) -> Any:
    """Return JAX's loss of the notes' network."""
    import jax
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(_jax_scores(params, x, jax.nn.relu), t).mean()


def _jax_scores(params: dict[str, Any], x: Any, relu: Callable[[Any], Any]) -> Any:
    depth = len(params) // 2
    for k in range(1, depth + 1):
        x = x @ params[f"W{k}"] + params[f"b{k}"]
        if k < depth:
            x = relu(x)
    return x


def _jax(case: Net, network: naive.MultiLayerNet, batch: Batch) -> Contestant:
    import jax

    x, t = map(jax.numpy.array, batch)
    params = {key: jax.numpy.array(p, np.float32) for key, p in network.params.items()}
    if case.method == "predict":
        call = partial(jax.jit(partial(_jax_scores, relu=jax.nn.relu)), params, x)
    else:
        call = partial(jax.jit(jax.grad(jax_loss) if case.method == "gradient" else jax_loss), params, x, t)

    def step() -> Any:
        return jax.block_until_ready(call())

    return Contestant(step, step)


NETWORKS: dict[str, Library] = {
    OURS: Library(_fastoptim),
    CEILING: Library(_products),
    "NumPy": Library(_numpy),
    "torch": Library(_torch, ("torch",)),
    "jax": Library(_jax, ("jax", "optax"), lambda case: case.threads is None),
}


def contestants(case: Net, names: list[str]) -> dict[str, Contestant]:
    """Set up libraries for a case and check that their results agree with the notes' code to a thousandth."""
    rng = np.random.default_rng(0)
    batch = (
        rng.random((case.batch, case.widths[0]), np.float32),
        rng.integers(case.widths[-1], size=case.batch),
    )
    np.random.seed(0)
    network = naive.MultiLayerNet(case.widths[0], case.widths[1:-1], case.widths[-1])
    ready = {name: NETWORKS[name].make(case, network, batch) for name in names}
    ref = _call(case, network, batch)()
    for name, contestant in ready.items():
        if contestant.result is not None:
            with contestant.limit():
                result = contestant.result()
            for key in ref if isinstance(ref, dict) else [...]:
                expected, found = (np.asarray(r[key] if isinstance(r, dict) else r) for r in (ref, result))
                # The norm is compared, because rounding decides single elements where the input of a ReLU is near zero.
                error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
                assert error < 1e-3, f"{name} {key}: {error:.1e}"
    return ready
