"""The folder that `state_dir` names: the files of the state, and the journal of the steps that write to them."""

from __future__ import annotations

import errno
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastoptim.mapped import Mapped, release
from fastoptim.parameters import FlatDict, Layout

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Journal", "State", "StateFiles", "Zeros", "in_memory", "moved"]

_NAME = re.compile(r".+\.(b?float|u?int|bool|longdouble)\d*\.\d+\.fastoptim")
"""The names of the files: slot, dtype, number. Others in the folder, such as checkpoints, are the user's."""
_CLOSED, _NO_STEP, _BEGUN = "closed", "no step finished", " begun"
"""What the line of a journal is, or how it ends."""
_LENGTH = 80
_ZEROS = bytes(1 << 20)


State = dict[str, FlatDict]
"""An array for each parameter, by slot and key."""

Zeros = Callable[[str, Layout], FlatDict]
"""A function that makes a slot, given its name and layout."""


def in_memory(_slot: str, layout: Layout) -> FlatDict:
    """Return zeros for a slot, in memory."""
    return FlatDict.zeros(layout)


def moved(state: State | None, zeros: Zeros) -> State | None:
    """Return a copy of a state, in arrays that ``zeros`` makes."""
    if state is None:
        return None
    result: State = {}
    for slot, arrays in state.items():
        result[slot] = zeros(slot, arrays.layout)
        for key, array in arrays.items():
            result[slot][key][...] = array
            release(array)
            release(result[slot][key])
    return result


