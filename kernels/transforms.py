"""The transforms: functions of a gradient before the rule, and of a parameter before and after it.

Like a rule, a transform is a pure function of one element; `compose` puts it into the same kernel. Only `decayed` uses
augmented assignment: the fallback passes the arrays themselves if they share memory, and gradients must not be written.
"""

import numpy as np

__all__ = [
    "accumulated", "added", "averaged", "cautious", "clipped", "copied", "decayed", "disagrees", "gradient",
    "l2", "lookahead", "scaled",
]  # fmt: skip


def scaled(x, factor):
    """Multiply by a factor, for `grad_scale`, `maximize` and clipping by norms."""
    return x * factor


def decayed(p, factor):
    """Shrink a parameter before its step. Loshchilov and Hutter (2019), algorithm 2, line 12."""
    p *= factor
    return p


def added(total, g):
    """Add a gradient to the sum of others of the same element."""
    return total + g


def accumulated(g, mean, share):
    """Return the running mean of the gradients of several calls; the shares of the calls are 1, 1/2, 1/3, …"""
    return np.where(share == 1, g, mean + (g - mean) * share)


def clipped(g, limit):
    """Clip to ``[-limit, limit]``; NaN stays. `np.minimum` and `np.maximum` would cost a fifth of the speed of Adam."""
    return np.where(g > limit, limit, np.where(g < -limit, -limit, g))


def l2(p, g, l2):
    """Add the gradient of ``l2 / 2 * p**2``."""
    return g + l2 * p


def gradient(g):
    """Return the gradient; its squares are summed for its norm."""
    return g


def copied(p):
    """Return a copy of a parameter before the rule, also if it is an array."""
    return np.where(p == p, p, p)


def disagrees(g, p, before):
    """Return 1 where the rule does not move a parameter against its gradient. Liang et al. (2024), algorithm 2."""
    return np.where((p - before) * g < 0, 0.0, 1.0)


def cautious(g, p, before, factor):
    """Take the step, times a factor, only where it moves against the gradient. Liang et al. (2024), algorithm 2."""
    step = p - before
    # Zero times a step is NaN where the step is.
    return before + np.where(step * g < 0, step * factor, 0 * step)


def averaged(p, mean, share):
    """Update the exponential average of a parameter; a share of 1 begins it. Polyak and Juditsky (1992)."""
    return np.where(share == 1, p, mean + share * (p - mean))


def lookahead(p, slow, alpha):
    """Return the parameter and its slow copy; alpha is 0 between synchronizations. Zhang et al. (2019), algorithm 1."""
    moved = slow + alpha * (p - slow)
    return np.where(alpha > 0, moved, p), np.where(alpha > 0, moved, slow)
