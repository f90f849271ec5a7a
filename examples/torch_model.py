"""
A model of torch, trained by rules that torch does not have
===========================================================

``fastoptim.torch.Optimizer`` is a ``torch.optim.Optimizer`` that updates the tensors of a model on the CPU by any
optimizer of this package. Groups, schedulers and clipping are torch's. Here a layer of attention learns to find the
largest symbol.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastoptim as fo
from pictures import setup, show

try:
    import torch
except ImportError:
    raise SystemExit("torch is not installed: pip install torch") from None

import fastoptim.torch

options = setup(__doc__, steps=300)
LENGTH, SYMBOLS, WIDTH = 12, 24, 32

# %%
# The model sees twelve symbols and, after each, has to name the largest so far, so it must look back.


class Largest(torch.nn.Module):
    """One layer of attention that sees only what came before."""

    def __init__(self):
        super().__init__()
        self.symbols = torch.nn.Embedding(SYMBOLS, WIDTH)
        self.attention = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.output = torch.nn.Sequential(
            torch.nn.LayerNorm(WIDTH),
            torch.nn.Linear(WIDTH, 4 * WIDTH),
            torch.nn.GELU(),
            torch.nn.Linear(4 * WIDTH, SYMBOLS),
        )
        self.later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)

    def forward(self, x):
        """Return the scores of all symbols at each position."""
        x = self.symbols(x)
        return self.output(x + self.attention(x, x, x, attn_mask=self.later, need_weights=False)[0])


def loss_of(model, generator):
    """Return the loss of a new batch."""
    x = torch.randint(0, SYMBOLS, (64, LENGTH), generator=generator)
    return torch.nn.functional.cross_entropy(model(x).flatten(0, 1), x.cummax(1).values.flatten())


# %%
# Biases and norms have no weight decay, as a group of parameters; the learning rate follows torch's scheduler. These
# lines are those of any training with torch, but for the first.


def train(rule):
    """Train one model by a rule, and return the losses."""
    torch.manual_seed(0)
    model, generator = Largest(), torch.Generator().manual_seed(1)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = fastoptim.torch.Optimizer(groups, rule)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    losses = []
    for _ in range(options.steps):
        optimizer.zero_grad()
        loss = loss_of(model, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


rules = {
    "AdamW": fo.AdamW(lr=5e-3, weight_decay=0.01),
    "Lion": fo.Lion(lr=1e-3, weight_decay=0.01),
    "AdaBelief": fo.AdaBelief(lr=5e-3, weight_decay=0.01),
    "Muon": fo.Muon(lr=0.02, weight_decay=0.01),
}
fig, ax = plt.subplots()
for name, rule in rules.items():
    losses = train(rule)
    print(f"{name:10} loss {losses[0]:.2f}, then {np.mean(losses[-20:]):.1e}")
    ax.plot(fo.smooth_curve(losses), label=name)
ax.set(xlabel="step", ylabel="loss", yscale="log", title="The largest symbol so far")
ax.legend()
show(fig, options)
