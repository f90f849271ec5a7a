"""The notes' network in every library. The limit is the matrix products alone, without what is zero."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from time import thread_time
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

import fastoptim as fo
import naive
from fastoptim.kernels.masks import WIDTH, fill_masks
from fastoptim.kernels.vectors import LINE, MAX_LINES, add_rows, width_of

from .cases import Net
from .frameworks import COMPILED, torch_compiled, torch_threads
from .peers import CEILING, OURS, Library
from .timing import Contestant, blaming

__all__ = ["NETWORKS", "contestants", "jax_loss", "limited", "product", "products", "torch_loss"]

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


# The limit: each matrix product of a step in the faster of two ways. One is BLAS. The other adds a row for each element
# of the left matrix that is not zero, from a matrix so small that it stays in the fastest cache, by the instructions of
# our kernels. Masks are made before, and nothing else is computed.

_LANES = LINE // 4
_width_of = numba.njit(width_of)


@numba.njit(nogil=True)
def _add_nonzero(left, masks, rows, zeros, sums, out):
    columns = out.shape[1]
    tiles = -(-columns // (MAX_LINES * _LANES))
    width = -(-columns // tiles)
    lines, last = -(-width // _LANES), 4 * (width - _LANES)
    row_width = _width_of(lines, last)
    for tile in range(tiles):
        start = min(tile * width, columns - width)
        for i in range(0, left.shape[0], 2):
            second = min(1, left.shape[0] - i - 1)
            first, first_row = zeros.ctypes.data, 0
            for w in range(masks.shape[1]):
                place, place_row, place_last = sums.ctypes.data, lines * LINE, (lines - 1) * LINE
                if w == masks.shape[1] - 1:
                    place, place_row, place_last = out.ctypes.data + 4 * (i * columns + start), 4 * columns, last
                add_rows(
                    np.float32, row_width, place, second * place_row, place_last, first, second * first_row,
                    masks[i, w], masks[i + second, w] if second else np.uint64(0),
                    left.ctypes.data + 4 * (i * left.shape[1] + w * WIDTH), second * 4 * left.shape[1], 4,
                    rows.ctypes.data,
                )  # fmt: skip
                first, first_row = sums.ctypes.data, lines * LINE


@numba.njit(nogil=True)
def _dot(left, right, out):
    np.dot(left, right, out)


@numba.njit
def _masks(x):
    masks = np.empty((x.shape[0], -(-x.shape[1] // WIDTH)), np.uint64)
    fill_masks(x, masks)
    return masks


def _aligned(shape: tuple[int, int]) -> NDArray[Any]:
    """Return zeros at the start of a cache line."""
    size = 4 * shape[0] * shape[1]
    buffer = np.zeros(size + LINE, np.uint8)
    start = -buffer.ctypes.data % LINE
    return buffer[start : start + size].view(np.float32).reshape(shape)


def product(left: NDArray[Any], columns: int) -> Callable[[], None]:
    """Return the faster of the two ways to multiply a matrix by one of so many columns, on one thread."""
    left = np.ascontiguousarray(left, np.float32)
    out = np.zeros((len(left), columns), np.float32)
    ways = [partial(_dot, left, np.ones((left.shape[1], columns), np.float32), out)]
    if columns >= _LANES:
        row = MAX_LINES * _LANES
        ways.append(partial(_add_nonzero, left, _masks(left), *(_aligned((n, row)) for n in (WIDTH, 1, 2)), out))
    seconds = [[] for _ in ways]
    for _ in range(5):
        for way, each in zip(ways, seconds, strict=True):
            start = thread_time()
            way()
            each.append(thread_time() - start)
    return min(zip(seconds, ways, strict=True), key=lambda pair: min(pair[0]))[1]


def products(method: str, network: naive.MultiLayerNet, x: NDArray[Any]) -> Callable[[], None]:
    """Return a function that computes only the matrix products of one call of a method on a batch."""
    *signals, scores = network.forward(x)
    last = network.depth - 1
    steps = [product(a, network.params[f"W{k + 1}"].shape[1]) for k, a in enumerate(signals)]
    if method == "gradient":
        for k, a in enumerate(signals):
            # A gradient is zero where ReLU gave zero.
            delta = np.ones_like(scores) if k == last else (signals[k + 1] > 0).astype(float)
            steps.append(product(a.T, delta.shape[1]))
            if k > 0:
                steps.append(product(delta, a.shape[1]))

    def call() -> None:
        for step in steps:
            step()

    return call


def _products(case: Net, network: naive.MultiLayerNet, batch: Batch) -> Contestant:
    limit = partial(limited, case.threads)
    with limit():
        return Contestant(products(case.method, network, batch[0]), limit=limit)


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
    return _torch_by(torch_loss, case, network, batch)


def _torch_compiled(case: Net, network: naive.MultiLayerNet, batch: Batch) -> Contestant:
    return _torch_by(torch_compiled(torch_loss), case, network, batch)


def _torch_by(loss_of: Callable[..., Any], case: Net, network: naive.MultiLayerNet, batch: Batch) -> Contestant:
    import torch

    x, t = map(torch.from_numpy, batch)
    params = {key: torch.nn.Parameter(torch.tensor(p, dtype=torch.float32)) for key, p in network.params.items()}

    def gradient() -> dict[str, Any]:
        for p in params.values():
            p.grad = None
        loss_of(params, x, t).backward()
        return {key: p.grad.numpy() for key, p in params.items()}

    @torch.no_grad()
    def loss() -> float:
        return loss_of(params, x, t).item()

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
    CEILING: Library(_products, takes=lambda case: case.threads == 1),
    "NumPy": Library(_numpy),
    "torch": Library(_torch, ("torch",)),
    # Each case takes seconds to compile, so one batch stands for all.
    COMPILED: Library(
        *(_torch_compiled, ("torch",)),
        lambda case: case.threads is None and case.method != "predict" and case.batch == 128,
    ),
    "jax": Library(_jax, ("jax", "optax"), lambda case: case.threads is None),
}

UNDECIDED = 3e-5
"""How near to zero float32 and float64 may differ on whether an input of a ReLU is above it; rounding moves it less."""


def _batch(case: Net, network: naive.MultiLayerNet) -> Batch:
    """Return a batch in which no input of a ReLU is so near zero that rounding decides whether its gradient passes.

    One such input alone changes the gradients of a weight by half a per cent.
    """
    rng = np.random.default_rng(0)
    x = case.inputs(rng, case.batch + case.batch // 4 + 8)
    decided = np.ones(len(x), bool)
    for k, a in enumerate(network.forward(x)[: network.depth - 1], 1):
        z = a @ network.params[f"W{k}"] + network.params[f"b{k}"]
        decided &= abs(z).min(axis=1) > UNDECIDED
    return x[decided][: case.batch], rng.integers(case.widths[-1], size=case.batch)


def contestants(case: Net, names: list[str]) -> dict[str, Contestant]:
    """Set up libraries for a case, and check that their results are those of the notes' code, to rounding."""
    np.random.seed(0)
    network = naive.MultiLayerNet(case.widths[0], case.widths[1:-1], case.widths[-1])
    batch = _batch(case, network)
    ready = {}
    ref = _call(case, network, batch)()
    for name in names:
        with blaming(name):
            ready[name] = contestant = NETWORKS[name].make(case, network, batch)
            if contestant.result is None:
                continue
            with contestant.limit():
                result = contestant.result()
            for key in ref if isinstance(ref, dict) else [...]:
                expected, found = (np.asarray(r[key] if isinstance(r, dict) else r) for r in (ref, result))
                error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
                assert error < 1e-5, f"{key}: {error:.1e}"
    return ready
