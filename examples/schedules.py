"""Every schedule of `fastoptim.schedules`: a hyperparameter as a function of the number of updates done.

Run ``python examples/schedules.py``.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from fastoptim import schedules as s

STEPS, COLUMNS = 100, 5

CASES = {
    "constant(1)": s.constant(1),
    "step(1, every=30, factor=0.5)": s.step(1, every=30, factor=0.5),
    "multistep(1, (20, 70), factor=0.5)": s.multistep(1, (20, 70), factor=0.5),
    "exponential(1, factor=0.97)": s.exponential(1, factor=0.97),
    "polynomial(1, 80, power=2)": s.polynomial(1, 80, power=2),
    "linear(1, end=0.2, steps=80)": s.linear(1, end=0.2, steps=80),
    "cosine(1, 80, end=0.1)": s.cosine(1, 80, end=0.1),
    "cosine_restarts(1, 15, growth=2)": s.cosine_restarts(1, 15, growth=2),
    "cyclic(0.2, 1, up=10, down=20)": s.cyclic(0.2, 1, up=10, down=20),
    "one_cycle(1, 100)": s.one_cycle(1, 100),
    "inverse_sqrt(1, 20)": s.inverse_sqrt(1, 20),
    "warmup(cosine(1, 100), 20)": s.warmup(s.cosine(1, 100), 20),
    "join((linear(0, 1, 20), cosine(1, 60)), (30,))": s.join((s.linear(0, 1, 20), s.cosine(1, 60)), (30,)),
    "ReduceOnPlateau(1, factor=0.5)": s.ReduceOnPlateau(1, factor=0.5),
}


def follow(schedule):
    """Return the number of each step; ReduceOnPlateau sees a loss that falls for 20 steps and then no more."""
    numbers = []
    for k in range(STEPS):
        numbers.append(schedule(k))
        if isinstance(schedule, s.ReduceOnPlateau):
            schedule.observe(loss=max(1 - k / 20, 0.1))
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw all schedules.")
    parser.add_argument("--output", type=Path, default=Path("comparison"))
    options = parser.parse_args()

    rows = -(-len(CASES) // COLUMNS)
    figure = Figure(figsize=(14, 2.1 * rows + 1), dpi=120, layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat
    for k, ((name, schedule), axes) in enumerate(zip(CASES.items(), panels, strict=False)):
        numbers = follow(schedule)
        axes.plot(numbers, drawstyle="steps-post")
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=k >= len(CASES) - COLUMNS)
        print(f"{name:<48} {numbers[0]:.3f} … {numbers[-1]:.3f}")
    for axes in panels:
        axes.set_visible(False)
    figure.suptitle("Every schedule: the learning rate, or another hyperparameter, of each step")
    figure.supxlabel("number of updates done")
    figure.supylabel("hyperparameter")
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "schedules.png")
    print(f"wrote {options.output / 'schedules.png'}")
