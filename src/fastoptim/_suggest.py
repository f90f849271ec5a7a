"""What an error says about a name that does not exist."""

from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'lr'?"`` for the name nearest to one that does not exist, or an empty string.

    Case does not matter, and initials count as a match: ``learning_rate`` is near to ``lr``.
    """
    # Only errors need difflib, and importing it takes as long as the rest of `import fastoptim`.
    from difflib import get_close_matches

    spellings = {word.lower(): word for word in known}
    initials = "".join(word[:1] for word in name.lower().split("_"))
    nearest = [initials] if initials in spellings else get_close_matches(name.lower(), spellings, n=1)
    return f"; did you mean {spellings[nearest[0]]!r}?" if nearest else ""
