"""The comparison of the study notes: one network per optimizer, trained on the same batches."""

import csv
import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastoptim import optimizers
from fastoptim._files import replacing
from fastoptim._optional import imported_for
from fastoptim._suggest import did_you_mean
from fastoptim.arguments import listed, whole_number
from fastoptim.comparison.curves import plot_losses
from fastoptim.comparison.digits import Data
from fastoptim.comparison.languages import LANGUAGES
from fastoptim.family import FAMILY, NOTES_FIVE
from fastoptim.network import MultiLayerNet
from fastoptim.network.architecture import checked_dtype
from fastoptim.optimizer import Optimizer
from fastoptim.tables import Table
from fastoptim.threads import num_threads

with imported_for("fastoptim.compare", "'fastoptim[compare]'"):
    from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NOTES_FIVE", "OPTIMIZERS", "Comparison", "Run", "Settings"]

OPTIMIZERS: dict[str, type[Optimizer]] = {name: getattr(optimizers, name) for name in FAMILY}

# Iterations whose batches are drawn together.
BLOCK = 100
# Iterations after which a network returns to the queue, a part of a block: so few that all workers end at about the
# same time, and so many that the queue costs nothing. With whole blocks, one of two workers that train five networks
# for 300 iterations would wait for the other during the last fifteenth of the time.
_TURN = 20

_LAST = 100


@dataclass(frozen=True)
class Settings:
    """What to train and for how long.

    Parameters
    ----------
    iterations, batch_size : int
        Updates of each network and images per update.
    hidden : sequence of int
        Units of each hidden layer.
    optimizers : sequence of str
        Names from `OPTIMIZERS`, in any case.
    dtype : dtype
        float32 or float64.
    seed : int
        In [0, 2**32). It determines weights and batches, hence every bit of the curves for any `threads`.
    threads : int, optional
        Number of networks trained at the same time; by default the number of cores.
    lang : {"en", "zh"}
        The language of table and picture.

    Raises
    ------
    TypeError
        If a list is something else, or ``dtype`` is no dtype.
    ValueError
        If a value is out of range or a name is unknown.

    Examples
    --------
    >>> Settings(optimizers=["adam"]).optimizers
    ('Adam',)
    """

    iterations: int = 2000
    batch_size: int = 128
    hidden: Sequence[int] = (100, 100, 100, 100)
    optimizers: Sequence[str] = NOTES_FIVE
    dtype: Any = "float32"
    seed: int = 0
    threads: int | None = None
    lang: str = "en"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", listed("hidden", self.hidden, "[100, 100], the units of each layer"))
        counts = [("iterations", self.iterations), ("batch size", self.batch_size)]
        counts += [("hidden layer", units) for units in self.hidden]
        counts += [] if self.threads is None else [("threads", self.threads)]
        for name, value in counts:
            # NumPy can index arrays of these sizes.
            whole_number(name, value, most=2**31 - 1)
        whole_number("seed", self.seed, least=0, most=2**32 - 1)
        if self.lang not in tuple(LANGUAGES):
            raise ValueError(f"lang must be one of {', '.join(map(repr, LANGUAGES))}, not {self.lang!r}")
        checked_dtype(self.dtype)
        known = {name.lower(): name for name in OPTIMIZERS}
        given = listed("optimizers", self.optimizers, "['SGD', 'Adam']")
        for name in given:
            if not isinstance(name, str):
                raise TypeError(f"optimizers must be names such as 'Adam', with their defaults, not {name!r}")
        unknown = [name for name in given if name.lower() not in known]
        if unknown or not given:
            hint = did_you_mean(unknown[0], OPTIMIZERS) if unknown else ""
            got = ", ".join(unknown) or "none"
            raise ValueError(f"optimizers must be some of {', '.join(OPTIMIZERS)}, got {got}{hint}")
        object.__setattr__(self, "optimizers", tuple(dict.fromkeys(known[name.lower()] for name in given)))


@dataclass
class Run:
    """One network with its optimizer, the losses so far and the seconds of training."""

    name: str
    network: MultiLayerNet
    optimizer: Optimizer
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def end_loss(self) -> float:
        """The mean of the last 100 losses, or of all if there are fewer; NaN before the first."""
        return float(np.mean(self.losses[-_LAST:])) if self.losses else float("nan")


@lru_cache(maxsize=2)
def _batches(seed: int, block: int, n_images: int, batch_size: int) -> NDArray[np.int64]:
    """Draw the batches of a block. They depend on no more, so all networks train on the same ones."""
    return np.random.default_rng([seed, block]).integers(n_images, size=(BLOCK, batch_size))


