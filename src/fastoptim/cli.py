"""The command line: ``fastoptim compare``."""

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fastoptim._version import __version__

__all__ = ["main"]

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from fastoptim.compare import Run

_FAILED, _BAD_OPTION, _INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit code: 0, 1 if the results could not be written, 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With code 2 and one line on stderr for a bad option, with code 0 for ``--help`` and ``--version``.

    Examples
    --------
    >>> main(["compare", "--iterations", "20", "--output", "comparison"])  # doctest: +SKIP
    0
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter of a path gets an escape in place of a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = _Parser(
        prog="fastoptim", description="Optimizers for parameters that are NumPy arrays.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fastoptim {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_compare(commands)
    options = parser.parse_args(argv)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)


class _Parser(argparse.ArgumentParser):
    """A parser that answers an error with one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(_BAD_OPTION, f"{self.prog}: {_one_line(message)} (see {self.prog} --help)\n")


def _add_compare(commands: "_SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="train one network per optimizer on the same batches and compare the losses",
        description="Train one network per optimizer on the same batches of handwritten digits; "
        "print a table and write losses.png and losses.csv.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, default=Path("comparison"), metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--data",
        default="auto",
        metavar="auto|mnist|digits|DIR",
        help="MNIST, or scikit-learn's digits if it cannot be had; MNIST; the digits; MNIST from a folder",
    )
    parser.add_argument("--iterations", type=int, default=2000, metavar="N", help="updates of each network")
    parser.add_argument("--batch-size", type=int, default=128, metavar="N", help="images per update")
    parser.add_argument(
        "--hidden", type=_integers, default="100,100,100,100", metavar="N,N,...", help="units of the hidden layers"
    )
    parser.add_argument(
        "--optimizers",
        type=_names,
        default="SGD,Momentum,AdaGrad,Adam,RMSprop",
        metavar="NAME,...",
        help="any of SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam",
    )
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of weights and state")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and batches")
    # The suppressed default is left out of the help, which says it in words.
    parser.add_argument(
        "--threads",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="networks trained at the same time (default: one per core)",
    )
    parser.set_defaults(run=_compare, parser=parser)


def _integers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected layer sizes such as 100,100, got {text!r}") from None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _compare(options: argparse.Namespace) -> int:
    try:
        from tqdm import tqdm

        from fastoptim.compare import Comparison, Settings, load_data

        settings = Settings(
            options.iterations,
            options.batch_size,
            options.hidden,
            options.optimizers,
            options.dtype,
            options.seed,
            getattr(options, "threads", None),
        )
        data = load_data(options.data)
        if data.notice:
            _say(data.notice)
        comparison = Comparison(data, settings)
    except (ImportError, MemoryError, OSError, ValueError) as error:
        options.parser.error(str(error) or type(error).__name__)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        # It is better to learn now than after the training that nothing can be written there.
        tempfile.TemporaryFile(dir=options.output).close()
    except OSError as error:
        options.parser.error(f"argument --output: cannot write to {options.output}: {error.strerror}")

    interrupted = False
    total = settings.iterations * len(comparison.runs)
    # The losses of five optimizers leave room for little else in 80 columns.
    layout = "{percentage:3.0f}%|{bar}| {remaining}{postfix}"
    with tqdm(total=total, bar_format=layout, dynamic_ncols=True, leave=False, disable=None) as bar:
        try:
            comparison.train(_Progress(bar, comparison.runs))
        except KeyboardInterrupt:
            interrupted = True
        except MemoryError as error:
            return _complain(f"the batches do not fit into memory: {error}", _FAILED)
    if not any(run.losses for run in comparison.runs):
        return _complain("interrupted before the first iteration: nothing is written", _INTERRUPTED)
    if interrupted:
        _say("interrupted: what was computed so far follows")
    _say(comparison.table())
    writers: dict[str, Callable[[Path], None]] = {
        "losses.csv": comparison.write_csv,
        "losses.png": comparison.write_png,
    }
    code = _INTERRUPTED if interrupted else 0
    for name, write in writers.items():
        try:
            write(options.output / name)
        except (ImportError, OSError) as error:
            code = _complain(f"{name} not written: {error}", code or _FAILED)
        else:
            _say(f"wrote {options.output / name}")
    return code


class _Progress:
    """Moves the bar, and prints the losses of every 100th iteration when all networks have passed it."""

    def __init__(self, bar: Any, runs: Sequence["Run"]) -> None:
        self.bar = bar
        self.printed = 0
        _say("iteration" + "".join(f"{run.name:>10}" for run in runs))

    def __call__(self, runs: Sequence["Run"]) -> None:
        losses = " ".join(f"{run.name} {run.losses[-1]:z.2f}" for run in runs if run.losses)
        self.bar.set_postfix_str(losses, refresh=False)
        self.bar.update(sum(len(run.losses) for run in runs) - self.bar.n)
        while self.printed < min(len(run.losses) for run in runs):
            _say(f"{self.printed:>9}" + "".join(f"{run.losses[self.printed]:>z10.4f}" for run in runs))
            self.printed += 100


def _say(text: str) -> None:
    from tqdm import tqdm

    try:
        tqdm.write(text, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on, as in "fastoptim compare | head", but the files are still wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, code: int) -> int:
    print(f"fastoptim: {_one_line(message)}", file=sys.stderr)
    return code


def _one_line(message: str) -> str:
    return " ".join(message.split())
