"""Signals and standard streams of the command line."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TextIO

from fastoptim._messages import one_line, printable

__all__ = ["Interruption", "ensure_streams", "flush_streams", "print_error", "write"]

_CLOSED_PIPE = {errno.EPIPE, errno.EINVAL} if os.name == "nt" else {errno.EPIPE}
"""Numbers of the errors that a pipe without a reader raises."""


class Interruption:
    """The handler of Ctrl-C and SIGTERM: the first signal calls `stop`, the second ends the process at once.

    `code` is 0 before the first signal, then 130 for SIGINT and 143 for SIGTERM. While `stop` is None, the first signal
    ends the process: an exception in the middle of an import may be lost, or crash an extension module.
    """

    code = 0
    stop: Callable[[], object] | None = None

    def listen(self) -> None:
        """Handle both signals, except one that the parent process had this process ignore."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        is_first, self.code = not self.code, 128 + number
        if is_first and self.stop:
            self.stop()
            return
        try:
            print_error("interrupted")
        finally:
            os._exit(self.code)


def ensure_streams() -> None:
    """Open standard output and standard error if they are closed, and escape what they cannot encode."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Otherwise the next file to be opened would get the stream's number, and what is printed.
            # It stays open until the process ends: a warning that it was not closed would be all that is printed.
            number = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_streams() -> None:
    """Flush standard output and standard error; Python would report an error, with a traceback, when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _silence(stream)


def write(text: str, printer: Callable[[str], object] = print) -> int:
    """Print lines on standard output; return the exit code: 1 after an error, except a closed pipe (``| head``)."""
    try:
        printer("\n".join(map(printable, text.split("\n"))))
        sys.stdout.flush()
    except OSError as error:
        _silence(sys.stdout)
        if error.errno not in _CLOSED_PIPE:
            return print_error(f"cannot write to standard output: {one_line(error)}")
    return 0


def print_error(message: str, code: int = 1) -> int:
    """Print one line on standard error and return the exit code."""
    try:
        print(one_line(f"fastoptim: {message}"), file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)
    return code


def _silence(stream: TextIO) -> None:
    # The stream keeps its buffer after an error, and writes it again at the next flush.
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
