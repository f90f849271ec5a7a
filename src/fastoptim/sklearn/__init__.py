"""Estimators in the manner of scikit-learn: networks that any optimizer of this package trains."""

from fastoptim._optional import imported_for

with imported_for("fastoptim.sklearn", "scikit-learn"):
    from fastoptim.sklearn.estimators import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
