"""Arrays that are altered in place between updates, and by what an update calls."""

import sys

import numpy as np
import pytest

import fastoptim as fo
from fastoptim.update.fallback import FallbackTask
from naive import assert_bits


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no mprotect")
def test_alterations_between_guard_pages():
    import attack_arrays

    attack_arrays.main(150)


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
@pytest.mark.parametrize("which", ["params", "grads"])
def test_altered_view_of_a_flat_dict_is_updated_as_an_array(which):
    """The buffer alone would be updated in the order in which its elements lie."""
    arrays = [fo.flatten({"w": np.arange(9.0).reshape(3, 3) + k, "b": np.ones(2)}) for k in (0, 5)]
    altered = arrays[which == "grads"]["w"]
    try:
        altered.strides = altered.strides[::-1]
    except AttributeError:
        pytest.skip("this NumPy does not set strides")
    expected = arrays[0]["w"] - arrays[1]["w"]
    fo.SGD(lr=1.0).update(*arrays)
    assert_bits(expected, arrays[0]["w"])


def freeze(a):
    a.flags.writeable = False


def reshape(a):
    a.shape = (2, 2)


def reinterpret(a):
    a.dtype = np.float32


@pytest.mark.parametrize("alter", [freeze, reshape])
@pytest.mark.parametrize("key", ["a", "b"])
def test_fallback_writes_what_it_has_checked(alter, key):
    """Otherwise the write of one array would fail when others are written."""
    params, grads = ({key: np.ones(4, np.longdouble) for key in "ab"} for _ in range(2))
    whole = {key: p.view() for key, p in params.items()}
    opt = fo.SGD(lr=1.0)
    opt.scalars = lambda: (alter(params[key]), (1.0,))[1]
    opt.update(params, grads)
    for name, p in whole.items():
        assert_bits(np.zeros(4, np.longdouble), p, name)


class Altering(dict):
    """A dict that alters its array when it is asked for its length, which is when an update is planned."""

    def __len__(self):
        self.alter(self["w"])
        return super().__len__()


@pytest.mark.parametrize("alter", [freeze, reshape, reinterpret])
def test_array_altered_while_an_update_is_planned(alter):
    """What is planned is the array that was checked; a kernel of another dtype or length would write elsewhere."""
    memory = np.ones(12)
    params = Altering(w=memory[4:8])
    params.alter = alter
    fo.SGD(lr=1.0).update(params, {"w": np.ones(4)})
    assert_bits(np.repeat([1.0, 0.0, 1.0], 4), memory)


class Branching(fo.SGD):
    """Steps downhill by less where the gradient is large, which the fallback decides for each element."""

    @staticmethod
    def rule(p, g, lr):
        return p - lr * g if g < 1 else p - lr


@pytest.mark.parametrize("altered", [0, 1])
def test_array_that_gets_another_size_when_it_is_bound(altered, monkeypatch):
    """As another thread may do between the check of the arrays and the update."""
    arrays = [{"w": np.ones(4, np.longdouble)} for _ in range(2)]
    opt, memory = Branching(lr=1.0), arrays[0]["w"].view()
    opt.update(*arrays)
    bind = FallbackTask.bind

    def reinterpreting(*args):
        arrays[altered]["w"].dtype = np.float64
        return bind(*args)

    monkeypatch.setattr(FallbackTask, "bind", reinterpreting)
    with pytest.raises(ValueError, match="argument 2 is"):
        opt.update(*arrays)
    assert_bits(np.zeros(4, np.longdouble), memory)
    assert opt.iter == 1
