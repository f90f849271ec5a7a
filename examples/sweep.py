"""Which learning rate? The loss after 100 steps against the learning rate, for every optimizer.

`fo.sweep` runs 60 learning rates side by side, in one kernel call a step. Run ``python examples/sweep.py``.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import fastoptim as fo
from fastoptim.family import FAMILY

COLUMNS = 6
RATES = np.geomspace(1e-4, 10, 60)
LOW, HIGH = 1e-8, 1e3  # Losses beyond are drawn at the edge.


def f(p):
    """Return the height of a valley with steep sides and a flat floor, which is lowest at the origin."""
    return p["x"] ** 2 / 20 + p["y"] ** 2


def gradient(p):
    """Return the partial derivatives of `f`; ``p["x"]`` has a number for each learning rate."""
    return {"x": p["x"] / 10, "y": 2 * p["y"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the loss against the learning rate.")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("comparison"))
    options = parser.parse_args()

    curves = {}
    for name in FAMILY:
        result = fo.sweep(
            getattr(fo, name),
            {"x": -7.0, "y": 2.0},
            {"lr": RATES},
            gradient,
            options.steps,
            loss=f,
            vectorized=True,
        )
        curves[name] = np.clip(np.nan_to_num(result.losses[:, -1], nan=np.inf), LOW, HIGH)
        best = curves[name].argmin()
        print(f"{name:<18} best lr {RATES[best]:<8.2g} loss {curves[name][best]:.2g}")

    rows = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(14, 2 * rows + 1), dpi=120, layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat
    for k, ((name, losses), axes) in enumerate(zip(curves.items(), panels, strict=False)):
        for others in curves.values():
            axes.plot(RATES, others, color="0.85", linewidth=0.7)
        axes.axvline(getattr(fo, name)().lr, color="C1", linestyle=":")
        axes.plot(RATES, losses, color="C0", linewidth=1.8)
        axes.plot(RATES[losses.argmin()], losses.min(), "o", color="C1", markersize=5)
        axes.set(xscale="log", yscale="log", xticks=[1e-4, 1e-2, 1])
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelbottom=k >= len(curves) - COLUMNS)
    for axes in panels:
        axes.set_visible(False)
    figure.suptitle(
        f"Loss after {options.steps} steps down x²/20 + y² (blue), and that of the other rules (grey). Point: the best "
        "learning rate; dotted line: the default"
    )
    figure.supxlabel("learning rate")
    figure.supylabel("loss, drawn at the edge where it is below 10⁻⁸ or above 10³")
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "sweep.png")
    print(f"wrote {options.output / 'sweep.png'}")
