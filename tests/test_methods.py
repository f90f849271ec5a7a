"""The built-in functions of compiled code: what they accept, whom they keep alive, and scalars of every type."""

import gc
import sys
import weakref

import numpy as np
import pytest

import fastoptim as fo
import script
from fastoptim.kernels import table
from fastoptim.kernels.jit import DISABLED
from fastoptim.kernels.parallel import run_short
from naive import assert_bits

pytestmark = pytest.mark.skipif(DISABLED, reason="needs compiled code")


class Pair(tuple):
    """A tuple of another type."""


class Half(float):
    """A float of another type."""


AS_FLOATS = {
    "list": list,
    "tuple of another type": Pair,
    "float of another type": lambda values: (Half(values[0]), values[1]),
    "integer": lambda values: (values[0], int(values[1])),
    "bool": lambda values: (values[0], bool(values[1])),
    "float64": lambda values: tuple(map(np.float64, values)),
    "float32 after a float": lambda values: (values[0], np.float32(values[1])),
}


class TwoScalars(fo.Optimizer):
    def scalars(self):
        return self._convert((0.1, 1.0))

    @staticmethod
    def rule(p, g, lr, share):
        return p - lr * share * g


@pytest.mark.parametrize("kind", AS_FLOATS)
def test_scalars_of_other_types_act_as_python_floats(kind):
    opt, params, expected = TwoScalars(), {"w": np.ones(3), "x": np.ones(2)}, {"w": np.ones(3), "x": np.ones(2)}
    reference = TwoScalars()
    reference._convert = tuple
    for convert in tuple, AS_FLOATS[kind], tuple, AS_FLOATS[kind]:
        opt._convert = convert
        opt.update(params, params)
        reference.update(expected, expected)
        assert_bits(params["w"], expected["w"])
        assert_bits(params["x"], expected["x"])
    assert opt.iter == 4


@pytest.mark.parametrize(
    "wrong", [None, 0.5, (), (0.5,), (0.5, 0.5, 0.5), (0.5, None), ("0.5", 0.5), (0.5, 1j), [0.5], "ab", (0.5, [0.5])]
)
def test_scalars_that_are_not_as_many_numbers_change_nothing(wrong):
    opt, params = TwoScalars(), {"w": np.ones(3)}
    opt._convert = tuple
    opt.update(params, {"w": np.ones(3)})
    before = params["w"].copy()
    opt._convert = lambda _: wrong
    with pytest.raises(TypeError, match=r"after its state, 2 numbers, but it returned "):
        opt.update(params, {"w": np.ones(3)})
    assert_bits(params["w"], before)
    assert opt.iter == 1
    opt._convert = tuple
    opt.update(params, {"w": np.ones(3)})
    assert opt.iter == 2


def test_a_method_returns_references_that_its_caller_owns():
    opt, params = fo.SGD(), {"w": 1.0, "x": 1.0}
    for _ in range(2):
        opt.update(params, params)
    bind, arrays = opt._plan._kernels.bind_rows, ((1.0, 1.0), (1.0, 1.0))
    objects = True, False, arrays, opt._plan._kernels._check
    before = [sys.getrefcount(each) for each in objects]
    for _ in range(1000):
        assert bind(arrays) is True
        assert bind(((1.0, 1), (1.0, 1.0))) is False
    assert [sys.getrefcount(each) for each in objects] == pytest.approx(before, abs=100)


def test_numbers_and_keys_are_kept_alive_by_the_dict_alone():
    keys = [f"key {k}" for k in range(3)]
    params, opt = dict.fromkeys(keys, 1.0), fo.SGD()
    grads = dict.fromkeys(params, 0.5)
    opt.update(params, grads)
    before = [sys.getrefcount(each) for each in (params, grads, *keys)]
    for _ in range(1000):
        opt.update(params, grads)
    assert [sys.getrefcount(each) for each in (params, grads, *keys)] == before
    others = {key: float(f"1.{k}") for k, key in enumerate(keys)}
    assert [sys.getrefcount(params[key]) for key in keys] == [sys.getrefcount(others[key]) for key in keys]


def test_a_method_takes_as_many_arguments_as_its_function():
    program = np.zeros(2, np.intp)
    run = run_short(program)
    assert run() is True
    assert program[table.COMMITTED] == 1
    for call in lambda: run(1), lambda: table.set_scalars(program)(), lambda: table.bind(program)((), ()):
        with pytest.raises(TypeError, match="argument"):
            call()


def test_a_bound_method_keeps_its_array_alive():
    array = np.array([0, 0, id(tuple), id(float)], np.intp)
    method, reference = table.set_scalars(array), weakref.ref(array)
    del array
    gc.collect()
    assert reference() is not None
    assert method(()) is True
    assert method((1.0,)) is False
    del method
    assert reference() is None


def test_without_compilation_no_method_is_compiled(tmp_path):
    source = """
        import numpy as np

        import fastoptim as fo

        params, numbers = {"w": np.ones(2)}, {"x": 1.0, "y": 2.0}
        opt, other = fo.SGD(0.5), fo.SGD(0.5)
        for _ in range(2):
            opt.update(params, {"w": np.ones(2)})
            other.update(numbers, {"x": 1.0, "y": 1.0})
        print(params["w"].tolist(), numbers)
        """
    cache = tmp_path / "cache"
    found = script.run(source, tmp_path, NUMBA_DISABLE_JIT="1", NUMBA_CACHE_DIR=str(cache))
    assert found == "[0.0, 0.0] {'x': 0.0, 'y': 1.0}"
    assert not list(cache.rglob("*.nb*"))
