"""The command line: ``fastoptim compare``."""

import argparse
import errno
import io
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from fastoptim._version import __version__
from fastoptim.family import FAMILY, NOTES_FIVE

__all__ = ["main"]

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from fastoptim.compare import Comparison, Run

_FAILED, _BAD_OPTION = 1, 2

_CSV, _PNG = "losses.csv", "losses.png"

_NOTHING = "interrupted before the first iteration: nothing is written"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit code: 0; 1 if the results could not be computed to the end, written or shown; 130 after Ctrl-C, and 143
        after SIGTERM.

    Raises
    ------
    SystemExit
        With code 2 and one line on stderr for a bad option, with code 0 for ``--help`` and ``--version``.

    Examples
    --------
    >>> main(["compare", "--iterations", "20", "--output", "comparison"])  # doctest: +SKIP
    0
    """
    _mend_streams()
    try:
        options = _parser().parse_args(argv)
        return int(options.run(options))
    except KeyboardInterrupt:
        return _complain("interrupted", 128 + signal.SIGINT)
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                _silence(stream)


def _mend_streams() -> None:
    for name in ("stdout", "stderr"):
        # A stream that was closed has its number taken by the next file that is opened: this one, and not a result.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        # A terminal that cannot show a letter of a path gets an escape in place of a traceback.
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fastoptim", description="Optimizers for parameters that are NumPy arrays.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fastoptim {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_compare(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that answers an error with one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(_BAD_OPTION, f"{self.prog}: {_one_line(message)} (see {self.prog} --help)\n")


def _add_compare(commands: "_SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="train one network per optimizer on the same batches and compare the losses",
        description="Train one network per optimizer on the same batches of handwritten digits; "
        f"print a table and write {_PNG} and {_CSV}. Ctrl-C ends the training and keeps what was computed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, default=Path("comparison"), metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--data",
        default="auto",
        metavar="auto|mnist|digits|DIR",
        help="MNIST, or the digits of scikit-learn if it cannot be had; only the one, or the other; "
        "MNIST from a folder of its four files",
    )
    parser.add_argument("--iterations", type=int, default=2000, metavar="N", help="updates of each network")
    parser.add_argument(
        "--batch-size", type=int, default=128, metavar="N", help="images per update, at most all there are"
    )
    parser.add_argument(
        "--hidden", type=_integers, default="100,100,100,100", metavar="N,N,...", help="units of the hidden layers"
    )
    parser.add_argument(
        "--optimizers",
        type=_names,
        default=",".join(NOTES_FIVE),
        metavar="NAME,...",
        help=f"any of {', '.join(FAMILY)}",
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
    fail = options.parser.error
    try:
        Path.cwd()
    except FileNotFoundError:
        # What is imported next would ask, too, and answer with a traceback.
        fail("the current folder does not exist any more: change to another one")
    try:
        import tqdm  # noqa: F401  # It may not like its variables of the environment.

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
    except (ImportError, ValueError) as error:
        fail(_reason(error))

    screen = _Screen()
    failure = ""
    with _Interruption() as interruption:
        try:
            data = load_data(options.data)
            if data.notice:
                screen.say(data.notice)
            comparison = Comparison(data, settings)
            _check_output(options.output)
        except MemoryError as error:
            fail(f"data and networks do not fit into memory: {_reason(error)}")
        except (ImportError, OSError, ValueError) as error:
            fail(_reason(error))
        except KeyboardInterrupt:
            return _complain(_NOTHING, interruption.code)

        progress = _Progress(screen, comparison.runs, settings.iterations)
        interruption.comparison = comparison
        try:
            comparison.train(progress)
        except KeyboardInterrupt:
            interruption.happened = True
        except MemoryError as error:
            failure = f"the batches do not fit into memory: {_reason(error)}"
        progress.bar.close()

        if failure:
            _complain(failure, _FAILED)
        if not any(run.losses for run in comparison.runs):
            return _FAILED if failure else _complain(_NOTHING, interruption.code)
        if interruption.happened:
            screen.say("interrupted: what was computed so far follows")
        whole = _deliver(comparison, options.output, screen)
    if interruption.happened:
        return interruption.code
    return 0 if whole and not failure and screen.readable else _FAILED


class _Interruption:
    """Ctrl-C and SIGTERM: while data are loaded they raise `KeyboardInterrupt`, and later end the training in order.

    The first ends the training, if it still runs, and nothing else: an exception could come up, and vanish, in any
    destructor. The second is ignored, because those who are in a hurry press twice, and what was computed is being
    written. The third raises `KeyboardInterrupt`.
    """

    def __init__(self) -> None:
        self.comparison: Comparison | None = None
        self.happened = False
        self.code = 128 + signal.SIGINT
        self._count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # Whoever started this so that it does not hear a signal has a reason.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.happened, self.code = True, 128 + number
        self._count += 1
        if self.comparison is None or self._count > 2:
            raise KeyboardInterrupt
        if any(run.losses for run in self.comparison.runs):
            self.comparison.stop()
        elif callable(before := self._before[number]):
            # Kernels are being compiled, for which nobody need wait. A process of its own, see `__main__`, just ends.
            before(number, frame)
        else:
            signal.signal(number, before)
            os.kill(os.getpid(), number)


class _Screen:
    """Standard output; that nobody can read it is no reason to lose what is computed."""

    readable = True

    def say(self, text: str) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(text, sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            # Nobody reads on, as in "fastoptim compare | head".
            _silence(sys.stdout)
        except OSError as error:
            _silence(sys.stdout)
            self.readable = False
            _complain(f"cannot write to standard output: {_reason(error)}", _FAILED)


class _Progress:
    """Moves the bar, and prints the losses of every 100th iteration when all networks have passed it."""

    def __init__(self, screen: _Screen, runs: Sequence["Run"], iterations: int) -> None:
        from tqdm import tqdm

        # The losses of five optimizers leave room for little else in 80 columns.
        layout = "{percentage:3.0f}%|{bar}| {remaining}{postfix}"
        self.bar = tqdm(total=iterations * len(runs), bar_format=layout, dynamic_ncols=True, leave=False, disable=None)
        self.screen = screen
        self.printed = 0
        screen.say("iteration" + "".join(f"{run.name:>10}" for run in runs))

    def __call__(self, runs: Sequence["Run"]) -> None:
        losses = " ".join(f"{run.name} {run.losses[-1]:z.2f}" for run in runs if run.losses)
        self.bar.set_postfix_str(losses, refresh=False)
        self.bar.update(sum(len(run.losses) for run in runs) - self.bar.n)
        while self.printed < min(len(run.losses) for run in runs):
            self.screen.say(f"{self.printed:>9}" + "".join(f"{run.losses[self.printed]:>z10.4f}" for run in runs))
            self.printed += 100


def _check_output(folder: Path) -> None:
    """Raise an error for a folder that cannot be written to: better now than after the training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        for name in (_CSV, _PNG):
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise OSError(f"argument --output: cannot write to {folder}: {reason}") from None


