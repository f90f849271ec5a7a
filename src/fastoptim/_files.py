"""Writing files so that a reader finds either the old one or the new one, whole."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends, and leaves no trace when it raises.

    Only a process that is killed leaves its unfinished file behind, hidden beside the other; nothing ever reads it. A
    link stays a link, to the new file, and the new file has the permissions of the old one.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    # The temporary file stands beside its destination, because a rename is atomic only within one file system.
    # Its name is no longer than any file system takes, of which most count bytes.
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            with suppress(FileNotFoundError):
                temporary.chmod(path.stat().st_mode & 0o777)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make sure that a file that was renamed has its name even if the machine loses power now."""
    # Not every system can, and the file is in place.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