class Comparison:
    """The training of one network per optimizer, all on the same batches.

    Batches are drawn with replacement, as in the notes, so a batch may contain an image twice. All networks start from
    the same weights, and optimizers have their default hyperparameters. A curve depends only on the data, the settings
    and its optimizer, not on the other optimizers or the number of threads.

    Parameters
    ----------
    data : Data
        The images; the ten classes are the digits.
    settings : Settings
        What to train.

    Raises
    ------
    ValueError
        If the batch size is larger than the number of training images.

    Attributes
    ----------
    runs : list of Run
        One per optimizer, in the order of the settings. After an interruption it holds all completed iterations.

    Examples
    --------
    >>> from fastoptim.comparison.digits import load_data
    >>> comparison = Comparison(load_data("digits"), Settings(iterations=5, hidden=[20], optimizers=["SGD"]))
    >>> comparison.train()
    >>> [(run.name, len(run.losses)) for run in comparison.runs]
    [('SGD', 5)]
    """

    def __init__(self, data: Data, settings: Settings) -> None:
        n, batch_size = len(data.x_train), settings.batch_size
        if batch_size > n:
            raise ValueError(f"batch size must be from 1 to {n}, the number of training images, got {batch_size}")
        self.data, self.settings = data, settings
        self.runs = [Run(name, self._network(settings.hidden), OPTIMIZERS[name]()) for name in settings.optimizers]
        self._stopping = False

    def _network(self, hidden: Sequence[int]) -> MultiLayerNet:
        n_pixels = self.data.x_train.shape[1]
        return MultiLayerNet(n_pixels, list(hidden), 10, dtype=self.settings.dtype, seed=self.settings.seed)

    def train(self, progress: Callable[[Sequence[Run]], object] | None = None) -> None:
        """Train all networks to the end.

        Parameters
        ----------
        progress : callable, optional
            Called with `runs` in the caller's thread each time a network has finished some 20 iterations.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when all workers have finished their current iteration; likewise any exception of `progress`.
            `runs` holds what was computed, and another call of `train` continues from there.
        """
        self._stopping = False
        self._compile()
        workers = min(self.settings.threads or numba.config.NUMBA_DEFAULT_NUM_THREADS, len(self.runs))
        waiting = list(self.runs)
        running: dict[Future[None], Run] = {}
        # Networks run in parallel, so each gets one BLAS thread. The limit is set twice: most builds of BLAS keep one
        # limit for the process, which is restored at the end, but builds with OpenMP keep one for each thread.
        one_thread = {"limits": 1, "user_api": "blas"}
        with (
            threadpool_limits(**one_thread),
            ThreadPoolExecutor(workers, initializer=lambda: threadpool_limits(**one_thread)) as pool,
        ):
            try:
                while running or (waiting and not self._stopping):
                    while waiting and len(running) < workers and not self._stopping:
                        furthest_behind = min(waiting, key=lambda run: len(run.losses))
                        waiting.remove(furthest_behind)
                        running[pool.submit(self._train_turn, furthest_behind)] = furthest_behind
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        run = running.pop(future)
                        future.result()
                        if len(run.losses) < self.settings.iterations:
                            waiting.append(run)
                    if progress:
                        progress(self.runs)
            finally:
                self._stopping = True

    def stop(self) -> None:
        """Make `train` return after the current iteration of each network; signal handlers may call it."""
        self._stopping = True

    def _compile(self) -> None:
        # Compile before time is measured, and load the BLAS, whose threads can only be limited once it is loaded.
        x, t = self.data.x_train[:1], self.data.t_train[:1]
        for run in self.runs:
            if self._stopping:
                return
            network = self._network([1])
            with num_threads(1):
                type(run.optimizer)().update(network.params, network.gradient(x, t))
            network.loss(x, t)

    def _train_turn(self, run: Run) -> None:
        start = time.perf_counter()
        x_train, t_train, batch_size = self.data.x_train, self.data.t_train, self.settings.batch_size
        x = np.empty((batch_size, x_train.shape[1]), x_train.dtype)
        block, done = divmod(len(run.losses), BLOCK)
        batches = _batches(self.settings.seed, block, len(x_train), batch_size)
        with num_threads(1):
            for batch in batches[done : min(done + _TURN, self.settings.iterations - block * BLOCK)]:
                if self._stopping:
                    break
                # The indices are in range. Unless they are checked, rows are written to `x` without a copy.
                np.take(x_train, batch, axis=0, out=x, mode="clip")
                t = t_train[batch]
                run.optimizer.update(run.network.params, run.network.gradient(x, t))
                run.losses.append(float(run.network.loss(x, t)))
        run.seconds += time.perf_counter() - start

    @property
    def losses(self) -> dict[str, NDArray[np.float64]]:
        """The losses of each optimizer so far, one per iteration."""
        return {run.name: np.array(run.losses, np.float64) for run in self.runs}

    def table(self) -> Table:
        """Return a table: iterations, mean of the last losses, accuracy on the test images and seconds of training."""
        words = LANGUAGES[self.settings.lang]
        last = words.last_loss.format(min(_LAST, max(len(run.losses) for run in self.runs)))
        x_test, t_test = self.data.x_test, self.data.t_test
        rows = [
            (
                run.name,
                f"{len(run.losses)}",
                f"{run.end_loss:z.4f}",
                f"{run.network.accuracy(x_test, t_test):.4f}",
                f"{run.seconds:.2f}",
            )
            for run in self.runs
        ]
        return Table((words.optimizer, words.iterations, last, words.accuracy, words.seconds), rows, 1, self.data.title)

    @property
    def notices(self) -> list[str]:
        """What a user should know about the images and the picture before the training, often nothing."""
        notices = [self.data.notice] if self.data.notice else []
        if no_font := LANGUAGES[self.settings.lang].no_font:
            from fastoptim.comparison.pictures import chinese_font

            notices += [] if chinese_font() else [no_font]
        return notices

    def plot(self) -> "Figure":
        """Return the plot of the notes as a matplotlib figure: the smoothed losses against the iteration."""
        return plot_losses({run.name: run.losses for run in self.runs}, self.data.title, self.settings.lang)

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def write_csv(self, path: Path) -> None:
        """Write the losses: a column ``iteration`` and one per optimizer, empty after its last iteration."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["iteration", *(run.name for run in self.runs)])
        rows = zip_longest(*(run.losses for run in self.runs))
        writer.writerows([iteration, *row] for iteration, row in enumerate(rows))
        with replacing(path) as stream:
            stream.write(text.getvalue().encode())

    def write_picture(self, path: Path) -> None:
        """Write the plot in the format that the suffix of the path names: ``.png``, ``.svg`` or ``.pdf``."""
        figure = self.plot()
        with replacing(path) as stream:
            figure.savefig(stream, format=path.suffix[1:])
