"""Values of other libraries and shapes of containers get an error that shows the conversion, which works."""

import sys
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
from fastoptim.hyperparameters import Hyperparameter


def foreign(module, name):
    """An object of a class that seems to be another library's."""
    return type(name, (), {"__module__": module, "shape": (3,), "dtype": "float32"})()


FOREIGN = {
    "torch": ("torch", "Tensor", "t.detach().numpy()"),
    "torch.nn": ("torch.nn.parameter", "Parameter", "t.detach().numpy()"),
    "JAX": ("jaxlib._jax", "ArrayImpl", "np.array(x)"),
    "JAX tracer": ("jax._src.interpreters.partial_eval", "DynamicJaxprTracer", "np.array(x)"),
    "Series": ("pandas.core.series", "Series", "x.to_numpy()"),
    "DataFrame": ("pandas", "DataFrame", "x.to_numpy()"),
    "CuPy": ("cupy", "ndarray", "cupy.asnumpy(x)"),
    "TensorFlow": ("tensorflow.python.framework.ops", "EagerTensor", "x.numpy()"),
}


def refused(params, grads, error=TypeError):
    """The message of the error; nothing has changed."""
    opt = fo.Adam()
    with pytest.raises(error) as caught:
        opt.update(params, grads)
    assert opt.iter == 0
    assert opt.m is None
    return str(caught.value)


@pytest.mark.parametrize("kind", FOREIGN)
def test_values_of_other_libraries(kind):
    module, name, conversion = FOREIGN[kind]
    value, w, g = foreign(module, name), np.ones(3), np.ones(3)
    message = refused({"a": w, "w": value}, {"a": g, "w": g})
    assert "parameter 'w'" in message
    assert name in message
    assert conversion in message
    message = refused({"a": w, "w": w}, {"a": g, "w": value})
    assert "gradient of 'w'" in message
    assert name in message
    assert conversion in message
    assert_array_equal(w, 1)


def test_a_library_that_only_sounds_like_another():
    message = refused({"w": foreign("torchlight", "Tensor")}, {"w": np.ones(3)})
    assert "detach" not in message
    assert "expected a NumPy array" in message


@pytest.mark.parametrize("side", ["params", "grads"])
def test_nested_dicts(side):
    nested = {"layer1": {"W": np.ones((2, 2)), "b": np.ones(2)}}
    flat = {"layer1": np.ones(2)}
    message = refused(*((nested, flat) if side == "params" else (flat, nested)))
    assert "'layer1'" in message
    assert '"layer1/W"' in message


@pytest.mark.parametrize("side", ["params", "grads"])
@pytest.mark.parametrize("values", [[1.0, 2.0], (1.0, 2.0), [[1.0], [2.0]]])
def test_lists_of_numbers(side, values):
    arrays = {"w": np.ones(2)}
    message = refused(*(({"w": values}, arrays) if side == "params" else (arrays, {"w": values})))
    assert "'w'" in message
    assert "np.array(x)" in message
    assert_array_equal(arrays["w"], 1)


def test_one_array_in_place_of_a_dict():
    w, g = np.ones(3), np.ones(3)
    assert "update([w], [g])" in refused(w, g)
    assert "update([w], [g])" in refused(w, {"w": g})
    fo.SGD(lr=1.0).update([w], [g])
    assert_array_equal(w, 0)


@pytest.mark.parametrize("other", ["text", 3, None, {1, 2}, iter([])])
def test_other_containers(other):
    message = refused(other, {"w": np.ones(3)})
    assert "two dicts or two lists" in message
    assert type(other).__name__ in message


def test_integers_as_parameters_name_the_conversion():
    message = refused({"w": np.arange(3)}, {"w": np.ones(3)})
    assert "int64" in message
    assert ".astype" in message


def test_read_only_arrays_name_the_remedy():
    w = np.ones(3)
    w.flags.writeable = False
    assert "pass a writable copy" in refused({"w": w}, {"w": np.ones(3)}, ValueError)


def test_the_libraries_are_not_imported():
    """The hint looks at the name of a class; an import would take seconds."""
    before = set(sys.modules)
    refused({"w": foreign("tensorflow.python", "EagerTensor")}, {"w": np.ones(3)})
    assert not {"torch", "jax", "pandas", "cupy", "tensorflow"} & (set(sys.modules) - before)
    assert isinstance(sys.modules["fastoptim"], ModuleType)