def _deliver(comparison: "Comparison", folder: Path, screen: _Screen) -> bool:
    """Write the files and show the table, whatever becomes of the others; return whether all is done."""

    def file(write: Callable[[Path], None], name: str) -> None:
        # Somebody may have tidied up since the training began.
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / name)

    # What matters most, and takes no time, comes first.
    results: dict[str, Callable[[], None]] = {
        _CSV: lambda: file(comparison.write_csv, _CSV),
        "table": lambda: screen.say(comparison.table()),
        _PNG: lambda: file(comparison.write_png, _PNG),
    }
    missing = list(results)
    try:
        for name, deliver in results.items():
            try:
                deliver()
            except Exception as error:
                # There is no telling what an installation of matplotlib may stumble over.
                _complain(f"{name} not written: {_reason(error)}", _FAILED)
            else:
                missing.remove(name)
        for name in (_CSV, _PNG):
            if name not in missing:
                screen.say(f"wrote {folder / name}")
    except KeyboardInterrupt:
        _complain(f"interrupted again: {' and '.join(missing) or 'nothing'} not written", _FAILED)
    return not missing


def _complain(message: str, code: int) -> int:
    try:
        print(f"fastoptim: {_one_line(message)}", file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)
    return code


def _silence(stream: TextIO) -> None:
    """Let go nowhere what was and will be printed: Python would try again, and complain, at its end."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _one_line(message: str) -> str:
    return " ".join(message.split())
