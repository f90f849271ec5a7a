"""Suggestions for misspelt names."""

from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'lr'?"`` with the known name nearest to `name`, or an empty string if none is near.

    Case is ignored, and initials count as a match: ``learning_rate`` matches ``lr``.
    """
    # Imported here because only errors need it, and it takes as long as the rest of `import fastoptim`.
    from difflib import get_close_matches

    spellings = {word.lower(): word for word in known}
    initials = "".join(word[:1] for word in name.lower().split("_"))
    nearest = [initials] if initials in spellings else get_close_matches(name.lower(), spellings, n=1)
    return f"; did you mean {spellings[nearest[0]]!r}?" if nearest else ""