NUMBERS = {
    "np.float32": np.float32,
    "np.float64": np.float64,
    "np.float16": np.float16,
    "0-d array": lambda x: np.array(x, np.float32),
    "np.longdouble": np.longdouble,
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam", "AdamW"])
@pytest.mark.parametrize("p_kind", ["f4", "f8"])
def test_hyperparameters_of_numpy_types_act_as_python_floats(name, kind, p_kind):
    """They are as weak as Python's, and the scalars of a step are computed in Python floats."""
    make, optimizer = NUMBERS[kind], getattr(fo, name)
    names = [key for key, value in optimizer._declared.items() if isinstance(value, Hyperparameter)]
    assert "lr" in names
    # In float16 the default of epsilon is zero.
    values = {key: make(max(getattr(optimizer(), key), 1e-4)) for key in names}
    numpy_opt, python_opt = optimizer(**values), optimizer(**{key: float(value) for key, value in values.items()})
    for key, value in values.items():
        assert type(getattr(numpy_opt, key)) is float
        assert getattr(numpy_opt, key) == float(value)
    results = []
    for opt in numpy_opt, python_opt:
        params = {"w": np.full(5, 0.7, p_kind), "x": 0.7}
        for step in range(3):
            opt.update(params, {"w": np.linspace(-1, 1, 5).astype(p_kind) + step, "x": 0.3})
        results.append((params["w"].tobytes(), params["x"], [getattr(opt, slot)["w"].tobytes() for slot in opt.slots]))
    assert results[0] == results[1]


def test_a_numpy_hyperparameter_set_later():
    opt = fo.SGD()
    opt.lr = np.float32(0.1)
    assert type(opt.lr) is float
    assert opt.lr == float(np.float32(0.1))
    assert repr(opt) == f"SGD(lr={float(np.float32(0.1))}, iter=0)"


class WithArray:
    """An array of another library, with the array protocol."""

    def __init__(self, array, error=None):
        self.array, self.error = array, error

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return self.array


class WithDLPack:
    """An array of another library, with DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **how):
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Tensor:
    """What the conversions use of torch's tensors."""

    dtype = "torch.float64"

    def __init__(self, array, is_leaf=True, layout="torch.strided", device="cpu", fails=False):
        self.array, self.is_leaf, self.layout, self.fails = array, is_leaf, layout, fails
        self.requires_grad, self.version, self.device = True, 0, ModuleType("device")
        self.device.type = device

    def detach(self):
        detached = Tensor(self.array, fails=self.fails)
        detached.requires_grad = False
        return detached

    def numpy(self):
        if self.requires_grad or self.fails:
            raise RuntimeError("Can't call numpy()")
        return self.array

    def is_inference(self):
        return False


@pytest.fixture
def tensors(monkeypatch):
    """The class of tensors, as if torch was imported."""

    def increment_version(changed):
        for tensor in changed:
            tensor.version += 1

    torch = ModuleType("torch")
    torch.Tensor, torch.autograd, torch.bfloat16 = Tensor, ModuleType("autograd"), "torch.bfloat16"
    torch.autograd.graph = ModuleType("graph")
    torch.autograd.graph.increment_version = increment_version
    monkeypatch.setitem(sys.modules, "torch", torch)
    return Tensor


OTHERS = {"array": WithArray, "DLPack": WithDLPack, "read-only": lambda g: WithArray(read_only(g))}


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("options", [{}, {"centralize": True}, {"on_nonfinite": "raise"}, {"accumulate": 2}], ids=str)
@pytest.mark.parametrize("kind", OTHERS)
def test_gradients_of_other_libraries(kind, options):
    g = np.random.default_rng(0).normal(size=(2, 3))
    results = []
    for own in (lambda g: g, OTHERS[kind]):
        params, opt = {"w": np.ones((2, 3)), "x": 1.0}, fo.Adam(lr=0.1, **options)
        for step in range(4):
            opt.update(params, {"w": own(g + step), "x": own(np.array(2.0)), "other": WithArray(None, TypeError())})
        results.append((params["w"].tobytes(), params["x"], opt.m["w"].tobytes()))
        assert len(opt._plans) <= 2
    assert results[0] == results[1]


def test_gradients_are_not_copied():
    g, seen = read_only(np.ones(3)), []
    params, opt = {"w": np.ones(3)}, fo.SGD()
    opt.update(params, {"w": WithArray(g)})
    bind = opt._plan.bind
    opt._plan.bind = lambda *containers: seen.append(containers[1]["w"]) or bind(*containers)
    opt.update(params, {"w": WithArray(g)})
    assert seen[-1] is g


def test_as_parameters_they_are_an_error():
    w = np.ones(3)
    assert "expected a NumPy array" in refused({"w": WithArray(w)}, {"w": w})
    assert "expected a NumPy array" in refused({"w": WithDLPack(w)}, {"w": w})


def test_the_other_library_says_why():
    message = refused({"w": np.ones(3)}, {"w": WithArray(None, RuntimeError("it lies on the device gpu:0"))})
    assert "it lies on the device gpu:0" in message
    assert "dtype object" in refused({"w": np.ones(3)}, {"w": WithArray(np.array([None] * 3))})


@pytest.mark.parametrize("container", [dict, list])
def test_tensors(tensors, container):
    w, plain, g = np.ones(3), np.ones(2), np.full(3, 0.5)
    arrays = {"w": tensors(w), "plain": plain, "x": 1.0}
    grads = {"w": tensors(g), "plain": np.ones(2), "x": 2.0}
    params, grads = (arrays, grads) if container is dict else (list(arrays.values()), list(grads.values()))
    opt = fo.SGD(lr=0.5)
    for _ in range(2):
        opt.update(params, grads)
    assert_array_equal(w, 0.5)
    assert_array_equal(plain, 0)
    assert params["x" if container is dict else 2] == -1
    assert arrays["w"].version == 2
    assert len(opt._plans) == 1


def test_tensors_in_checkpoints_and_averages(tensors, tmp_path):
    params = {"w": tensors(np.ones(3))}
    opt = fo.ScheduleFreeSGD(lr=0.5)
    for _ in range(2):
        opt.update(params, {"w": tensors(np.ones(3))})
    before = params["w"].array.copy()
    with opt.evaluation(params):
        assert abs(params["w"].array - before).max() > 0.01
    opt.save(tmp_path / "a", params)
    assert params["w"].version == 2
    params["w"].array[:] = 0
    fo.load(tmp_path / "a", params)
    assert_array_equal(params["w"].array, before)


def test_tensors_that_are_refused(tensors):
    w = np.ones(3)
    for wrong, hint in (
        (tensors(w, is_leaf=False), "t.detach() shares the memory"),
        (tensors(w, fails=True, device="cuda"), "t.detach().cpu().numpy()"),
        (tensors(w, fails=True, layout="torch.sparse_coo"), "fo.Rows(t.indices()[0].numpy(), t.values().numpy())"),
        (tensors(w, fails=True, layout="torch.sparse_csr"), "t.to_dense()"),
    ):
        assert hint in refused({"w": wrong}, {"w": w})
        assert wrong.version == 0
        if wrong.fails:
            assert hint in refused({"w": w}, {"w": wrong})
    assert_array_equal(w, 1)


def test_arrays_of_jax():
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    w, g = np.ones(3, np.float32), jnp.arange(3.0)
    fo.SGD(lr=1.0).update({"w": w, "x": 1.0}, {"w": g, "x": jnp.float32(2)})
    assert_array_equal(w, [1, 0, -1])
    assert "np.array(x)" in refused({"w": g}, {"w": w})


def test_gradients_of_autograd():
    autograd = pytest.importorskip("autograd", reason="autograd is not installed")
    params = {"layer": [{"W": np.ones((2, 2)), "b": np.zeros(2)}]}
    grads = autograd.grad(lambda p: (p["layer"][0]["W"] ** 2).sum() + p["layer"][0]["b"].sum())(params)
    fo.SGD(lr=0.25).update(fo.tree(params), fo.tree(grads))
    assert_array_equal(params["layer"][0]["W"], 0.5)
    assert_array_equal(params["layer"][0]["b"], -0.25)
