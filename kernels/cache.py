"""The cache of compiled code on disk: one file for each function and signature, checked before it is used.

The name of a file stands for all that the code was compiled from and for, and the file begins with a checksum. Numba's
own cache lists the files of a function in an index and loads what it finds without a check: a damaged file stops the
program or runs, and two processes that add a signature each may leave an index that exchanges them.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numba
import numpy as np
import platformdirs
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from fastoptim.kernels import SOURCES, SOURCES_AT_IMPORT, state_of_sources

__all__ = ["SUFFIX", "CodeCache", "cache_folder"]

SUFFIX = ".nbc"
_CHECKSUM_SIZE = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """Return the folder of compiled code: that in ``NUMBA_CACHE_DIR``, or the user's cache folder for this package.

    Raises
    ------
    OSError
        If the user has no home folder, so that the path would be relative to the current folder.
    """
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(named)
    folder = platformdirs.user_cache_path("fastoptim") / "kernels"
    if not folder.is_absolute():
        raise OSError(f"{folder} is not an absolute path: set HOME or NUMBA_CACHE_DIR")
    return folder


@cache
def _digest_of_sources() -> str:
    # A function is compiled together with what it calls, so an edit in one file makes all cached code suspect.
    digest = hashlib.sha256()
    for name, *_ in SOURCES_AT_IMPORT:
        digest.update((SOURCES / name).read_bytes())
    return digest.hexdigest()[:16]


def _checksum(path: Path, data: bytes) -> bytes:
    # The name is included, because the file of another function is as useless as a damaged one.
    return hashlib.sha256(path.name.encode() + data).digest()


class CodeCache:
    """The files of one function, with the interface that Numba's dispatchers expect of a cache.

    Nothing is saved if ``is_current`` is false after the compilation: what the function refers to has changed then.
    """

    def __init__(self, function: Any, is_current: Callable[[], bool]) -> None:
        self._function = function
        self._is_current = is_current

    @property
    def cache_path(self) -> str:
        """The folder of the files."""
        return str(cache_folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled for a signature, or None if there is no file of it, or none that is whole."""
        # Numba would first refresh its compiler: import some hundred modules and register what they define, which takes
        # three times as long as the rest of a first update. Loaded code needs only the addresses of Numba's run time.
        rtsys.initialize(target_context)
        # Any file that cannot be used is compiled anew.
        with suppress(Exception):
            path = self._path(sig, target_context.codegen())
            content = path.read_bytes()
            data = content[_CHECKSUM_SIZE:]
            if content[:_CHECKSUM_SIZE] == _checksum(path, data):
                return CompileResult._rebuild(target_context, *pickle.loads(data))
        return None

    def save_overload(self, sig: Any, result: Any) -> None:
        """Save what was compiled for a signature, if the code can be saved and the folder can be written."""
        if result.lifted or result.library.has_dynamic_globals:
            return
        with suppress(Exception):
            if not self._is_current():
                return
            path = self._path(sig, result.codegen)
            content = dumps(result._reduce())
            temporary = path.with_name(f"{uuid4().hex}.tmp")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(_checksum(path, content) + content)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def _path(self, sig: Any, codegen: Any) -> Path:
        code = self._function.__code__
        versions = sys.version, np.__version__, numba.__version__, numba.config.USING_SVML, _digest_of_sources()
        # An archive has no sources. After an upgrade they are not those of the modules that were imported.
        if not SOURCES_AT_IMPORT or state_of_sources() != SOURCES_AT_IMPORT:
            raise OSError("there are no sources that say what was compiled")
        key = repr((versions, sig, codegen.magic_tuple(), code.co_code))
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        module = Path(code.co_filename).stem
        return cache_folder() / f"{module}.{self._function.__qualname__}-{digest}{SUFFIX}"
