"""Estimators in the manner of scikit-learn, against its own."""

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_digits, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import fastoptim as fo
from fastoptim.family import FAMILY
from fastoptim.minimization import averages
from fastoptim.network import runner
from fastoptim.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore:max_iter:sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:500] / 16, Y[:500]
LABELS = np.stack([Y % 2, Y > 4, Y == 3], axis=1).astype(int)
X_NUMBERS, NUMBERS = make_regression(300, 12, n_targets=3, noise=1.0, random_state=0)
WEIGHTS = np.random.default_rng(0).uniform(0.1, 3, 500)

TARGETS = {
    "classes": (MLPClassifier, X, Y),
    "two classes": (MLPClassifier, X, np.where(Y > 4, 7, 3)),
    "labels": (MLPClassifier, X, LABELS),
    "numbers": (MLPRegressor, X_NUMBERS, NUMBERS[:, 0]),
    "rows of numbers": (MLPRegressor, X_NUMBERS, NUMBERS / 100),
}


CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{getattr(check, 'func', check).__name__}")
    for cls in (MLPClassifier, MLPRegressor)
    for estimator, check in estimator_checks_generator(cls(max_iter=30))
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_estimator_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def theirs(cls, **options):
    """The class of scikit-learn with the same name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(neural_network, cls.__name__)(random_state=0, max_iter=6, **options)


def assert_equal_models(ours, peer, x, rtol=1e-9):
    for own, other in zip(ours.coefs_ + ours.intercepts_, peer.coefs_ + peer.intercepts_, strict=True):
        assert_allclose(own, other, rtol=rtol, atol=rtol)
    assert_allclose(ours.loss_curve_, peer.loss_curve_, rtol=rtol)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(peer, name), name
    assert_allclose(ours.validation_scores_ or [], peer.validation_scores_ or [])
    assert_allclose(ours.best_loss_ or 0, peer.best_loss_ or 0, rtol=rtol)
    if hasattr(peer, "classes_"):
        assert_array_equal(ours.predict(x), peer.predict(x))
        assert_array_equal(ours.classes_, peer.classes_)
        assert_allclose(ours.predict_proba(x), peer.predict_proba(x), rtol=1e-6)
        assert_allclose(ours.predict_log_proba(x), peer.predict_log_proba(x), rtol=1e-6, atol=1e-9)
    else:
        assert_allclose(ours.predict(x), peer.predict(x), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "logistic", "alpha": 3.0, "batch_size": 64},
        {"early_stopping": True, "validation_fraction": 0.2, "shuffle": False, "hidden_layer_sizes": (20, 10)},
    ],
    ids=["default", "logistic", "early stopping"],
)
def test_every_number_equals_scikit_learns(target, options):
    cls, x, y = TARGETS[target]
    options = {"hidden_layer_sizes": 15, **options}
    peer = theirs(cls, **options).fit(x, y)
    ours = cls(random_state=0, max_iter=6, solver=fo.Adam(eps=1e-8), **options).fit(x, y)
    assert_equal_models(ours, peer, x)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("target", TARGETS)
def test_weights_equal_scikit_learns(target):
    cls, x, y = TARGETS[target]
    weights = WEIGHTS[: len(x)]
    try:
        peer = theirs(cls, solver="sgd").fit(x, y, sample_weight=weights)
    except TypeError:
        pytest.skip("this version of scikit-learn has no sample_weight here")
    ours = cls(random_state=0, max_iter=6, solver=fo.Nesterov(0.001)).fit(x, y, sample_weight=weights)
    assert_equal_models(ours, peer, x)


@pytest.mark.parametrize("target", TARGETS)
def test_any_part_of_a_batch_in_memory_gives_the_same_bits(target, monkeypatch):
    """A large batch goes through the network some samples at a time, with their targets and weights."""
    cls, x, y = TARGETS[target]
    fitted = []
    for at_a_time in 64, 1000:
        monkeypatch.setattr(runner, "_AT_A_TIME", at_a_time)
        fitted.append(cls(15, random_state=0, max_iter=2, batch_size=len(x)).fit(x, y, WEIGHTS[: len(x)]))
    one, other = fitted
    assert one.loss_curve_ == other.loss_curve_
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("target", TARGETS)
def test_a_sample_of_weight_zero_is_none(target):
    cls, x, y = TARGETS[target]
    weights = np.where(np.arange(len(x)) % 3, 1.0, 0.0)
    model = cls(random_state=0, max_iter=3)
    assert_array_equal(
        clone(model).fit(x, y, sample_weight=weights).coefs_[0], model.fit(x[weights > 0], y[weights > 0]).coefs_[0]
    )


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_partial_fit_equals_scikit_learns():
    peer, ours = theirs(MLPClassifier), MLPClassifier(random_state=0, solver=fo.Adam(eps=1e-8))
    for rows in (slice(0, 150), slice(100, 300), slice(300, 500)):
        for model in peer, ours:
            model.partial_fit(X[rows], Y[rows], classes=np.arange(12))
    assert_equal_models(ours, peer, X)
    peer, ours = theirs(MLPRegressor), MLPRegressor(random_state=0, solver=fo.Adam(eps=1e-8))
    for model in peer, ours:
        model.fit(X_NUMBERS, NUMBERS).partial_fit(X_NUMBERS[:100], NUMBERS[:100])
    ours.max_iter = 6
    model = clone(ours).fit(X_NUMBERS, NUMBERS).partial_fit(X_NUMBERS[:100], NUMBERS[:100])
    assert_equal_models(model, peer, X_NUMBERS)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_warm_start_equals_scikit_learns():
    peer = theirs(MLPClassifier, warm_start=True)
    ours = MLPClassifier(random_state=0, max_iter=6, warm_start=True, solver=fo.Adam(eps=1e-8))
    for model in peer, ours:
        model.fit(X, Y).fit(X, Y)
    assert len(ours.loss_curve_) == 12
    assert_equal_models(ours, peer, X)
    with pytest.raises(ValueError, match="hidden_layer_sizes cannot change"):
        ours.set_params(hidden_layer_sizes=7).fit(X, Y)


@pytest.mark.parametrize(
    "solver",
    ["nesterov", fo.Muon(0.05), fo.ScheduleFreeAdamW(0.01), fo.Adam(0.01, ema=0.9), fo.Nesterov(0.1)],
    ids=repr,
)
def test_solvers(solver):
    before = copy.deepcopy(solver)
    model = MLPClassifier((30,), solver=solver, random_state=0, max_iter=15)
    assert clone(model).fit(X, Y).score(X, Y) > 0.5
    assert repr(solver) == repr(before)
    assert solver is model.solver
    assert clone(model).fit(X, Y).score(X, Y) > 0.5


def test_every_name_of_the_family_is_a_solver():
    for name in FAMILY:
        for spelling in name, name.upper(), name.lower():
            opt = MLPClassifier(solver=spelling, learning_rate_init=0.25)._new_optimizer()
            assert (type(opt).__name__, opt.lr) == (name, 0.25)
            assert MLPClassifier(solver=spelling)._new_optimizer().lr == getattr(fo, name)().lr


@pytest.mark.parametrize("solver", [fo.Adam(0.01, ema=0.5), fo.ScheduleFreeAdamW(0.01)], ids=["ema", "schedule-free"])
def test_averages_predict_and_training_goes_on_from_the_weights(solver):
    model = MLPRegressor(8, solver=solver, random_state=0, shuffle=False)
    parts = [(X_NUMBERS[k : k + 100], NUMBERS[k : k + 100] / 100) for k in (0, 100, 200)]
    opt, seen = copy.deepcopy(solver), []
    for k, (x, t) in enumerate(parts):
        model.partial_fit(x, t)
        if k == 0:
            # The same steps with the same initial weights, from a model that has made none.
            start = MLPRegressor(8, solver=fo.SGD(1e-300), random_state=0, shuffle=False).partial_fit(x, t)
            reference = start._network
        grads = fo.flatten({name: np.zeros_like(p) for name, p in reference.params.items()})
        reference.loss_and_gradient(x.copy(), t.copy(), np.ones(100), 2, 1e-4, grads)
        opt.update(reference.params, grads)
        seen.append(averages(opt, reference.params)["W1"].copy())
        assert_array_equal(model.coefs_[0], seen[-1])
    assert not np.array_equal(seen[-1], reference.params["W1"])


def test_early_stopping_scores_averages_and_trains_on_from_the_weights():
    options = {"random_state": 0, "max_iter": 6, "early_stopping": True}
    averaged = MLPClassifier(20, solver=fo.Adam(0.01, ema=0.9), **options).fit(X, Y)
    plain = MLPClassifier(20, solver=fo.Adam(0.01), **options).fit(X, Y)
    assert averaged.loss_curve_ == plain.loss_curve_
    assert averaged.validation_scores_ != plain.validation_scores_


def test_early_stopping_restores_the_best_weights():
    model = MLPClassifier(
        (20,), early_stopping=True, learning_rate_init=0.05, random_state=0, n_iter_no_change=3, max_iter=100
    ).fit(X, Y)
    assert int(np.argmax(model.validation_scores_)) + 1 < model.n_iter_ < 100
    assert model.best_validation_score_ == max(model.validation_scores_)
    again = MLPClassifier(
        (20,),
        early_stopping=True,
        learning_rate_init=0.05,
        random_state=0,
        max_iter=1 + int(np.argmax(model.validation_scores_)),
    ).fit(X, Y)
    assert_array_equal(model.coefs_[1], again.coefs_[1])
    with pytest.raises(ValueError, match="early_stopping"):
        model.partial_fit(X, Y)
    model.set_params(early_stopping=False).partial_fit(X, Y)
    assert model.best_loss_ == model.loss_


def test_early_stopping_keeps_the_best_weights_of_an_earlier_fit():
    model = MLPClassifier((20,), early_stopping=True, learning_rate_init=0.05, random_state=0, warm_start=True)
    weights = model.fit(X, Y).coefs_[0].copy()
    assert model.best_validation_score_ == 1
    model.set_params(solver="sgd", learning_rate_init=1.0).fit(X, Y)
    assert_array_equal(model.coefs_[0], weights)


def test_in_the_company_of_scikit_learn():
    model = make_pipeline(StandardScaler(), MLPClassifier(20, solver=fo.Adam(0.01), max_iter=8, random_state=0))
    assert cross_val_score(model, X, Y, cv=3).min() > 0.7
    grid = {"mlpclassifier__alpha": [1e-4, 1e3], "mlpclassifier__solver": ["adam", fo.Lion(0.01)]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X, Y)
    assert search.best_params_["mlpclassifier__alpha"] == 1e-4
    assert search.best_score_ > 0.6


def test_pickles_and_copies_go_on_with_the_same_bits():
    model = MLPClassifier(20, solver=fo.Adam(0.01, ema=0.9), random_state=0)
    model.partial_fit(X, Y, classes=np.unique(Y))
    for other in pickle.loads(pickle.dumps(model)), copy.deepcopy(model):
        assert_array_equal(other.predict_proba(X), model.predict_proba(X))
        again = copy.deepcopy(model).partial_fit(X, Y)
        assert_array_equal(other.partial_fit(X, Y).coefs_[0], again.coefs_[0])
        other.coefs_[1][:] = 0
        assert_allclose(other.predict_proba(X), np.tile(other.predict_proba(X[:1]), (500, 1)))


def test_float32():
    model = MLPClassifier(20, random_state=0, max_iter=20, learning_rate_init=0.01).fit(X.astype(np.float32), Y)
    assert {array.dtype for array in model.coefs_ + model.intercepts_} == {np.dtype(np.float32)}
    assert model.predict_proba(X).dtype == np.float32
    assert model.score(X, Y) > 0.9
    model.partial_fit(X, Y)
    assert model.coefs_[0].dtype == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "tanh"}, "'activation' parameter of MLPClassifier must be a str among"),
        ({"solver": "lbfgs"}, "solver must be an optimizer or one of sgd, momentum, "),
        ({"solver": "adm"}, "did you mean 'adam'"),
        ({"solver": fo.Adam}, "'solver' parameter of MLPClassifier must be an instance of"),
        ({"solver": fo.Adam(), "learning_rate_init": 0.1}, "set the lr of the optimizer"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes must be integers > 0"),
        ({"hidden_layer_sizes": (3.5,)}, "hidden_layer_sizes must be integers > 0"),
        ({"validation_fraction": 0.001, "early_stopping": True}, "test_size = 1 should be greater|too small"),
        ({"learning_rate_init": 1e300, "max_iter": 9}, "the weights became NaN or infinite"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.filterwarnings("ignore:.*encountered")
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**options).fit(X, Y)


def test_a_used_optimizer_is_no_solver():
    opt = fo.Adam()
    opt.update({"w": np.ones(2)}, {"w": np.ones(2)})
    with pytest.raises(ValueError, match="this one has made 1 updates"):
        MLPClassifier(solver=opt).fit(X, Y)


def test_errors_about_samples():
    with pytest.raises(NotFittedError):
        _ = MLPRegressor().coefs_
    assert not hasattr(MLPClassifier(), "coefs_")
    with pytest.raises(TypeError, match="momentum"):
        MLPClassifier(momentum=0.9)
    with pytest.raises(ValueError, match=r"[Ww]eight"):
        MLPClassifier().fit(X, Y, sample_weight=np.zeros(500))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        MLPClassifier().fit(X, Y, sample_weight=-WEIGHTS)
    with pytest.raises(ValueError, match=r"y has the classes \[99\]"):
        MLPClassifier().partial_fit(X, Y, classes=np.unique(Y)).partial_fit(X[:3], np.full(3, 99))
    with pytest.warns(UserWarning, match="batch_size=600 is clipped to the number of samples, 500"):
        MLPClassifier(3, batch_size=600, max_iter=1).fit(X, Y)


def test_convergence_is_reported(capsys):
    with pytest.warns(UserWarning, match="max_iter=2 epochs were reached"):
        MLPClassifier(3, max_iter=2, random_state=0, verbose=True).fit(X, Y)
    MLPClassifier(3, tol=10.0, n_iter_no_change=2, random_state=0, verbose=True).fit(X, Y)
    out = capsys.readouterr().out
    assert "Iteration 2, loss = " in out
    assert "Training loss did not improve by 10.0 in 2 epochs. Stopping." in out


def test_the_core_imports_no_scikit_learn():
    code = "import sys, fastoptim as fo; fo.Adam; fo.MultiLayerNet; assert 'sklearn' not in sys.modules; fo.sklearn"
    subprocess.run([sys.executable, "-c", code], check=True)
