"""What schedules check when they are made."""

from typing import Any

from fastoptim.arguments import check_function, check_number, listed

__all__ = ["check", "check_numbers", "check_schedule", "check_steps", "numbers_of_updates"]


def check(condition: bool, message: str) -> None:
    """Raise `ValueError` with a message unless a condition holds."""
    if not condition:
        raise ValueError(message)


def check_numbers(**numbers: Any) -> None:
    """Raise `TypeError` for a value that is not a real number, and `ValueError` for NaN."""
    for name, number in numbers.items():
        check_number(name, number)
        check(number == number, f"{name} must be a number, not {number!r}")


def check_steps(least: int = 1, **counts: Any) -> None:
    """Raise `TypeError` for a value that is not a number of updates, and `ValueError` for one below the least."""
    for name, count in counts.items():
        expected = f"a number of updates >= {least}"
        check_number(name, count, expected)
        check(count >= least, f"{name} must be {expected}, not {count!r}")


def numbers_of_updates(name: str, counts: Any) -> tuple[Any, ...]:
    """Return a list of numbers as a tuple; raise `TypeError` for anything else."""
    numbers = listed(name, counts, "[1000, 2000]")
    for number in numbers:
        check_number(name, number, "numbers of updates")
    return numbers


def check_schedule(name: str, schedule: Any) -> None:
    """Raise `TypeError` for a value that is not a function of one argument."""
    expected = "a function of the number of updates, such as schedules.constant(0.1)"
    check_function(name, schedule, expected, 1)
