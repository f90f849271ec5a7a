r"""
Why AdaGrad stops and RMSprop goes on
=====================================

Both rules divide the learning rate by the root of :math:`h`, which collects squared gradients. AdaGrad adds them up;
RMSprop averages them and forgets the old ones:

.. math:: h \leftarrow h + g^2 \quad\text{or}\quad h \leftarrow \rho h + (1 - \rho) g^2, \qquad
          p \leftarrow p - \frac{\eta}{\sqrt h + \varepsilon}\, g

A sum of squares never falls, so AdaGrad's effective step :math:`\eta / \sqrt h` shrinks like :math:`1/\sqrt t` as long
as gradients come. That is right for a minimum that stays where it is, and wrong for one that moves.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from pictures import setup, show

options = setup(__doc__, steps=6000)

# %%
# The parameter follows a target that jumps between 0 and 1 every 250 updates, and sees it through noise. Its gradient
# is that of :math:`(p - \text{measurement})^2 / 2`. The state ``h`` is a dict like the parameters, and can be read at
# any time.

rng = np.random.default_rng(0)
steps = np.arange(options.steps)
target = (steps // 250) % 2.0
measured = target + 0.3 * rng.standard_normal(options.steps)
optimizers = {"AdaGrad": fo.AdaGrad(lr=0.1), "RMSprop": fo.RMSprop(lr=0.01)}
effective, followed = ({name: [] for name in optimizers} for _ in range(2))
for name, optimizer in optimizers.items():
    params = {"p": 0.0}
    for measurement in measured:
        optimizer.update(params, {"p": params["p"] - measurement})
        effective[name].append(optimizer.lr / (np.sqrt(optimizer.h["p"]) + 1e-7))
        followed[name].append(params["p"])

# %%
# RMSprop's step stays near the learning rate over the size of the gradients. AdaGrad's goes on falling: it follows the
# first jumps nearly as well as RMSprop, and no longer follows the last ones.

figure, panels = plt.subplot_mosaic([["step", "step"], ["first", "last"]], figsize=(8, 6))
first, last = steps < 1000, steps >= options.steps - 1000
for name, style in zip(optimizers, ("-", "--"), strict=True):
    panels["step"].plot(steps, effective[name], style, label=name)
    for when, shown in (("first", first), ("last", last)):
        panels[when].plot(steps[shown], np.array(followed[name])[shown], style, linewidth=1.3)
    error = np.abs(followed[name] - target)
    print(
        f"{name}: mean error {error[first].mean():.3f} in the first 1000 updates, {error[last].mean():.3f} in the last"
    )
for when, shown in (("first", first), ("last", last)):
    panels[when].plot(steps[shown], target[shown], ":", color="0.5", label="target")
    panels[when].set(title=f"the parameter in the {when} 1000 updates", xlabel="updates", ylim=(-0.4, 1.4))
panels["step"].set(yscale="log", title="effective step $\\eta/\\sqrt{h}$", ylim=(2e-3, 1))
panels["step"].legend()
panels["first"].legend(loc="upper left")
show(figure, options)
