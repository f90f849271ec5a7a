"""Replace files atomically: a reader finds either the complete old file or the complete new one."""

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_IS_WINDOWS = os.name == "nt"
_TIMEOUT_S = 1.0


def check_regular(path: Path) -> None:
    """Raise `OSError` if there is no file, or a pipe, a device or a folder: opening a pipe waits for its other end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends, and is deleted if the block raises.

    A process that is killed leaves its temporary file behind, under a hidden name that is never read. A symbolic link
    stays a link, to the new file, and the new file has the permissions of the old one. On Windows, an old file that is
    read-only, or that is open for longer than a second, raises `PermissionError` and stays as it was.
    """
    with suppress(FileNotFoundError):
        check_regular(path)
    path = path.resolve()
    if not path.parent.exists():
        raise FileNotFoundError(errno.ENOENT, "no such directory", str(path.parent))
    # The temporary file is in the folder of its destination, because a rename is atomic only within one file system.
    # Its name is cut to stay below the limit of all file systems, most of which count bytes.
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            # The only permission of Windows is read-only, and a temporary file with it could not be deleted.
            if not _IS_WINDOWS:
                with suppress(FileNotFoundError):
                    temporary.chmod(path.stat().st_mode & 0o777)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _replace(temporary: Path, path: Path) -> None:
    # Windows does not replace a file that a reader or a virus scanner has open.
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            if not _IS_WINDOWS or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _sync(folder: Path) -> None:
    """Write the entries of a folder to disk, so that a renamed file keeps its name after a power failure."""
    # Some systems cannot do this; the file has been replaced anyway.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
