"""Attributes and methods that a class of optimizers may override; `Optimizer` documents the attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

__all__ = ["Hooks"]


class Hooks:
    """Base class of `Optimizer`: what a class may override in addition to its rule."""

    before: ClassVar[tuple[Callable[..., Any], ...]] = ()
    after: ClassVar[tuple[Callable[..., Any], ...]] = ()
    measure: ClassVar[Callable[..., Any] | None] = None
    squares: ClassVar[tuple[bool, ...]] = ()
    n_ratios: ClassVar[int] = 0
    in_rule: ClassVar[tuple[str, ...]] = ()
    running: ClassVar[Mapping[str, float]] = {}
    shared: ClassVar[Mapping[str, float]] = {}

    def scalars(self) -> tuple[float, ...]:
        """Return the numbers that `rule` takes after the state in this step.

        They are computed once a step as Python floats, and rounded once to the dtype of the arrays. `iter` already
        counts this step: it is 1 in the first one.
        """
        raise NotImplementedError(f"{type(self).__name__} must define scalars(), the numbers that its rule takes")

    def initial_state(self) -> Mapping[str, float | str]:
        """Return the initial numbers of slots, or ``"p"`` for a copy of the parameters; other slots begin with 0."""
        return {}

    def ratios(self, sums: NDArray[Any], scalars: NDArray[Any], sizes: NDArray[Any]) -> Any:
        """Return the last scalars of `rule` for each array, from the sums of what `measure` returns.

        It is called once a step, after `scalars`, and may change the numbers in `shared`.

        Parameters
        ----------
        sums : ndarray of shape (arrays, sums)
            For each array the sums over its elements.
        scalars : ndarray of shape (arrays, scalars)
            For each array the scalars of `rule`; the last ``n_ratios``, which are to be returned, are NaN.
        sizes : ndarray of shape (arrays,)
            Number of elements of each array.

        Returns
        -------
        ndarray of shape (arrays, n_ratios)
            The last scalars of each array.
        """
        raise NotImplementedError(f"{type(self).__name__} has a measure, so it must define ratios()")

    def array_slots(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]] | None:  # noqa: ARG002
        """Choose whether `array_rule` updates arrays of a shape.

        Parameters
        ----------
        shape : tuple of int
            That of the parameter.

        Returns
        -------
        dict or None
            None if `rule` updates each element. If `array_rule` updates the whole array, the shapes of the slots that
            have another shape than the array; ``(0,)`` for slots that it does not need.
        """
        return None

    def array_rule(self: Any, *values: Any) -> Any:
        """Return the new parameter and state of a whole array; a class may override this.

        Parameters
        ----------
        *values
            The parameter, its gradient after the transforms, the slots and the scalars, as `rule` takes them.
            Hyperparameters of the array's group are attributes of ``self``.

        Returns
        -------
        tuple of ndarray
            The new parameter and the new slots, of the same shapes.

        Notes
        -----
        Augmented assignments, as in ``m += g``, make a new array, rounded to the dtype of ``m``. The arguments must not
        be written to in other ways: the results are copied to them once all arrays have been computed.
        """
        return self.rule(*values)

    def _choose(self: Any) -> tuple[Callable[..., Any], tuple[str, ...]]:
        """Return the rule to run, and its slots."""
        return self.rule, self.slots

    @classmethod
    def _takes_arrays(cls) -> bool:
        return cls.array_slots is not Hooks.array_slots

    @classmethod
    def _is_extended(cls) -> bool:
        has_numbers = cls.running or cls.shared
        return bool(cls.before or cls.after or cls.measure or has_numbers or cls._takes_arrays())
