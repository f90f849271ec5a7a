"""Estimators in the manner of scikit-learn: networks that any optimizer of this package trains."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from fastoptim.sklearn.training import MLP

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(ClassifierMixin, MLP):  # type: ignore[misc]
    r"""Classifier by a fully connected network, with the interface of ``sklearn.neural_network.MLPClassifier``.

    It minimizes the weighted mean of the cross-entropy over the samples of a batch, plus :math:`\frac{\alpha}{2 \sum_i
    w_i} \sum_k \|W_k\|^2` with the weights :math:`w_i` of these samples. The last layer is softmax; for two classes, or
    several labels, it is a sigmoid of one output, or of one for each label.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Widths of the hidden layers; ``()`` for a linear model.
    activation : {'relu', 'logistic'}
        Activation of the hidden layers.
    solver : str or Optimizer
        The optimizer: a name of the family in any case, such as ``"adam"``, ``"lion"`` or ``"nesterov"``, or a new
        optimizer, such as ``fo.AdamW(lr=0.01, ema=0.99)``, which each fit copies. Averages that it keeps, by ``ema`` or
        by a schedule-free rule, are what predicts. Its patterns of parameters are of the keys ``W1, b1, W2, b2, …``.
    alpha : float
        Factor of the penalty on weights.
    batch_size : int or 'auto'
        Samples of an update; ``'auto'`` is 200, or all if there are fewer.
    learning_rate_init : float, optional
        Learning rate of an optimizer that is given by name; by default the optimizer's own.
    max_iter : int
        Largest number of epochs.
    shuffle : bool
        Whether samples are shuffled before each epoch.
    random_state : int, RandomState or None
        For initial weights, shuffling and the choice of the validation set.
    tol : float
        Stop when for more than ``n_iter_no_change`` epochs the loss, or with ``early_stopping`` the score, was not
        better than the best by so much.
    verbose : bool
        Whether the loss of each epoch is printed.
    warm_start : bool
        Whether ``fit`` begins with the weights of the last one, and goes on with its curves.
    early_stopping : bool
        Whether a part of the samples is set aside, whose score decides when to stop and which weights are kept.
    validation_fraction : float
        The part that is set aside.
    n_iter_no_change : int or inf
        See ``tol``.

    Attributes
    ----------
    classes_ : ndarray
        The classes, sorted.
    coefs_, intercepts_ : list of ndarray
        Weights of shape (inputs, outputs) and biases of each layer: the parameters of the network themselves.
    loss_, best_loss_ : float
        Loss of the last epoch, and the smallest one; ``best_loss_`` is None with ``early_stopping``.
    loss_curve_ : list of float
        Loss of each epoch: the mean over its batches, each before its update.
    validation_scores_, best_validation_score_ : list of float and float, or None
        Accuracy of the validation set after each epoch, and the best, with ``early_stopping``.
    n_iter_, t_ : int
        Number of epochs of the last call, and of samples in all of them.
    n_layers_, n_outputs_, out_activation_ : int, int and str
        Number of layers with the inputs, outputs, and the function of the last layer: ``'softmax'`` or ``'logistic'``.
    n_features_in_, feature_names_in_ : int and ndarray
        Of the first call; names only if all of them are strings.

    Raises
    ------
    ValueError
        By ``fit`` and ``partial_fit``, if a parameter is not as described above, if samples or targets are of a wrong
        shape, NaN or infinite, or if weights become so.

    See Also
    --------
    MLPRegressor : the same for numbers.

    Notes
    -----
    With the same ``random_state`` and an optimizer of the same formula, which is ``fo.Adam(eps=1e-8)`` for
    scikit-learn's ``"adam"`` and ``fo.Nesterov(0.001)`` for its ``"sgd"``, every number equals scikit-learn's, up to
    rounding, if no ``sample_weight`` is zero: such samples are left out here.

    Examples
    --------
    >>> import fastoptim as fo
    >>> from fastoptim.sklearn import MLPClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> X_train, X_test, y_train, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
    >>> model = MLPClassifier((50,), solver=fo.AdamW(lr=0.003), early_stopping=True, random_state=0)
    >>> model.fit(X_train, y_train).score(X_test, y_test) > 0.95
    True
    """

    _score = staticmethod(accuracy_score)

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> Self:
        """Go through some samples once, from the present weights and the present state of the optimizer.

        Parameters
        ----------
        X, y, sample_weight
            As in ``fit``.
        classes : array of shape (n_classes,), optional
            All classes, needed in the first call.

        Returns
        -------
        self
        """
        if _check_partial_fit_first_call(self, classes):
            self._binarizer = LabelBinarizer().fit(y if type_of_target(y).startswith("multilabel") else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each sample; or, of several labels, those of at least even odds.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._predict(self._samples(X))

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the probability of each class, in the order of ``classes_``; or of each label.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        return self._probabilities(X, softmax, expit)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the logarithm of ``predict_proba``, which is finite where a probability rounds to zero."""
        return self._probabilities(X, log_softmax, log_expit)

    def _validated(
        self, X: Any, y: Any, dtype: Any, is_first: bool, incremental: bool
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        X, y = validate_data(self, X, y, multi_output=True, dtype=dtype, reset=is_first)
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        if is_first and not incremental:
            self._binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._binarizer.classes_
        else:
            given, known = {*unique_labels(y).tolist()}, {*self.classes_.tolist()}
            if not given <= known or (given != known and not incremental):
                raise ValueError(f"y has the classes {sorted(given)}, not those of the first call, {sorted(known)}")
        return X, y, self._binarizer.transform(y).astype(X.dtype)

    def _output(self) -> str:
        return "softmax" if self._binarizer.y_type_ == "multiclass" else "logistic"

    def _predict(self, X: NDArray[Any]) -> NDArray[Any]:
        scores = self._network.predict(X)
        scores = scores.ravel() if self.n_outputs_ == 1 else scores
        labels: NDArray[Any] = self._binarizer.inverse_transform(scores, threshold=0)
        return labels

    def _probabilities(self, X: ArrayLike, of_classes: Any, of_label: Any) -> NDArray[Any]:
        """Return what a function gives of the scores of classes that exclude each other, or another of each label."""
        X = self._samples(X)
        scores = self._network.predict(X)
        if self.out_activation_ == "softmax":
            result = of_classes(scores, axis=1)
        else:
            result = of_label(np.hstack([-scores, scores]) if self.n_outputs_ == 1 else scores)
        return np.asarray(result)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, MLP):  # type: ignore[misc]
    r"""Regressor by a fully connected network, with the interface of ``sklearn.neural_network.MLPRegressor``.

    It minimizes half of the weighted mean, over the samples of a batch, of the squared error summed over the outputs,
    plus :math:`\frac{\alpha}{2 \sum_i w_i} \sum_k \|W_k\|^2` with the weights :math:`w_i` of these samples. The last
    layer is linear.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate_init, max_iter, shuffle, random_state
        As in `MLPClassifier`.
    tol, verbose, warm_start, early_stopping, validation_fraction, n_iter_no_change
        Likewise.

    Attributes
    ----------
    coefs_, intercepts_, loss_, best_loss_, n_iter_, t_, n_layers_, n_outputs_, n_features_in_, feature_names_in_
        As in `MLPClassifier`.
    loss_curve_ : list of float
        Loss of each epoch: the mean over its batches, each before its update. As in scikit-learn, it has the mean of
        the squared error over the outputs in place of the sum.
    validation_scores_, best_validation_score_ : list of float and float, or None
        R² of the validation set after each epoch, and the best, with ``early_stopping``.
    out_activation_ : str
        The function of the last layer: ``'identity'``.

    Raises
    ------
    ValueError
        As by `MLPClassifier`.

    See Also
    --------
    MLPClassifier : the same for classes.

    Notes
    -----
    Every number equals scikit-learn's under the conditions that `MLPClassifier` names.

    Examples
    --------
    >>> import numpy as np
    >>> from fastoptim.sklearn import MLPRegressor
    >>> X = np.linspace(-1, 1, 200)[:, np.newaxis]
    >>> model = MLPRegressor((50,), learning_rate_init=0.01, max_iter=1000, random_state=0)
    >>> model.fit(X, np.abs(X[:, 0])).score(X, np.abs(X[:, 0])) > 0.98
    True
    """

    _score = staticmethod(r2_score)

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Go through some samples once, from the present weights and the present state of the optimizer.

        Parameters
        ----------
        X, y, sample_weight
            As in ``fit``.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the predicted numbers.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._predict(self._samples(X))

    def _validated(
        self,
        X: Any,
        y: Any,
        dtype: Any,
        is_first: bool,
        incremental: bool,  # noqa: ARG002
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=dtype, reset=is_first)
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        return X, y, y.reshape(len(y), -1).astype(X.dtype)

    def _output(self) -> str:
        return "identity"

    def _predict(self, X: NDArray[Any]) -> NDArray[Any]:
        numbers = self._network.predict(X)
        return numbers.ravel() if self.n_outputs_ == 1 else numbers

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
