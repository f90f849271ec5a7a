"""Optional libraries: where one is missing, the error says what needs it and how to install it."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["imported_for", "missing"]


def missing(library: str, user: str, install: str) -> ModuleNotFoundError:
    """Return the error to raise where a library is not installed.

    Parameters
    ----------
    library : str
        The name that it is imported by.
    user : str
        What needs it, such as ``"fastoptim.torch"``.
    install : str
        What follows ``pip install``.
    """
    return ModuleNotFoundError(f"{user} needs {library}: pip install {install}", name=library)


@contextmanager
def imported_for(user: str, install: str) -> Iterator[None]:
    """Raise `missing` in place of the error of an import in the block, with its arguments.

    A library that is installed, but cannot be imported for another reason, raises its own error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", "fastoptim"):
            raise
        raise missing(library, user, install) from error
