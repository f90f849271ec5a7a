"""`minimize` and `scipy_method`: SciPy's arguments and results, and the steps of the optimizer."""

import numpy as np
import pytest
from scipy import optimize

import fastoptim as fo


def bowl(x):
    return float(((x - 3.0) ** 2).sum())


def slope(x):
    return 2 * (x - 3.0)


def test_the_iterates_are_those_of_the_optimizer():
    opt, x = fo.Momentum(lr=0.1), {"x": np.array([0.0, 10.0])}
    iterates = [x["x"].copy()]
    for _ in range(7):
        opt.update(x, {"x": slope(x["x"])})
        iterates.append(x["x"].copy())
    seen = []
    fo.minimize(bowl, [0.0, 10.0], jac=slope, optimizer=fo.Momentum(lr=0.1), maxiter=7, callback=seen.append)
    np.testing.assert_array_equal(seen, iterates)


def test_the_best_point_is_returned_and_counted():
    values = []

    def fun(x):
        values.append(bowl(x))
        return values[-1]

    result = fo.minimize(fun, np.zeros(3), jac=slope, optimizer=fo.Momentum(lr=0.3), maxiter=7)
    assert result.fun == min(values) == bowl(result.x)
    assert values.index(min(values)) < 7
    np.testing.assert_array_equal(result.jac, slope(result.x))
    assert (result.nit, result.nfev, result.njev, result.status, result.success) == (7, 8, 9, 1, False)
    assert "maxiter" in result.message


def test_value_and_gradient_from_one_function():
    separate = fo.minimize(bowl, [0.0], jac=slope, optimizer=fo.SGD(lr=0.1), maxiter=50)
    both = fo.minimize(lambda x: (bowl(x), slope(x)), [0.0], jac=True, optimizer=fo.SGD(lr=0.1), maxiter=50)
    assert both.x == separate.x
    assert both.nfev <= both.nit + 2


def test_differences_arguments_and_shapes():
    target = np.arange(6.0).reshape(2, 3)
    result = fo.minimize(
        lambda x, scale: float((scale * (x - target) ** 2).sum()), np.zeros((2, 3)), (0.5,), optimizer=fo.SGD(lr=0.5)
    )
    assert result.success
    np.testing.assert_allclose(result.x, target, atol=1e-4)


@pytest.mark.parametrize(
    "bounds", [[(None, 1.0), (None, None)], optimize.Bounds([-np.inf, -np.inf], [1.0, np.inf])], ids=["pairs", "Bounds"]
)
def test_bounds(bounds):
    seen = []
    result = fo.minimize(
        bowl, [9.0, 9.0], jac=slope, optimizer=fo.SGD(lr=0.3), bounds=bounds, callback=lambda x: seen.append(x[0])
    )
    assert (max(seen), result.status) == (1.0, 0)
    np.testing.assert_allclose(result.x, [1.0, 3.0], atol=1e-4)


def test_patience():
    calls = []

    def fun(x):
        calls.append(0)
        return abs(float(x[0]) - 0.55)

    result = fo.minimize(fun, [1.0], jac=np.ones_like, optimizer=fo.SGD(lr=0.1), patience=3, every=2)
    # 1.0, 0.8, 0.6 and then 0.4, 0.2, 0.0.
    assert (result.status, result.success, result.nit, len(calls)) == (2, True, 10, 6)
    assert result.x == pytest.approx(0.6)
    assert "3 evaluations" in result.message


def test_random_gradients_have_the_generator_and_no_tolerance():
    drawn = []

    def jac(x, rng):
        drawn.append(rng.random())
        return np.zeros_like(x)

    result = fo.minimize(bowl, [0.0], jac=jac, maxiter=4, rng=5)
    assert drawn == list(np.random.default_rng(5).random(5))
    assert (result.nit, result.status) == (4, 1)
    assert "jac" not in result


@pytest.mark.parametrize(
    "make", [lambda: fo.SGD(lr=0.1, ema=0.9), lambda: fo.ScheduleFreeSGD(lr=0.3)], ids=["ema", "schedule-free"]
)
def test_averages_are_evaluated_and_returned(make):
    opt, params = make(), {"x": np.zeros(2)}
    for _ in range(5):
        opt.update(params, {"x": slope(params["x"])})
    if hasattr(opt, "evaluation"):
        with opt.evaluation(params):
            expected = params["x"].copy()
    else:
        expected = opt.averaged["x"]
    result = fo.minimize(bowl, np.zeros(2), jac=slope, optimizer=make(), maxiter=5)
    np.testing.assert_array_equal(result.x, expected)
    assert (result.x != params["x"]).all()


def test_callbacks_of_both_kinds():
    def stop(intermediate_result):
        assert intermediate_result.fun == bowl(intermediate_result.x)
        if intermediate_result.nit == 3:
            raise StopIteration

    result = fo.minimize(bowl, [0.0], jac=slope, optimizer=fo.SGD(lr=0.1), callback=stop)
    assert (result.nit, result.status, result.success) == (3, 3, False)


