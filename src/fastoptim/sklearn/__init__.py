"""Estimators in the manner of scikit-learn: networks that any optimizer of this package trains."""

from fastoptim.sklearn.estimators import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
