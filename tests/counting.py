"""An optimizer whose arrays count its steps, and one case for each path of an update."""

import numpy as np
from numpy.testing import assert_array_equal

import fastoptim as fo


class Count(fo.Optimizer):
    """With gradients of one, the state is the number of steps and each parameter is its negative."""

    slots = ("n",)

    def scalars(self):
        return ()

    @staticmethod
    def rule(p, g, n):
        n += g
        p -= g
        return p, n


def strided(dtype=np.float64):
    return np.zeros((6, 4), dtype)[:, ::2]


def interleaved():
    """Return two arrays whose memory ranges overlap, although they share no element."""
    both = np.zeros(10)
    return {"a": both[::2], "b": both[1::2]}


# One case for each path of an update: a function that makes parameters, and the gradients' dtypes if they differ.
WAYS = {
    "flat": (lambda: fo.flatten({"a": np.zeros(5), "b": np.zeros(3)}), None),
    "separate": (lambda: {"a": np.zeros(5), "b": np.zeros((2, 3))}, None),
    "two dtypes": (lambda: {"a": np.zeros(5), "b": np.zeros(5, np.float32)}, None),
    "strided": (lambda: {"a": strided(), "b": np.zeros(3), "c": strided(np.float32)}, None),
    "fallback": (lambda: {"a": np.zeros(5, np.longdouble), "b": 0.0, "c": np.zeros(3)}, None),
    "overlapping": (interleaved, None),
    "floats": (lambda: {"a": 0.0, "b": 0.0}, None),
    "mixed": (lambda: {"a": np.zeros(5), "b": np.zeros(5, np.float32), "c": strided()}, {"a": np.float32}),
}


def ones(params, dtypes):
    arrays = {key: np.ones(np.shape(p), (dtypes or {}).get(key, np.asarray(p).dtype)) for key, p in params.items()}
    return {key: float(g) if type(params[key]) is float else g for key, g in arrays.items()}


def assert_steps(opt, params, steps):
    assert opt.iter == steps
    for key, p in params.items():
        assert_array_equal(p, -steps, err_msg=key)
    if steps == 0:
        assert opt.n is None
    else:
        for key, n in opt.n.items():
            assert_array_equal(n, steps, err_msg=key)
    assert len(opt._guard) == 1
