"""The update rules of one element; those of Adam's relatives are in `adam_rules`.

A rule is a pure function of one element: the parameter ``p``, its gradient ``g``, the optimizer's state and the
scalars of the step. It returns the new parameter and the new state. The same text runs on Python floats, on NumPy
arrays, where augmented assignments work in place, and, compiled by `fuse`, over whole buffers in one pass.

The notes' rules keep their order of operations and round where they round, so they give the same bits.
"""

import numpy as np

__all__ = [
    "adadelta", "adagrad", "adagrad_inside", "adam", "lamb", "lars", "lion", "momentum", "nesterov", "prodigy",
    "rmsprop", "rmsprop_centered", "rmsprop_centered_momentum", "rmsprop_inside", "rmsprop_momentum", "rprop",
    "scaled_momentum", "schedule_free_adamw", "schedule_free_sgd", "sgd", "sign_sgd", "signum",
]  # fmt: skip


def sgd(p, g, lr):
    """Gradient descent. Robbins and Monro (1951), eq. 6; Cauchy (1847)."""
    p -= lr * g
    return p


def momentum(p, g, v, lr, momentum):
    """Momentum, or the heavy ball. Polyak (1964), eq. 9; in this form Sutskever et al. (2013), eqs. 1-2."""
    v = momentum * v - lr * g
    p += v
    return p, v


def scaled_momentum(p, g, v, share, momentum, scale):
    """Momentum scaled in the step, as in PyTorch; ``share`` weighs the gradient. Sutskever et al. (2013), eqs. 1-2."""
    v = momentum * v - share * g
    p += scale * v
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


def schedule_free_sgd(p, g, z, lr, share, lr_p, weight_decay):
    """Gradient descent of ``z``, with gradients taken between it and its average. Defazio et al. (2024), section 2.

    The parameter is the point at which the gradient is taken; ``share`` is the weight of ``z`` in the average.
    """
    step = g + weight_decay * p
    p += share * (z - p)
    p -= lr_p * step
    z -= lr * step
    return p, z


def schedule_free_adamw(p, g, z, v, lr, share, lr_p, weight_decay, root, one_minus_beta2, eps):
    """`schedule_free_sgd` with scaled gradients. Defazio et al. (2024), algorithm 1; ``root`` corrects ``v``."""
    v += one_minus_beta2 * (g * g - v)
    p, z = schedule_free_sgd(p, root * g / (np.sqrt(v) + eps), z, lr, share, lr_p, weight_decay)
    return p, z, v


def adagrad(p, g, h, lr, eps):
    """Steps scaled by the sum of all squared gradients. Duchi, Hazan and Singer (2011), fig. 1, diagonal."""
    h += g * g
    p -= lr * g / (np.sqrt(h) + eps)
    return p, h


def adagrad_inside(p, g, h, lr, eps):
    """AdaGrad with epsilon inside the root, as in optax and Keras. Duchi, Hazan and Singer (2011), fig. 1, diagonal."""
    h += g * g
    p -= lr * g / np.sqrt(h + eps)
    return p, h


def rmsprop(p, g, h, lr, decay_rate, one_minus_decay_rate, eps):
    """Steps scaled by the running mean of squared gradients. Tieleman and Hinton (2012), lecture 6.5, slide 29."""
    h *= decay_rate
    h += one_minus_decay_rate * g * g
    p -= lr * g / (np.sqrt(h) + eps)
    return p, h


def rmsprop_inside(p, g, h, lr, decay_rate, one_minus_decay_rate, eps):
    """RMSprop with epsilon inside the root, as in optax and Keras. Tieleman and Hinton (2012), slide 29."""
    h *= decay_rate
    h += one_minus_decay_rate * g * g
    p -= lr * g / np.sqrt(h + eps)
    return p, h


def rmsprop_centered(p, g, h, a, lr, decay_rate, one_minus_decay_rate, inside, outside):
    """RMSprop scaled by the running variance. Graves (2013), eqs. 38-41; epsilon inside or outside of the root."""
    h *= decay_rate
    h += one_minus_decay_rate * g * g
    a *= decay_rate
    a += one_minus_decay_rate * g
    p -= lr * g / (np.sqrt(variance(h, a) + inside) + outside)
    return p, h, a


def rmsprop_momentum(p, g, h, b, lr, decay_rate, one_minus_decay_rate, inside, outside, momentum, share):
    """RMSprop with momentum ``b`` of scaled gradients. Graves (2013), eqs. 38-41, without the mean."""
    h *= decay_rate
    h += one_minus_decay_rate * g * g
    b *= momentum
    b += share * g / (np.sqrt(h + inside) + outside)
    p -= lr * b
    return p, h, b


def rmsprop_centered_momentum(p, g, h, a, b, lr, decay_rate, one_minus_decay_rate, inside, outside, momentum, share):
    """RMSprop scaled by the running variance, with momentum ``b`` of scaled gradients. Graves (2013), eqs. 38-41."""
    h *= decay_rate
    h += one_minus_decay_rate * g * g
    a *= decay_rate
    a += one_minus_decay_rate * g
    b *= momentum
    b += share * g / (np.sqrt(variance(h, a) + inside) + outside)
    p -= lr * b
    return p, h, a, b