class StateFiles:
    """The state of one optimizer in files of a folder.

    The files are memory, not a checkpoint: they are deleted with the arrays that lie in them, at the latest when Python
    exits. What a killed process leaves behind is kept until `loading`.

    Parameters
    ----------
    folder : path
        It is made if it does not exist. One optimizer at a time may use it.

    Attributes
    ----------
    folder : str
        The folder as it was given.
    journal : Journal
        The journal of the steps.

    Raises
    ------
    OSError
        If the folder cannot be made or written to.
    RuntimeError
        If another optimizer uses it.
    TypeError
        If it is not a path.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        given: Any = folder
        if not isinstance(given, str | os.PathLike) or not os.fspath(given):
            raise TypeError(f"state_dir must be the path of a folder, or None, not {given!r}")
        self.folder = os.fspath(folder)
        self._path = Path(folder).absolute()
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "state_dir must be a folder, not a file", str(self._path)) from None
        self._own: set[Path] = set()
        self.journal = Journal(self._path, has_files=any(self._files()))
        if not self.journal.leftover:
            self._delete_files()

    def _files(self) -> list[Path]:
        """Return the files that other optimizers have left."""
        return [path for path in self._path.iterdir() if _NAME.fullmatch(path.name) and path not in self._own]

    def _delete_files(self) -> None:
        for path in self._files():
            # Windows does not delete a file whose arrays are still in use.
            with suppress(OSError):
                path.unlink()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Write the parameters of a checkpoint inside; then what a killed process has left behind is forgotten."""
        with self.journal.loading():
            yield
        self._delete_files()

    def zeros(self, slot: str, layout: Layout) -> FlatDict:
        """Return zeros for a slot, in files.

        Raises
        ------
        OSError
            If there is no room for them on the disk.
        RuntimeError
            In a process that was forked.
        """
        self.journal.check_process()
        return FlatDict(layout, {dtype: self._array(slot, dtype, size) for dtype, size in layout.sizes.items()})

    def _array(self, slot: str, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
        if not size:
            return np.zeros(0, dtype)
        path = self._path / f"{slot}.{dtype.name}.{len(self._own)}.fastoptim"
        self._own.add(path)
        path.unlink(missing_ok=True)
        try:
            with path.open("x+b") as stream:
                _reserve(stream, size * dtype.itemsize)
                memory = Mapped(stream.fileno(), size * dtype.itemsize)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None
        weakref.finalize(memory, _delete, path, os.getpid())
        return np.ndarray(size, dtype, memory)


class Journal:
    """A file of one line, which says what step was begun or finished last, and the lock of the folder.

    It is written before and after each step, so that the next process sees whether the one before it was killed in
    between. The first line is synchronized with the disk, so that a failure of the machine is seen as well.

    Attributes
    ----------
    leftover : str
        The line that a process which was killed has left behind, or an empty string.
    step : int
        The number of the step that is written next.
    """

    def __init__(self, folder: Path, has_files: bool) -> None:
        path = folder / "journal"
        path.touch()
        # It is never deleted, or two processes might each lock a file of this name.
        self._folder, self._stream, self._owner = str(folder), path.open("r+b", buffering=0), os.getpid()
        try:
            _lock(self._stream)
        except OSError:
            self._stream.close()
            raise RuntimeError(
                f"state_dir {self._folder!r} is in use by another optimizer, of this process or another one; expected "
                "a folder for each. An optimizer of this process gives it up when its last reference is deleted, as by "
                "`del opt`"
            ) from None
        line = self._stream.read(_LENGTH).decode("ascii", "replace").strip()
        self.leftover = "" if line == _CLOSED or not (line or has_files) else line or _NO_STEP
        self.step = 0
        self._finished, self._is_begun = "", False
        self._line = [""]
        _journals.add(self)
        weakref.finalize(self, _close, self._stream, self._line, self._owner)

    def check_process(self) -> None:
        """Raise `RuntimeError` in a process that was forked."""
        if os.getpid() != self._owner:
            raise RuntimeError(
                f"the state lies in files of {self._folder!r}, which this forked process shares with its parent; make "
                "a new optimizer, with a folder of its own"
            )

    def check(self) -> None:
        """Raise `RuntimeError` if a killed process has left anything behind, or in a process that was forked."""
        self.check_process()
        if self.leftover:
            what = (
                "that was cut off, so state, and parameters that lie in files, may be torn"
                if self.leftover.endswith(_BEGUN)
                else "the state of that process cannot be continued from its files"
            )
            raise RuntimeError(
                f"state_dir {self._folder!r} was in use by a process that was killed, and its journal says "
                f"'{self.leftover}': {what}. Go on from a checkpoint, with opt.load(path, params), or delete the "
                "folder and make a new optimizer"
            )

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Say that parameters are written inside, which ends what was left behind unless an exception is raised."""
        self.check_process()
        _write(self._stream, self._line, f"load{_BEGUN}")
        os.fsync(self._stream.fileno())
        try:
            yield
            self.leftover, self._finished = "", _NO_STEP
        finally:
            _write(self._stream, self._line, self.leftover or self._finished)
            if self.leftover:
                # It must stay in the file.
                self._line[0] = ""

    def begin(self) -> None:
        """Say that the step is about to be written; raise `RuntimeError` as `check` does."""
        self.check()
        # An interruption may follow the writing at once, and `end` must then undo it.
        self._is_begun = True
        _write(self._stream, self._line, f"step {self.step}{_BEGUN}")
        if not self._finished:
            os.fsync(self._stream.fileno())
            self._finished = _NO_STEP

    def end(self, is_done: bool) -> None:
        """Say that the step has been written or, if it was given up, that nothing was; without `begin`, do nothing."""
        if self._is_begun:
            if is_done:
                self._finished = f"step {self.step} finished"
            _write(self._stream, self._line, self._finished or _NO_STEP)
            self._is_begun = False


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _leave_to_parent() -> None:
    # If the parent is killed, its lock lasts as long as any process has the file open.
    for journal in _journals:
        journal._stream.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _write(stream: BinaryIO, last: list[str], line: str) -> None:
    # An interruption may come before the file is written; `_close` goes by what it should say.
    last[0] = line
    # One call of the operating system replaces the line.
    stream.seek(0)
    stream.write(f"{line:<{_LENGTH - 1}}\n".encode())


def _close(stream: BinaryIO, last: list[str], owner: int) -> None:
    """Close a journal; if its last step was finished, there is nothing that a later process must know."""
    # A forked process must leave the file and the lock to its parent.
    if os.getpid() == owner:
        if last[0] and not last[0].endswith(_BEGUN):
            _write(stream, last, _CLOSED)
        if sys.platform != "win32":
            # A process that was forked just now may still have the file open, which would keep the lock.
            fcntl.flock(stream, fcntl.LOCK_UN)
    stream.close()


def _lock(stream: BinaryIO) -> None:
    """Lock a file until it is closed or the process ends, or raise `OSError` if it is locked."""
    if sys.platform == "win32":
        # No other process on Windows can read what is locked, so this is a byte behind the end.
        stream.seek(_LENGTH)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        stream.seek(0)
    else:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _delete(path: Path, owner: int) -> None:
    """Delete a file whose arrays are gone; a forked process leaves that to its parent."""
    if os.getpid() == owner:
        # Windows does not delete a file that is still mapped; the next optimizer that uses the folder does.
        with suppress(OSError):
            path.unlink()


def _reserve(stream: BinaryIO, size: int) -> None:
    """Give a file room on the disk; without it, a process that writes to the mapped memory is killed."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
            return
        except OSError as error:
            # Some file systems cannot do it.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    stream.writelines(_ZEROS[: size - start] for start in range(0, size, len(_ZEROS)))
    stream.flush()
