"""What the estimators for scikit-learn have in common: parameters, the loop over batches, and when it stops."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, _fit_context, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, gen_batches, shuffle
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastoptim import optimizers
from fastoptim._suggest import did_you_mean
from fastoptim.family import FAMILY
from fastoptim.kernels.losses import LOGISTIC, SOFTMAX, SQUARES
from fastoptim.minimization import averages
from fastoptim.optimizer import Optimizer
from fastoptim.parameters import FlatDict
from fastoptim.sklearn.network import Network

__all__ = ["MLP"]

_ACTIVATIONS = {"relu": "relu", "logistic": "sigmoid"}
_OUTPUTS = {"softmax": SOFTMAX, "logistic": LOGISTIC, "identity": SQUARES}
_SOLVERS = {name.lower(): name for name in FAMILY}


class MLP(BaseEstimator):  # type: ignore[misc]
    """A multilayer perceptron; subclasses say what targets and predictions are."""

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({*_ACTIVATIONS})],
        "solver": [str, Optimizer],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
    }

    _network: Network
    _optimizer: Optimizer | None
    _trained: NDArray[Any] | None
    """The parameters from which training goes on, if the network has the optimizer's averages of them."""

    def __init__(
        self,
        hidden_layer_sizes: int | Iterable[int] = (100,),
        activation: str = "relu",
        *,
        solver: str | Optimizer = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float | None = None,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: float = 10,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change

    @property
    def coefs_(self) -> list[NDArray[Any]]:
        """The weights of each layer, of shape (inputs, outputs); writing to them changes the network."""
        return self._arrays("W")

    @property
    def intercepts_(self) -> list[NDArray[Any]]:
        """The biases of each layer."""
        return self._arrays("b")

    def _arrays(self, letter: str) -> list[NDArray[Any]]:
        check_is_fitted(self, "_network")
        return [array for name, array in self._network.params.items() if name[0] == letter]

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on samples, from new weights unless ``warm_start`` is true.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Samples; float32 is computed with in float32, everything else in float64.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            Classes or numbers.
        sample_weight : array of shape (n_samples,), optional
            Weights of the samples, not negative.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Self:
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        is_first = not hasattr(self, "_network") or not (self.warm_start or incremental)
        optimizer = self._new_optimizer()
        dtype = (np.float64, np.float32) if is_first else self._network.dtype
        X, y, targets = self._validated(X, y, dtype, is_first, incremental)
        weights = np.ones(len(X), X.dtype)
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
        random = check_random_state(self.random_state)
        if is_first:
            self._initialize(X, targets, random)
        elif self._sizes() != self._network.hidden_size_list:
            raise ValueError("hidden_layer_sizes cannot change with warm_start or in partial_fit")
        elif self.early_stopping is not (self.best_loss_ is None):
            self._start_to_compare()
        if incremental and self._optimizer is not None:
            optimizer = self._optimizer
            if self._trained is not None:
                self._network.params.flat = self._trained
        # A sample without weight is none, also for the sizes of batches and of the validation set.
        samples = [X, targets, weights, y]
        if not weights.all():
            samples = [array[weights > 0] for array in samples]
        held_out = None
        if self.early_stopping:
            split = train_test_split(
                *samples,
                random_state=random,
                test_size=self.validation_fraction,
                stratify=samples[1] if is_classifier(self) and self.n_outputs_ == 1 else None,
            )
            samples, held_out = split[::2], split[1::2]
            if len(held_out[0]) < 2:
                raise ValueError("the validation set is too small: raise validation_fraction, or pass more samples")
        if not len(samples[0]):
            raise ValueError("sample_weight is zero for all samples")
        self._optimizer = optimizer
        self._train(optimizer, samples[:3], held_out, random, incremental)
        return self

    def _samples(self, X: ArrayLike) -> NDArray[Any]:
        """Return checked samples to predict for."""
        check_is_fitted(self, "_network")
        samples: NDArray[Any] = validate_data(self, X, dtype=self._network.dtype, reset=False)
        return samples

    def _sizes(self) -> list[int]:
        sizes: Any = self.hidden_layer_sizes
        sizes = [*sizes] if isinstance(sizes, Iterable) else [sizes]
        if not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be integers > 0, got {sizes}.")
        return [int(size) for size in sizes]

    def _new_optimizer(self) -> Optimizer:
        """Return the optimizer that ``solver`` stands for, or raise an error."""
        solver = self.solver
        if isinstance(solver, Optimizer):
            if self.learning_rate_init is not None:
                raise ValueError("learning_rate_init is for a solver given by name; set the lr of the optimizer")
            if solver.iter:
                raise ValueError(f"solver must be a new optimizer; this one has made {solver.iter} updates")
            return copy.deepcopy(solver)
        if solver.lower() not in _SOLVERS:
            hint = did_you_mean(solver, _SOLVERS)
            raise ValueError(f"solver must be an optimizer or one of {', '.join(_SOLVERS)}, not {solver!r}{hint}")
        cls = getattr(optimizers, _SOLVERS[solver.lower()])
        optimizer: Optimizer = cls() if self.learning_rate_init is None else cls(lr=self.learning_rate_init)
        return optimizer

    def _initialize(self, X: NDArray[Any], targets: NDArray[Any], random: np.random.RandomState) -> None:
        sizes = [X.shape[1], *self._sizes(), targets.shape[1]]
        self._network = Network(sizes, _ACTIVATIONS[self.activation], X.dtype, random)
        self._optimizer = self._trained = None
        self.n_layers_, self.n_outputs_, self.out_activation_ = len(sizes), sizes[-1], self._output()
        self.t_ = 0
        self.loss_curve_: list[float] = []
        self._start_to_compare()

    def _start_to_compare(self) -> None:
        """Forget the best loss or score, which decides when to stop."""
        self._n_worse = 0
        self.best_loss_: Any = None if self.early_stopping else np.inf
        self.validation_scores_: Any = [] if self.early_stopping else None
        self.best_validation_score_: Any = -np.inf if self.early_stopping else None

    def _train(
        self,
        optimizer: Optimizer,
        samples: Sequence[NDArray[Any]],
        held_out: Sequence[NDArray[Any]] | None,
        random: np.random.RandomState,
        is_incremental: bool,
    ) -> None:
        params, order = self._network.params, np.arange(len(samples[0]))
        best = None if held_out is None else params.flat.copy()
        self.n_iter_ = 0
        try:
            for _ in range(1 if is_incremental else self.max_iter):
                order = shuffle(order, random_state=random) if self.shuffle else order
                self.loss_ = self._epoch(optimizer, samples, order)
                self.n_iter_ += 1
                self.t_ += len(samples[0])
                self.loss_curve_.append(self.loss_)
                if self.verbose:
                    print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
                if not np.isfinite(params.flat).all():
                    raise ValueError(
                        "the weights became NaN or infinite: scale the samples, for example by StandardScaler, or take "
                        "a smaller learning_rate_init"
                    )
                if held_out is None:
                    self._n_worse = self._n_worse + 1 if self.loss_ > self.best_loss_ - self.tol else 0
                    self.best_loss_ = min(self.best_loss_, self.loss_)
                elif (better := self._better(optimizer, held_out)) is not None:
                    best = better
                if self._n_worse > self.n_iter_no_change:
                    if self.verbose:
                        name = "Training loss" if held_out is None else "Validation score"
                        print(f"{name} did not improve by {self.tol} in {self.n_iter_no_change} epochs. Stopping.")
                    break
            else:
                if not is_incremental:
                    message = f"max_iter={self.max_iter} epochs were reached, and the loss may still fall"
                    warnings.warn(message, ConvergenceWarning, stacklevel=4)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        if best is not None:
            # An optimizer's state belongs to the last weights, so further training begins with a new one.
            params.flat, self._optimizer = best, None
        elif (evaluated := averages(optimizer, params)) is not params:
            self._trained = params.flat.copy()
            params.update(evaluated)

    def _epoch(self, optimizer: Optimizer, samples: Sequence[NDArray[Any]], order: NDArray[np.intp]) -> float:
        """Update once for each batch of samples in this order, and return the mean loss."""
        n, network, kind = len(samples[0]), self._network, _OUTPUTS[self.out_activation_]
        size = min(200, n) if self.batch_size == "auto" else int(self.batch_size)
        if size > n:
            warnings.warn(f"batch_size={size} is clipped to the number of samples, {n}", stacklevel=5)
            size = n
        memory = [np.empty((size, *array.shape[1:]), array.dtype) for array in samples]
        grads = FlatDict.zeros(network.params.layout)
        loss = 0.0
        for rows in gen_batches(n, size):
            # With another mode than "raise", NumPy writes to `out` without a copy.
            places = [array[: rows.stop - rows.start] for array in memory]
            x, t, w = (a.take(order[rows], 0, out, "clip") for a, out in zip(samples, places, strict=True))
            loss += len(x) * network.loss_and_gradient(x, t, w, kind, float(self.alpha), grads)
            optimizer.update(network.params, grads)
        return loss / n

    def _better(self, optimizer: Optimizer, held_out: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
        """Note the score of the held-out samples, and return the parameters if it is the best one so far."""
        X, _, weights, y = held_out
        params, best = self._network.params, None
        trained = params.flat.copy()
        params.update(averages(optimizer, params))
        predicted = self._predict(X)
        is_finite = predicted.dtype.kind != "f" or np.isfinite(predicted).all()
        score = self._score(y, predicted, sample_weight=weights) if is_finite else np.nan
        self.validation_scores_.append(score)
        if self.verbose:
            print(f"Validation score: {score:f}")
        self._n_worse = self._n_worse + 1 if score < self.best_validation_score_ + self.tol else 0
        if score > self.best_validation_score_:
            self.best_validation_score_, best = score, params.flat.copy()
        params.flat = trained
        return best
