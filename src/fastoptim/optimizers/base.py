"""What the built-in optimizers share."""

__all__ = ["NOTES_EPS"]

NOTES_EPS = 1e-7
"""Keeps the division by a root away from zero; the notes fix its value."""