def variance(h, a):
    """Return a variance, from the means of squares and of numbers; rounding could make one near 0 negative."""
    return np.where(h < a * a, 0.0, h - a * a)


def adam(p, g, m, v, lr_t, one_minus_beta1, one_minus_beta2, eps):
    """Momentum with scaled steps. Kingma and Ba (2015), end of section 2: ``lr_t`` includes the bias correction.

    ``lr_t`` is ``lr * sqrt(1 - beta2**t) / (1 - beta1**t)``. ``eps`` is the paper's "epsilon hat": it is added to the
    uncorrected root.
    """
    m += one_minus_beta1 * (g - m)
    v += one_minus_beta2 * (g * g - v)
    p -= lr_t * m / (np.sqrt(v) + eps)
    return p, m, v


def adadelta(p, g, s, a, lr, one_minus_rho, eps):
    """Steps in the unit of the parameters. Zeiler (2012), algorithm 1."""
    s += one_minus_rho * (g * g - s)
    step = np.sqrt(a + eps) / np.sqrt(s + eps) * g
    a += one_minus_rho * (step * step - a)
    p -= lr * step
    return p, s, a


def lamb(p, g, m, v, lr, one_minus_beta1, one_minus_beta2, m_scale, v_scale, eps, kept, weight_decay, ratio):
    """Adam with the step of each array scaled to the norm of its parameter. You et al. (2020), algorithm 2."""
    m += one_minus_beta1 * (g - m)
    v += one_minus_beta2 * (g * g - v)
    p *= kept
    p -= lr * ratio * (m_scale * m / (np.sqrt(v_scale * v) + eps) + weight_decay * p)
    return p, m, v


def lamb_norms(p, g, m, v, _lr, one_minus_beta1, one_minus_beta2, m_scale, v_scale, eps, kept, weight_decay):
    """Return the parameter and the step of `lamb` without its ratio; the ratio follows from their norms."""
    m += one_minus_beta1 * (g - m)
    v += one_minus_beta2 * (g * g - v)
    p *= kept
    return p, m_scale * m / (np.sqrt(v_scale * v) + eps) + weight_decay * p


def lars(p, g, v, lr_in, lr_out, momentum, weight_decay, _within, _coefficient, _eps, ratio):
    """Momentum whose step is scaled to the norm of each array's parameter. You et al. (2017), algorithm 1."""
    v *= momentum
    v += lr_in * ratio * (g + weight_decay * p)
    p -= lr_out * v
    return p, v


def lars_norms(p, g, _v, _lr_in, _lr_out, _momentum, _weight_decay, within, _coefficient, _eps):
    """Return the parameter, and the gradient with the decay within its norm; the ratio of `lars` follows from norms."""
    return p, g + within * p


def sign_sgd(p, g, lr):
    """Steps of one length, against the sign of the gradient. Bernstein et al. (2018), algorithm 1."""
    p -= lr * np.sign(g)
    return p


def signum(p, g, m, lr, one_minus_beta):
    """Steps of one length, against the sign of the mean gradient. Bernstein et al. (2018), algorithm 2."""
    m += one_minus_beta * (g - m)
    p -= lr * np.sign(m)
    return p, m


def rprop(p, g, previous, step_size, lr, eta_minus, eta_plus, step_min, step_max):
    """Steps that grow while the gradient keeps its sign. Igel and Hüsken (2000), iRprop-; a new step size is 0."""
    agreement = np.sign(g) * np.sign(previous)
    resized = np.where(agreement > 0, eta_plus * step_size, np.where(agreement < 0, eta_minus * step_size, step_size))
    step_size = np.clip(np.where(step_size > 0, resized, lr), step_min, step_max)
    previous = np.where(agreement < 0, 0, g)
    p -= np.sign(previous) * step_size
    return p, previous, step_size


def lion(p, g, m, lr, beta1, one_minus_beta1, one_minus_beta2):
    """Steps of one length, against the sign of an interpolated momentum. Chen et al. (2023), algorithm 2."""
    p -= lr * np.sign(beta1 * m + one_minus_beta1 * g)
    m += one_minus_beta2 * (g - m)
    return p, m


def prodigy(p, g, p0, m, v, s, lr_t, beta1, beta2, beta3, of_m, of_v, of_s, _of_sum, decay, eps, d):
    """Adam whose step is an estimate ``d`` of the distance to the solution. Mishchenko and Defazio (2024).

    The means are those of ``d * g``; ``d`` is already that of the next step.
    """
    m *= beta1
    m += of_m * g
    v *= beta2
    v += of_v * (g * g)
    s *= beta3
    s += of_s * g
    p -= decay * p
    p -= lr_t * m / (np.sqrt(v) + d * eps)
    return p, p0, m, v, s


def prodigy_sums(p, g, p0, _m, _v, s, _lr_t, _beta1, _beta2, beta3, _of_m, _of_v, of_s, of_sum, _decay, _eps):
    """Return the terms of the numerator and the denominator of the estimate of `prodigy`."""
    s *= beta3
    s += of_s * g
    return of_sum * (g * (p0 - p)), np.abs(s)
