"""Smooth loss curves and draw them as the notes do."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastoptim._optional import imported_for
from fastoptim.comparison.languages import LANGUAGES
from fastoptim.family import FAMILY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_losses", "smooth_curve"]

_WINDOW, _BETA = 11, 2


def smooth_curve(x: ArrayLike) -> NDArray[np.float64]:
    r"""Smooth a curve with a Kaiser window of length 11 and β = 2.

    .. math:: y_i = \sum_{k=-5}^{5} w_k x_{i+k} \Big/ \sum_{k=-5}^{5} w_k

    The curve is reflected at both ends: at the start about the first point; at the end the last point is repeated, as
    in the notes.

    Parameters
    ----------
    x : array_like, shape (n,)
        The curve. If it has fewer than 11 points, the length of the window, it is returned unchanged.

    Returns
    -------
    ndarray of float64, shape (n,)
        The smoothed curve, a new array.

    Raises
    ------
    ValueError
        If ``x`` is not one-dimensional.

    References
    ----------
    J. F. Kaiser and R. W. Schafer, "On the use of the I0-sinh window for spectrum analysis", IEEE Transactions on
    Acoustics, Speech, and Signal Processing 28 (1980), pp. 105–107.

    Examples
    --------
    >>> smooth_curve([0.0] * 10 + [1.0] * 10).round(2)[7:13]
    array([0.22, 0.32, 0.44, 0.56, 0.68, 0.78])
    """
    x = np.array(x, np.float64)
    if x.ndim != 1:
        raise ValueError(f"smooth_curve expects a one-dimensional curve, got shape {x.shape}")
    if x.size < _WINDOW:
        return x
    half = _WINDOW // 2
    window = np.kaiser(_WINDOW, _BETA)
    return np.convolve(np.concatenate((x[half:0:-1], x, x[: -half - 1 : -1])), window / window.sum(), "valid")


def plot_losses(curves: Mapping[str, ArrayLike], title: str = "", lang: str = "en") -> "Figure":
    """Plot smoothed loss curves against the iteration.

    Neither pyplot nor a display is needed; ``figure.savefig(path)`` writes the plot.

    Parameters
    ----------
    curves : mapping of str to array_like
        The losses of each optimizer, by the name shown in the legend.
    title : str
        The title of the picture.
    lang : {"en", "zh"}
        The language of the labels. Without a Chinese font they are in English, and a title in Chinese is left
        out.

    Returns
    -------
    matplotlib.figure.Figure
        The y axis goes from 0 to 1, and every 100th iteration has a marker.

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install 'fastoptim[compare]'``.

    Examples
    --------
    >>> figure = plot_losses({"SGD": [2.0, 0.8, 0.5], "Adam": [1.8, 0.4, 0.1]}, "Three iterations")
    """
    with imported_for("plot_losses", "'fastoptim[compare]'"):
        from fastoptim.comparison.pictures import Picture, chinese_font

    words = LANGUAGES[lang]
    font = chinese_font() if words.no_font else None
    if words.no_font and not font:
        words, title = LANGUAGES["en"], title if title.isascii() else ""
    figure = Picture(figsize=(8, 5.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, losses in curves.items():
        marker = FAMILY[name].marker if name in FAMILY else "."
        axes.plot(smooth_curve(losses), label=name, marker=marker, markevery=100, markersize=5, linewidth=1.2)
    axes.set(xlabel=words.iterations, ylabel=words.loss, ylim=(0, 1), title=title)
    if font:
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
            text.set_fontfamily(font)
    axes.margins(x=0.02)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(loc="upper right")
    return figure
