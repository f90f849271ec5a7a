"""Group *masked*: how many times as fast as BLAS our products of matrices are, masks included, on one thread.

``python -m bench.masked [float64]`` prints a table of shapes and densities. Times are taken in turns, as CPU time of
the thread.
"""

from __future__ import annotations

import sys
from functools import partial
from statistics import median
from typing import Any

import numba
import numpy as np
import scipy.linalg.cython_blas  # noqa: F401
from numpy.typing import NDArray

from fastoptim.kernels.masked import AS_IT_IS, TRANSPOSED, masked_dot, product_address
from fastoptim.kernels.masks import WIDTH, fill_masks

from .cases import MNIST
from .networks import limited, product
from .peers import CEILING, OURS
from .timing import Contestant, Pacing, race

__all__ = ["BLAS", "KINDS", "contestants", "name"]

BLAS = "BLAS"
KINDS = ("x @ W", "x.T @ delta", "delta @ W.T")
DENSITIES = 0.05, 0.1, 0.2, 0.5, 1
SHAPES = (128, 784, 100), (32, 784, 100), (1024, 784, 100), (128, 784, 1024)


@numba.njit
def _forward(team, x, masks, w, z):
    masked_dot(team, x, AS_IT_IS, masks, fill_masks(x, masks), w, AS_IT_IS, z)


@numba.njit
def _weight_gradient(team, x, masks, delta, dw):
    masked_dot(team, x, TRANSPOSED, masks, fill_masks(x, masks), delta, AS_IT_IS, dw)


@numba.njit
def _input_gradient(team, x, masks, w, delta):
    masked_dot(team, x, AS_IT_IS, masks, fill_masks(x, masks), w, TRANSPOSED, delta)


@numba.njit
def _dot(a, b, out):
    np.dot(a, b, out)


def name(kind: str) -> str:
    """Return the name of the case of a kind."""
    return f"{kind}, {' × '.join(map(str, SHAPES[0]))}, density {MNIST:g}"


def contestants(
    kind: str, shape: tuple[int, int, int] = SHAPES[0], density: float = MNIST, dtype: Any = np.float32
) -> dict[str, Contestant]:
    """Return both ways to compute a kind of product, and in float32 the limit of the first, as `networks` has it."""
    rng = np.random.default_rng(0)
    rows, inner, columns = shape

    def draw(*shape: int) -> NDArray[Any]:
        return rng.standard_normal(shape).astype(dtype)

    x = draw(rows, inner) * (rng.random((rows, inner)) < density).astype(dtype)
    team = np.array([product_address(dtype), 0, 1], np.intp)
    masks = np.empty((rows, (inner + WIDTH - 1) // WIDTH), np.uint64)
    w, z, dw, flipped = draw(inner, columns), draw(rows, columns), draw(inner, columns), draw(columns, inner)
    masked, dense = {
        KINDS[0]: (lambda: _forward(team.ctypes.data, x, masks, w, z), lambda: _dot(x, w, z)),
        KINDS[1]: (lambda: _weight_gradient(team.ctypes.data, x, masks, z, dw), lambda: _dot(x.T, z, dw)),
        KINDS[2]: (lambda: _input_gradient(team.ctypes.data, x, masks, flipped, z), lambda: _dot(x, flipped.T, z)),
    }[kind]
    limit = partial(limited, 1)
    ready = {OURS: Contestant(masked, limit=limit), BLAS: Contestant(dense, limit=limit)}
    if dtype == np.float32:
        with limit():
            ready[CEILING] = Contestant(product(x.T if kind == KINDS[1] else x, columns), limit=limit)
    return ready


def _ratio(*case: Any) -> str:
    ready = contestants(*case)
    samples = race({name: ready[name] for name in (OURS, BLAS)}, Pacing(), threads=1)
    return f"{median(b / a for a, b in zip(*samples.values(), strict=True)):.1f}"


def main() -> None:
    """Print the table: x @ w, x.T @ delta and delta @ w.T for each shape and density of the left matrix."""
    dtype = np.dtype(sys.argv[1] if len(sys.argv) > 1 else "float32")
    if not product_address(dtype):
        sys.exit("BLAS computes all products on this processor")
    print("| " + " | ".join([f"{dtype}, density", *map(str, DENSITIES)]) + " |")
    print("|---" * (1 + len(DENSITIES)) + "|")
    for shape in SHAPES:
        cells = [" / ".join(_ratio(kind, shape, density, dtype) for kind in KINDS) for density in DENSITIES]
        print("| " + " | ".join([" × ".join(map(str, shape)), *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
