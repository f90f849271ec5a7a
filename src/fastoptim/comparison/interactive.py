"""The comparison from Python: with a progress bar, and in a notebook with a picture that is drawn as it trains."""

import sys
import time
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from fastoptim.comparison.languages import LANGUAGES
from fastoptim.family import NOTES_FIVE
from fastoptim.progress import in_notebook, progress_bar

if TYPE_CHECKING:
    from fastoptim.comparison.training import Comparison, Run

__all__ = ["LossBar", "compare"]

_REDRAW_S = 1.0
"""Seconds between two drawings of the picture; each drawing takes about a tenth of a second."""


def compare(
    data: str | PathLike[str] = "auto",
    *,
    iterations: int = 2000,
    batch_size: int = 128,
    hidden: Sequence[int] = (100, 100, 100, 100),
    optimizers: Sequence[str] = NOTES_FIVE,
    dtype: Any = "float32",
    seed: int = 0,
    threads: int | None = None,
    lang: str = "en",
    progress: bool = True,
) -> "Comparison":
    """Train one network per optimizer on the same batches of handwritten digits, as the notes do.

    It is ``fastoptim compare`` from Python. In a notebook, a picture of the losses is redrawn during the training.
    Ctrl-C, or *interrupt the kernel*, ends the training; the result holds what was computed.

    Parameters
    ----------
    data : str or path
        ``"mnist"``; ``"digits"``, the 1,797 digits of scikit-learn; ``"auto"``, MNIST, or the digits if it cannot be
        had; or a folder with the four files of MNIST.
    iterations, batch_size : int
        Updates of each network, and images per update.
    hidden : sequence of int
        Units of each hidden layer.
    optimizers : sequence of str
        Names of optimizers in any case, such as ``["SGD", "Adam"]``; they have their default hyperparameters.
    dtype : dtype
        float32 or float64, for weights and state.
    seed : int
        In [0, 2**32). It determines weights and batches, hence every bit of the losses for any ``threads``.
    threads : int, optional
        Number of networks trained at the same time; by default the number of cores.
    lang : {"en", "zh"}
        The language of table and picture.
    progress : bool
        Whether to show a progress bar and, in a notebook, the picture.

    Returns
    -------
    Comparison
        ``losses`` is a dict with an array of shape (iterations,) for each optimizer. ``table()`` shows iterations, the
        mean of the last 100 losses, the accuracy on the test images and the seconds; a notebook shows it as a table.
        ``plot()`` is a matplotlib figure of the smoothed losses. ``runs`` has the trained networks and optimizers.

    Raises
    ------
    ImportError
        If a library of the extra is missing: ``pip install 'fastoptim[compare]'``.
    OSError
        If the images cannot be read or downloaded.
    TypeError
        If ``hidden`` or ``optimizers`` is no list, or another argument is of no type that it may have.
    ValueError
        If an argument is out of range, or a name is unknown.

    Examples
    --------
    >>> import fastoptim as fo
    >>> result = fo.compare("digits", iterations=5, hidden=[20], optimizers=["SGD", "Adam"], progress=False)
    >>> {name: curve.shape for name, curve in result.losses.items()}
    {'SGD': (5,), 'Adam': (5,)}
    >>> result.plot().savefig("losses.svg")  # doctest: +SKIP
    """
    # The command line imports this module, and must answer before NumPy and Numba are imported.
    from fastoptim.arguments import true_or_false
    from fastoptim.comparison.digits import load_data
    from fastoptim.comparison.training import Comparison, Settings

    true_or_false("progress", progress)
    settings = Settings(iterations, batch_size, hidden, optimizers, dtype, seed, threads, lang)
    comparison = Comparison(load_data(data, lang), settings)
    if not progress:
        comparison.train()
        return comparison
    for notice in comparison.notices:
        print(notice)
    try:
        with LossBar(comparison) as bar, _LivePicture(comparison) as picture:

            def show(runs: Sequence["Run"]) -> None:
                bar.show(runs)
                picture.show()

            comparison.train(show)
    except KeyboardInterrupt:
        if not any(run.losses for run in comparison.runs):
            raise
        print(LANGUAGES[lang].interrupted, file=sys.stderr)
    return comparison


class LossBar:
    """A progress bar over the iterations of all networks that shows the last loss of each; a context manager."""

    def __init__(self, comparison: "Comparison") -> None:
        # The losses of five optimizers leave room for little else in 80 columns.
        layout = "{percentage:3.0f}%|{bar}| {remaining}{postfix}"
        total = comparison.settings.iterations * len(comparison.runs)
        self._bar = progress_bar(total=total, bar_format=layout, dynamic_ncols=True)
        self.write = self._bar.write

    def show(self, runs: Sequence["Run"]) -> None:
        """Move the bar to the number of iterations done."""
        losses = " ".join(f"{run.name} {run.losses[-1]:z.2f}" for run in runs if run.losses)
        self._bar.set_postfix_str(losses, refresh=False)
        self._bar.update(sum(len(run.losses) for run in runs) - self._bar.n)

    def __enter__(self) -> "LossBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class _LivePicture:
    """The picture of the losses so far in the output of a notebook's cell; nothing elsewhere."""

    def __init__(self, comparison: "Comparison") -> None:
        self.comparison, self._drawn = comparison, time.monotonic()
        self._handle: Any = None

    def show(self) -> None:
        """Draw the picture, unless the last drawing was a moment ago."""
        if in_notebook() and time.monotonic() - self._drawn > _REDRAW_S:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(self.comparison.plot(), display_id=True)
        else:
            self._handle.update(self.comparison.plot())
        self._drawn = time.monotonic()

    def __enter__(self) -> "_LivePicture":
        return self

    def __exit__(self, *_: object) -> None:
        if in_notebook() and any(run.losses for run in self.comparison.runs):
            self._draw()