def test_gradient_that_is_not_finite_ends_the_search_at_the_best_point():
    result = fo.minimize(
        bowl, [0.0], jac=lambda x: slope(x) if x[0] < 1 else x * np.nan, optimizer=fo.SGD(lr=0.1), maxiter=50
    )
    assert (result.nit, result.status) == (2, 4)
    assert result.x == pytest.approx(1.08)


def test_float32_stays_float32():
    result = fo.minimize(bowl, np.zeros(2, np.float32), jac=slope, optimizer=fo.SGD(lr=0.25))
    assert result.x.dtype == np.float32
    assert result.success


def test_an_optimizer_goes_on_and_a_method_begins_anew():
    opt = fo.Adam(lr=0.1)
    fo.minimize(bowl, [0.0], jac=slope, optimizer=opt, maxiter=4)
    assert opt.iter == 4
    method = fo.scipy_method(opt, maxiter=3)
    first, second = (optimize.minimize(bowl, [0.0], jac=slope, method=method) for _ in range(2))
    assert first.x == second.x
    assert (opt.iter, first.nit) == (4, 3)


def test_scipy_passes_its_arguments():
    seen = []
    result = optimize.minimize(
        lambda x, a: (float(((x - a) ** 2).sum()), 2 * (x - a)),
        [0.0, 0.0],
        (2.0,),
        jac=True,
        method=fo.scipy_method(fo.SGD(lr=0.4), maxiter=1),
        bounds=[(None, None), (None, 1.5)],
        tol=1e-3,
        callback=lambda x: seen.append(x),
        options={"maxiter": 100},
    )
    assert result.status == 0
    assert len(seen) == result.nit + 1
    np.testing.assert_allclose(result.x, [2.0, 1.5], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": fo.Adam}, "an optimizer such as fo.Adam(lr=0.1), not <class 'fastoptim.optimizers.adam.Adam'>;"),
        ({"optimizer": fo.Adam}, "; did you mean Adam()?"),
        ({"jac": "3-point"}, "jac must be a function"),
        ({"jac": None, "rng": 1}, "pass a function as jac"),
        ({"jac": lambda _: np.zeros(3)}, "(2,) of x, got (3,)"),
        ({"fun": lambda x: x}, "one number, got an array of shape (2,)"),
        ({"bounds": [(0, 1)]}, "each of the 2 elements of x, got 1"),
        ({"bounds": optimize.Bounds([0, 0, 0], [1, 1, 1])}, "each of the 2 elements of x"),
        ({"bounds": [(0, 1), (1, 0)]}, "low <= high"),
        ({"bounds": [0, 1]}, "(low, high)"),
        ({"bounds": 3}, "(low, high)"),
        ({"x0": [1j, 0]}, "real numbers, got dtype complex128"),
        ({"jac": True}, "fun must return (value, gradient), got float"),
        ({"fun": 3}, "fun must be a function of x, got 3"),
        ({"callback": 3}, "callback must be a function, got 3"),
        ({"maxiter": -1}, "maxiter must be an integer >= 0, not -1"),
        ({"maxiter": None}, "maxiter must be an integer >= 0, not None"),
        ({"every": 0}, "every must be an integer >= 1, not 0"),
        ({"patience": 0}, "patience must be an integer >= 1, not 0"),
        ({"tol": float("nan")}, "tol must be a number >= 0, not nan"),
        ({"tol": "a"}, "tol must be a number, not 'a'"),
        ({"tol": True}, "tol must be a number, not True"),
        ({"fun": lambda _: None}, "fun must return one number, got None: is a return missing?"),
        ({"jac": lambda _: None}, "the gradient must be an array, got None: is a return missing?"),
    ],
    ids=range(24),
)
def test_errors(change, message):
    arguments = {"fun": bowl, "x0": np.zeros(2), "jac": slope} | change
    with pytest.raises((TypeError, ValueError)) as caught:
        fo.minimize(arguments.pop("fun"), arguments.pop("x0"), **arguments)
    assert message in str(caught.value)


def test_a_method_is_checked_when_it_is_made():
    with pytest.raises(TypeError, match=r"optimizer such as fo.Adam\(lr=0.1\), not 3"):
        fo.scipy_method(3)
    with pytest.raises(TypeError, match="no option 'patients'; did you mean 'patience'"):
        fo.scipy_method(fo.SGD(), patients=3)


def test_constraints_are_an_error():
    constraint = optimize.LinearConstraint(np.eye(2), 0, 1)
    with pytest.raises(ValueError, match="no other constraints"):
        optimize.minimize(bowl, np.zeros(2), jac=slope, method=fo.scipy_method(fo.SGD()), constraints=constraint)
