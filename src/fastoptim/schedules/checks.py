"""What schedules check when they are made."""

__all__ = ["check", "check_steps"]


def check(condition: bool, message: str) -> None:
    """Raise `ValueError` with a message unless a condition holds."""
    if not condition:
        raise ValueError(message)


def check_steps(**counts: int) -> None:
    """Raise `ValueError` for a number of updates that is below 1."""
    for name, count in counts.items():
        check(count >= 1, f"{name} must be a number of updates >= 1, not {count!r}")
