"""Suggestions for misspelt names."""

from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'lr'?"`` with the known name nearest to `name`, or an empty string if none is near.

    Case is ignored, and initials count as a match: ``learning_rate`` matches ``lr``. A plural matches all names that
    end in a number: ``betas`` matches ``beta1`` and ``beta2``.
    """
    # Imported here because only errors need it, and it takes as long as the rest of `import fastoptim`.
    from difflib import get_close_matches

    known = list(known)
    numbered = [word for word in known if word[-1:].isdigit() and name == f"{word.rstrip('0123456789')}s"]
    if numbered:
        return f"; did you mean {' and '.join(map(repr, numbered))}?"
    spellings = {word.lower(): word for word in known}
    initials = "".join(word[:1] for word in name.lower().split("_"))
    nearest = [initials] if initials in spellings else get_close_matches(name.lower(), spellings, n=1)
    return f"; did you mean {spellings[nearest[0]]!r}?" if nearest else ""
