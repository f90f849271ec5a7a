"""How many times as fast as BLAS our products of matrices are, masks included, on one thread.

Run it with ``python -m bench.masked [float64]``. Times are taken in turns, as CPU time of the
thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import numba
import numpy as np
import scipy.linalg.cython_blas  # noqa: F401
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fastoptim.kernels.masked import AS_IT_IS, TRANSPOSED, masked_dot, product_address
from fastoptim.kernels.masks import WIDTH, fill_masks

from .timing import Contestant, Pacing, race

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


def _ratio(masked: Callable[[], None], dense: Callable[[], Any]) -> str:
    samples = race({"masked": Contestant(masked), "dense": Contestant(dense)}, Pacing(), threads=1)
    return f"{median(b / a for a, b in zip(samples['masked'], samples['dense'], strict=True)):.1f}"


def _ratios(shape: tuple[int, int, int], density: float, dtype: Any) -> list[str]:
    rng = np.random.default_rng(0)
    rows, inner, columns = shape

    def draw(*shape: int) -> NDArray[Any]:
        return rng.standard_normal(shape).astype(dtype)

    x = draw(rows, inner) * (rng.random((rows, inner)) < density).astype(dtype)
    team = np.array([product_address(dtype), 0, 1], np.intp)
    masks = np.empty((rows, (inner + WIDTH - 1) // WIDTH), np.uint64)
    w, z, dw, flipped = draw(inner, columns), draw(rows, columns), draw(inner, columns), draw(columns, inner)
    return [
        _ratio(lambda: _forward(team, x, masks, w, z), lambda: _dot(x, w, z)),
        _ratio(lambda: _weight_gradient(team, x, masks, z, dw), lambda: _dot(x.T, z, dw)),
        _ratio(lambda: _input_gradient(team, x, masks, flipped, z), lambda: _dot(x, flipped.T, z)),
    ]


def main() -> None:
    """Print the table: x @ w, x.T @ delta and delta @ w.T for each shape and density of the left matrix."""
    dtype = np.dtype(sys.argv[1] if len(sys.argv) > 1 else "float32")
    if not product_address(dtype):
        sys.exit("BLAS computes all products on this processor")
    print("| " + " | ".join([f"{dtype}, density", *map(str, DENSITIES)]) + " |")
    print("|---" * (1 + len(DENSITIES)) + "|")
    with threadpool_limits(1):
        for shape in SHAPES:
            cells = [" / ".join(_ratios(shape, density, dtype)) for density in DENSITIES]
            print("| " + " | ".join([" × ".join(map(str, shape)), *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
