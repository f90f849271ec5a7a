"""The command line: ``fastoptim compare``, ``fastoptim info`` and ``fastoptim cache``."""

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fastoptim._messages import LIMIT, one_line
from fastoptim._terminal import Interruption, ensure_streams, flush_streams, print_error, write
from fastoptim._version import __version__
from fastoptim.comparison import command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, interruption: Interruption | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.
    interruption : Interruption, optional
        The handler of Ctrl-C and SIGTERM. By default no handler is changed, and Ctrl-C raises `KeyboardInterrupt`.

    Returns
    -------
    int
        The exit code: 0; 1 if the results could not be computed to the end, written or shown; 130 after Ctrl-C, and 143
        after SIGTERM.

    Raises
    ------
    SystemExit
        With code 2 and one line on standard error for a bad option, with code 0 for ``--help`` and ``--version``.

    Examples
    --------
    >>> main(["compare", "--iterations", "20", "--output", "comparison"])  # doctest: +SKIP
    0
    """
    ensure_streams()
    interruption = interruption or Interruption()
    try:
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:
            # The shell asks what may follow; this prints the answer and ends the process.
            from argcomplete import autocomplete

            autocomplete(parser)
        options, unknown = parser.parse_known_args(argv)
        if unknown:
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return int(options.run(options, interruption))
    except KeyboardInterrupt:
        return print_error("interrupted", interruption.code or 128 + signal.SIGINT)
    finally:
        flush_streams()


class _Parser(argparse.ArgumentParser):
    """A parser that answers an error with one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        hint = f" (see {self.prog} --help)"
        self.exit(2, one_line(f"{self.prog}: {message}", LIMIT - len(hint)) + f"{hint}\n")


def _parser() -> argparse.ArgumentParser:
    about = "Optimizers for parameters that are NumPy arrays."
    parser = _Parser(prog="fastoptim", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fastoptim {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command.add_parser(commands)

    about = "print versions, processor, threading layer, BLAS and the folder of compiled code"
    info = commands.add_parser("info", help=about, description=about, allow_abbrev=False)
    info.set_defaults(run=_info, parser=info)

    about = "print the folder of compiled code, the number of its files and their size"
    cache = commands.add_parser("cache", help=about, description=about, allow_abbrev=False)
    cache.add_argument("--clear", action="store_true", help="delete the files")
    cache.set_defaults(run=_cache, parser=cache)
    return parser


def _info(_options: argparse.Namespace, _interruption: Interruption) -> int:
    from fastoptim.configuration import configuration

    return write(configuration())


def _cache(options: argparse.Namespace, _interruption: Interruption) -> int:
    from fastoptim.kernels.cache import SUFFIX, cache_folder

    folder: Path | str = "the cache"
    try:
        folder = cache_folder()
        sizes = {path: path.stat().st_size for path in folder.glob(f"*{SUFFIX}")}
        if options.clear:
            for path in sizes:
                path.unlink(missing_ok=True)
    except OSError as error:
        return print_error(f"cannot {'clear' if options.clear else 'read'} {folder}: {error.strerror or error}")
    deleted = "deleted " if options.clear else ""
    return write(f"{folder}: {deleted}{len(sizes)} files, {sum(sizes.values()):,} bytes")
