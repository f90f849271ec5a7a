"""The command ``fastoptim compare``: its options, what it prints and the files that it writes."""

import argparse
import signal
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastoptim._messages import one_line, printable
from fastoptim._optional import missing
from fastoptim._terminal import Interruption, print_error, write
from fastoptim.comparison.interactive import LossBar
from fastoptim.comparison.languages import LANGUAGES
from fastoptim.family import FAMILY, NOTES_FIVE
from fastoptim.tables import columns_of

if TYPE_CHECKING:
    from fastoptim.comparison.training import Comparison, Run

__all__ = ["add_parser"]

_CSV, _PICTURE = "losses.csv", "losses.{}"
_FORMATS = ("png", "svg", "pdf")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `argparse`."""
    parser = commands.add_parser(
        "compare",
        help="train one network per optimizer on the same batches and compare the losses",
        description="Train one network per optimizer on the same batches of handwritten digits; "
        f"print a table and write {_PICTURE.format(_FORMATS[0])} and {_CSV}. "
        "Ctrl-C ends the training and keeps what was computed; a second Ctrl-C leaves at once.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--output", type=Path, default=Path("comparison"), metavar="DIR", help="folder of the results")
    option("--overwrite", action="store_true", help="replace the results of an earlier run in that folder")
    option("--format", choices=_FORMATS, default=_FORMATS[0], help="of the picture")
    option("--show", action="store_true", help="open the picture")
    option("--lang", choices=tuple(LANGUAGES), default="en", help="language of table and picture")
    option(
        "--data",
        default="auto",
        metavar="auto|mnist|digits|DIR",
        help="MNIST, or the digits of scikit-learn if it cannot be had; only the one, or the other; "
        "MNIST from a folder of its four files",
    )
    option("--iterations", type=int, default=2000, metavar="N", help="updates of each network")
    option("--batch-size", type=int, default=128, metavar="N", help="images per update, at most all there are")
    option("--hidden", type=_integers, default="100,100,100,100", metavar="N,N,...", help="units of the hidden layers")
    optimizers = option(
        "--optimizers",
        type=lambda text: [name.strip() for name in text.split(",")],
        default=",".join(NOTES_FIVE),
        metavar="NAME,...",
        help=f"any of {', '.join(FAMILY)}",
    )
    optimizers.completer = _complete_names
    option("--dtype", choices=("float32", "float64"), default="float32", help="of weights and state")
    option("--seed", type=int, default=0, metavar="N", help="of weights and batches")
    # The help would show a default of None.
    threads = "networks trained at the same time (default: one per core)"
    option("--threads", type=int, default=argparse.SUPPRESS, metavar="N", help=threads)
    parser.set_defaults(run=_run, parser=parser)


def _integers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected layer sizes such as 100,100, got {text!r}") from None


def _complete_names(prefix: str, **_: Any) -> list[str]:
    """Return what the shell may complete a list of names to: each optimizer that it does not have yet."""
    *names, last = prefix.split(",")
    return [",".join([*names, name]) for name in FAMILY if name not in names and name.startswith(last)]


def _run(options: argparse.Namespace, interruption: Interruption) -> int:
    comparison = _prepare(options, interruption)
    interruption.stop = comparison.stop
    screen = _Screen(comparison)
    code = 0
    try:
        with screen.bar:
            comparison.train(screen.show)
    except KeyboardInterrupt:
        interruption.code = 128 + signal.SIGINT
    except MemoryError as error:
        code = print_error(f"the batches do not fit into memory: {one_line(error)}")
    if not any(run.losses for run in comparison.runs):
        return code or print_error("interrupted before the first iteration: nothing is written", interruption.code)
    if interruption.code:
        screen.print(screen.words.interrupted)
    code |= _deliver(comparison, options, screen) | screen.code
    return interruption.code or code


def _prepare(options: argparse.Namespace, interruption: Interruption) -> "Comparison":
    """Check everything and load the data; an error ends the process with code 2, before anything is computed."""
    fail = options.parser.error
    try:
        for library in ("matplotlib", "tqdm"):
            if find_spec(library) is None:
                raise missing(library, "fastoptim compare", "'fastoptim[compare]'")
        # This import fails if an environment variable of tqdm is wrong.
        import tqdm  # noqa: F401

        from fastoptim.comparison.digits import load_data
        from fastoptim.comparison.training import Comparison, Settings

        # An exception has pooch delete its unfinished download.
        interruption.stop = _raise_interrupt
        names = {field.name for field in fields(Settings)}
        settings = Settings(**{name: value for name, value in vars(options).items() if name in names})
        if not options.overwrite:
            _check_results(options)
        comparison = Comparison(load_data(options.data, options.lang), settings)
        _check_output(options.output)
    except MemoryError as error:
        fail(f"data and networks do not fit into memory: {one_line(error)}")
    except (ImportError, OSError, ValueError) as error:
        fail(one_line(error))
    return comparison


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


def _check_results(options: argparse.Namespace) -> None:
    folder = options.output
    for name in (_CSV, _PICTURE.format(options.format)):
        if (folder / name).exists():
            raise ValueError(f"{folder} already holds {name}: add --overwrite, or name another folder by --output")


def _check_output(folder: Path) -> None:
    """Raise an error if the folder cannot be written to: better before the training than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise OSError(f"argument --output: cannot write to {folder}: {why}") from None


class _Screen:
    """Standard output above a progress bar. After an error the training goes on, and the exit code is 1."""

    code = 0

    def __init__(self, comparison: "Comparison") -> None:
        self.words = LANGUAGES[comparison.settings.lang]
        self.bar = LossBar(comparison)
        self._printed = 0
        for notice in comparison.notices:
            self.print(notice)
        self._widths = [max(10, len(run.name) + 2) for run in comparison.runs]
        names = [f"{run.name:>{width}}" for run, width in zip(comparison.runs, self._widths, strict=True)]
        self.print(" " * (9 - columns_of(self.words.iteration)) + self.words.iteration + "".join(names))

    def print(self, text: str) -> None:
        self.code |= write(text, self.bar.write)

    def show(self, runs: Sequence["Run"]) -> None:
        """Move the bar, and print the losses of every 100th iteration that all networks have passed."""
        self.bar.show(runs)
        while self._printed < min(len(run.losses) for run in runs):
            losses = [f"{run.losses[self._printed]:>z{w}.4f}" for run, w in zip(runs, self._widths, strict=True)]
            self.print(f"{self._printed:>9}" + "".join(losses))
            self._printed += 100


def _deliver(comparison: "Comparison", options: argparse.Namespace, screen: _Screen) -> int:
    """Print the table, write the files and show the picture, even if one of them fails; return the exit code."""
    folder, picture = options.output, _PICTURE.format(options.format)

    def file(name: str, write_file: Callable[[Path], None]) -> str:
        # The folder may have been deleted during the training.
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / name)
        return screen.words.wrote.format(printable(str(folder / name)))

    results: dict[str, Callable[[], str]] = {
        "table": lambda: str(comparison.table()),
        _CSV: lambda: file(_CSV, comparison.write_csv),
        picture: lambda: file(picture, comparison.write_picture),
    }
    code = 0
    for name, make in results.items():
        try:
            screen.print(make())
        except Exception as error:
            # matplotlib may raise anything, depending on its installation.
            code = print_error(f"{name} not written: {one_line(error)}")
    path = (folder / picture).resolve()
    if options.show and path.exists() and not webbrowser.open(path.as_uri()):
        code = print_error(f"--show found no program that shows pictures on this machine: open {path} on another one")
    return code
