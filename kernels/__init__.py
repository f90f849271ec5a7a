"""Everything that Numba compiles, and nothing else: it knows memory and numbers, never dicts or classes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["SOURCES", "SOURCES_AT_IMPORT", "state_of_sources"]

SOURCES = Path(__file__).parent


def state_of_sources() -> list[tuple[str, int, int, int]]:
    """Return name, time, size and inode of each source: another list after any edit, and none if there are no files."""
    try:
        with os.scandir(SOURCES) as entries:
            states = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py")]
    except OSError:
        return []
    return sorted((name, state.st_mtime_ns, state.st_size, state.st_ino) for name, state in states)


# It is recorded here, before any module of this package is imported, so that an upgrade meanwhile is seen as well.
SOURCES_AT_IMPORT = state_of_sources()
