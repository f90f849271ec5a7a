"""
Every schedule
==============

A schedule is a function of the number of updates done. Any hyperparameter takes one in place of a number:
``fo.Adam(lr=fo.schedules.cosine(1e-3, 10_000))``.
"""

import matplotlib.pyplot as plt

from fastoptim import schedules as s
from pictures import setup, show

options = setup(__doc__)
STEPS, COLUMNS = 100, 3

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


# %%
# A schedule is called with the number of updates done. ``ReduceOnPlateau`` also wants to see the loss, by ``observe``.


def follow(schedule):
    """Return the number of each step; ReduceOnPlateau sees a loss that falls for 20 steps and then no more."""
    numbers = []
    for k in range(STEPS):
        numbers.append(schedule(k))
        if isinstance(schedule, s.ReduceOnPlateau):
            schedule.observe(loss=max(1 - k / 20, 0.1))
    return numbers


# %%
# Where a schedule has reached its end, its last number remains.

rows = -(-len(CASES) // COLUMNS)
figure, panels = plt.subplots(rows, COLUMNS, figsize=(8, 1.5 * rows), sharex=True, sharey=True)
for axes in panels.flat[len(CASES) :]:
    axes.remove()
for k, ((name, schedule), axes) in enumerate(zip(CASES.items(), panels.flat, strict=False)):
    numbers = follow(schedule)
    axes.plot(numbers, drawstyle="steps-post")
    axes.set_title(name.replace(" cosine(1, 60)), ", "\n     cosine(1, 60)), "), fontsize=9)
    axes.set(xticks=[0, 50, 100], yticks=[0, 0.5, 1])
    axes.tick_params(labelbottom=k >= len(CASES) - COLUMNS)
    print(f"{name:<48} {numbers[0]:.3f} … {numbers[-1]:.3f}")
figure.supxlabel("number of updates done")
figure.supylabel("hyperparameter")
show(figure, options)
