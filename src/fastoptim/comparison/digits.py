"""The images that networks are compared on: MNIST, or the small digits of scikit-learn."""

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim._optional import imported_for
from fastoptim.comparison.languages import LANGUAGES
from fastoptim.mnist import MnistUnavailableError, load_mnist

__all__ = ["Data", "load_data"]


@dataclass(frozen=True)
class Data:
    """Images as rows and labels as class numbers, a title for the plot, and a notice to be printed."""

    title: str
    x_train: NDArray[Any]
    t_train: NDArray[Any]
    x_test: NDArray[Any]
    t_test: NDArray[Any]
    notice: str = ""


def load_data(source: str | PathLike[str] = "auto", lang: str = "en") -> Data:
    """Return the images to train on.

    Parameters
    ----------
    source : str or path
        ``"mnist"``: see `fastoptim.load_mnist`; ``"digits"``: scikit-learn's 1,797 handwritten digits of 8×8 pixels,
        every fifth of which is used for the test; ``"auto"``: MNIST, or the digits if MNIST is neither present nor
        downloadable; otherwise a folder with the four files of MNIST.
    lang : {"en", "zh"}
        The language of title and notice.

    Returns
    -------
    Data
        Pixels as float32 in [0, 1].

    Raises
    ------
    OSError, TypeError, ValueError
        If `source` is none of these, and as `fastoptim.load_mnist`; ``"auto"`` handles only `MnistUnavailableError`.
    ImportError
        If the digits are loaded and scikit-learn is not installed.

    Examples
    --------
    >>> data = load_data("digits")
    >>> data.x_train.shape, data.x_test.shape
    ((1437, 64), (360, 64))
    """
    words = LANGUAGES[lang]
    if not isinstance(source, str | PathLike):
        raise TypeError(f"data must be 'auto', 'mnist', 'digits' or the path of a folder, not {source!r}")
    if source == "digits":
        return _digits(words.digits)
    if source not in ("auto", "mnist") and not (source and Path(source).is_dir()):
        raise ValueError(f"data is auto, mnist, digits or a folder with the files of MNIST, not {source!r}")
    try:
        (x_train, t_train), (x_test, t_test) = load_mnist(folder=None if source in ("auto", "mnist") else source)
    except MnistUnavailableError as error:
        if source == "mnist":
            raise
        return replace(_digits(words.no_mnist), notice=words.fallback.format(error))
    return Data("MNIST", x_train, t_train, x_test, t_test)


def _digits(title: str) -> Data:
    # Its import takes a second, which MNIST does not need.
    with imported_for("fastoptim.compare", "'fastoptim[compare]'"):
        from sklearn.datasets import load_digits
    pixels, labels = load_digits(return_X_y=True)
    pixels = np.divide(pixels, 16, dtype=np.float32)
    test = np.arange(len(labels)) % 5 == 0
    return Data(title, pixels[~test], labels[~test], pixels[test], labels[test])
