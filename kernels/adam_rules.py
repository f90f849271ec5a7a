"""The rules of Adam's relatives, which differ in denominator, numerator or momentum; `rules` defines a rule."""

import numpy as np

__all__ = [
    "adabelief", "adamax", "adan", "ademamix", "adopt", "amsgrad", "grams", "nadam", "radam", "yogi",
]  # fmt: skip


def amsgrad(p, g, m, v, h, lr_t, one_minus_beta1, one_minus_beta2, scale, eps):
    """Adam whose denominator never shrinks. Reddi, Kale and Kumar (2018), algorithm 2; ``scale`` corrects ``v``."""
    m += one_minus_beta1 * (g - m)
    v += one_minus_beta2 * (g * g - v)
    h = np.maximum(h, scale * v)
    p -= lr_t * m / (np.sqrt(h) + eps)
    return p, m, v, h


def adamax(p, g, m, u, lr_t, one_minus_beta1, beta2, inside, outside):
    """Adam scaled by a decaying maximum. Kingma and Ba (2015), algorithm 2; epsilon inside or outside of it."""
    m += one_minus_beta1 * (g - m)
    u = np.maximum(beta2 * u, np.abs(g) + inside)
    p -= lr_t * m / (u + outside)
    return p, m, u


def nadam(p, g, m, v, of_gradient, of_mean, one_minus_beta1, one_minus_beta2, eps):
    """Adam with Nesterov's momentum. Dozat (2016): a step along a mean of the gradient and of ``m``."""
    m += one_minus_beta1 * (g - m)
    v += one_minus_beta2 * (g * g - v)
    p -= (of_gradient * g + of_mean * m) / (np.sqrt(v) + eps)
    return p, m, v


def radam(p, g, m, v, lr_t, one_minus_beta1, one_minus_beta2, weight, eps):
    """Rectified Adam. Liu et al. (2020), algorithm 2; with a weight of 0 the step is not scaled."""
    m += one_minus_beta1 * (g - m)
    v += one_minus_beta2 * (g * g - v)
    p -= lr_t * m / (weight * np.sqrt(v) + eps)
    return p, m, v


def adabelief(p, g, m, s, lr_t, one_minus_beta1, one_minus_beta2, stored_eps, weight, eps):
    """Adam scaled by the distance of gradients from their mean. Zhuang et al. (2020), algorithm 2.

    ``weight`` rectifies it as in `radam`.
    """
    m += one_minus_beta1 * (g - m)
    s += one_minus_beta2 * ((g - m) * (g - m) - s)
    s += stored_eps
    p -= lr_t * m / (weight * np.sqrt(s) + eps)
    return p, m, s


def yogi(p, g, m, v, lr_t, one_minus_beta1, one_minus_beta2, eps):
    """Adam whose ``v`` moves by no more than the squared gradient. Zaheer et al. (2018), algorithm 2."""
    m += one_minus_beta1 * (g - m)
    v -= one_minus_beta2 * np.sign(v - g * g) * (g * g)
    p -= lr_t * m / (np.sqrt(v) + eps)
    return p, m, v


def grams(p, g, m, v, lr_t, one_minus_beta1, one_minus_beta2, eps):
    """Adam's step with the sign of the gradient. Cao et al. (2024)."""
    m += one_minus_beta1 * (g - m)
    v += one_minus_beta2 * (g * g - v)
    p -= np.abs(lr_t * m / (np.sqrt(v) + eps)) * np.sign(g)
    return p, m, v


def adopt(p, g, m, v, lr, one_minus_beta1, one_minus_beta2, bound, eps):
    """Momentum of gradients scaled by the ``v`` before them. Taniguchi et al. (2024), algorithm 2 with clipping."""
    scaled = g / np.maximum(np.sqrt(v), eps)
    m += one_minus_beta1 * (np.where(scaled > bound, bound, np.where(scaled < -bound, -bound, scaled)) - m)
    p -= lr * m
    v += one_minus_beta2 * (g * g - v)
    return p, m, v


def ademamix(p, g, m, n, v, lr_fast, lr_slow, one_minus_beta1, one_minus_beta2, one_minus_beta3, eps):
    """Adam with a second, slow mean ``n``. Pagliardini, Ablin and Grangier (2024), algorithm 1."""
    m += one_minus_beta1 * (g - m)
    n += one_minus_beta3 * (g - n)
    v += one_minus_beta2 * (g * g - v)
    p -= (lr_fast * m + lr_slow * n) / (np.sqrt(v) + eps)
    return p, m, n, v


def adan(p, g, m, v, n, previous, lr_m, lr_v, one_minus_beta1, one_minus_beta2, one_minus_beta3, beta2, eps, shrink):
    """Adam with Nesterov's momentum, from differences of gradients. Xie et al. (2022), algorithm 1."""
    difference = g - previous
    ahead = g + beta2 * difference
    m += one_minus_beta1 * (g - m)
    v += one_minus_beta2 * (difference - v)
    n += one_minus_beta3 * (ahead * ahead - n)
    p -= (lr_m * m + lr_v * v) / (np.sqrt(n) + eps)
    p *= shrink
    return p, m, v, n, g
