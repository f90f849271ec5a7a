"""Messages of one short, printable line, also if they quote files, paths or options that contain other characters."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LIMIT", "one_line", "printable", "short_errors"]

LIMIT = 300
"""The largest number of characters in a line of a message."""


def one_line(message: object, limit: int = LIMIT) -> str:
    """Return the text of a message or an exception as one short line, or the exception's name if it has no text."""
    # The text is cut first, because it may have a hundred million characters.
    text = " ".join(_cut(str(message), limit).split())
    return _cut(printable(text), limit) or type(message).__name__


def printable(text: str) -> str:
    """Escape control characters, which a terminal would obey, and others that cannot be seen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def short_errors() -> Iterator[None]:
    """Give errors that the block raises a message of one line, and no cause, whose message may be long."""
    try:
        yield
    except (KeyError, OSError, TypeError, ValueError) as error:
        # An error of the operating system has several arguments, and shows the path as Python would write it.
        if len(error.args) != 1 or error.args == (one_line(error.args[0]),):
            raise
        error.args = (one_line(error.args[0]),)
        raise error from None


def _cut(text: str, limit: int) -> str:
    """Return the beginning and the end of a text that is longer than the limit."""
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"
