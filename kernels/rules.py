"""The update rules, simplest first.

A rule is a pure function of one element: the parameter ``p``, its gradient ``g``, the optimizer's state and the
scalars of the step. It returns the new parameter and the new state. The same text runs on Python floats, on NumPy
arrays, where augmented assignments work in place, and, compiled by `fuse`, over whole buffers in one pass.

Each rule keeps the notes' order of operations and rounds where they round, so it gives the same bits.
"""

import numpy as np

__all__ = ["adagrad", "adam", "momentum", "nesterov", "rmsprop", "sgd"]


def sgd(p, g, lr):
    """Gradient descent. Robbins and Monro (1951), eq. 6; Cauchy (1847)."""
    p -= lr * g
    return p


def momentum(p, g, v, lr, momentum):
    """Momentum, or the heavy ball. Polyak (1964), eq. 9; in this form Sutskever et al. (2013), eqs. 1-2."""
    v = momentum * v - lr * g
    p += v
    return p, v


def nesterov(p, g, v, lr, momentum, momentum_squared, lookahead_lr):
    """Nesterov's accelerated gradient, for the gradient at the lookahead point. Bengio et al. (2013), eqs. 6-7.

    ``momentum_squared`` is ``momentum**2``; ``lookahead_lr`` is ``(1 + momentum) * lr``.
    """
    p += momentum_squared * v
    p -= lookahead_lr * g
    v *= momentum
    v -= lr * g
    return p, v


def adagrad(p, g, h, lr, eps):
    """Steps scaled by the sum of all squared gradients. Duchi, Hazan and Singer (2011), fig. 1, diagonal."""
    h += g * g
    p -= lr * g / (np.sqrt(h) + eps)
    return p, h


def rmsprop(p, g, h, lr, decay_rate, one_minus_decay_rate, eps):
    """Steps scaled by the running mean of squared gradients. Tieleman and Hinton (2012), lecture 6.5, slide 29."""
    h *= decay_rate
    h += one_minus_decay_rate * g * g
    p -= lr * g / (np.sqrt(h) + eps)
    return p, h


def adam(p, g, m, v, lr_t, one_minus_beta1, one_minus_beta2, eps):
    """Momentum with scaled steps. Kingma and Ba (2015), end of section 2: ``lr_t`` includes the bias correction.

    ``lr_t`` is ``lr * sqrt(1 - beta2**t) / (1 - beta1**t)``. ``eps`` is the paper's "epsilon hat": it is added to the
    uncorrected root.
    """
    m += one_minus_beta1 * (g - m)
    v += one_minus_beta2 * (g * g - v)
    p -= lr_t * m / (np.sqrt(v) + eps)
    return p, m, v
