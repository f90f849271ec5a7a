"""The scalars of a step: those of the rule and of the transforms that are on, for each group, from schedules."""

from __future__ import annotations

import struct
from math import nan
from numbers import Real
from typing import Any

from fastoptim.arguments import check_number
from fastoptim.hyperparameters import Hyperparameter
from fastoptim.transforms import COUNTERS, Keyword
from fastoptim.update.plan import Plan

__all__ = ["checked", "group_view", "set_scalars"]


def checked(optimizer: Any, name: str, value: Any) -> float:
    """Return a value as a number that the hyperparameter may have, or raise an error."""
    declared = type(optimizer)._declared.get(name)
    check = declared.check if isinstance(declared, Keyword) else declared
    if isinstance(check, Hyperparameter):
        return check.checked(value)
    check_number(name, value)
    return float(value)


def _running(name: str, group: int) -> str:
    """Return the attribute that keeps a running number of a group."""
    return f"{name}_{group}" if group else name


def set_scalars(optimizer: Any, plan: Plan, steps: int) -> dict[str, Any]:
    """Enter the scalars of a step into its plan, for all groups, with those of transforms and those from sums.

    Parameters
    ----------
    optimizer : Optimizer
        Its `iter` counts the step already.
    plan : Plan
        A plan that is bound to the arrays of the step.
    steps : int
        Number of updates before the step, at which schedules are evaluated.

    Returns
    -------
    dict
        The attributes to set once the step is done.

    Raises
    ------
    TypeError
        If `Optimizer.scalars` does not return the numbers that the rule takes.
    ValueError
        If a schedule returns a number outside the interval of its hyperparameter.
    """
    changes: dict[str, Any] = {}
    fields, composition = vars(optimizer), plan.composition
    if plan.dice is not None:
        plan.dice.enter_keys(optimizer.state_seed, optimizer.iter)
    if plan.journal is not None:
        plan.journal.step = optimizer.iter
    only_adds = False
    if "accumulate" in fields:
        # A call that only adds to the mean gradient has another composition than one that makes a step.
        only_adds = optimizer.accumulated + 1 < optimizer.accumulate
        changes.update(_plan=None, _composition=None, accumulated=optimizer.accumulated + 1 if only_adds else 0)
    if only_adds:
        changes["iter"] = steps
    else:
        if "ema" in fields:
            changes["averages"] = optimizer.averages + 1
        for name, schedule in optimizer._schedules.items():
            # A schedule that observes losses may have changed since the last step.
            fields[name] = checked(optimizer, name, schedule(steps))
            changes[name] = checked(optimizer, name, schedule(steps + 1))
    views = _views_of_groups(optimizer, steps)
    numbers: list[Any] = []
    has_further = bool(composition.scalars or composition.n_ratios)
    for view in views:
        values = (nan,) * composition.n_rule_scalars if only_adds else view.scalars()
        try:
            if len(values) != composition.n_rule_scalars:
                raise composition.error(values)
            numbers += values
        except TypeError:
            raise composition.error(values) from None
        if has_further:
            numbers += composition.further_scalars(view)
    try:
        plan.set_scalars(*numbers)
    except struct.error:
        wrong = next((k for k, number in enumerate(numbers) if not isinstance(number, Real)), 0)
        first = wrong - wrong % (len(numbers) // len(views))
        raise composition.error(tuple(numbers[first : first + composition.n_rule_scalars])) from None
    plan.views = views if plan.takes_arrays else []
    if only_adds:
        return changes
    if composition.sums:
        plan.measure(views[0])
    if optimizer.running:
        for k, view in enumerate(views):
            changes.update((_running(name, k), vars(view)[name]) for name in optimizer.running)
    for name in optimizer.shared:
        changes[name] = vars(views[0])[name]
    return changes


def _views_of_groups(optimizer: Any, steps: int) -> list[Any]:
    """Return a view of the optimizer for each group; the first is that of parameters without a group."""
    fields = vars(optimizer)
    views: list[Any] | None = fields["_views"]
    if views is not None:
        for view in views:
            view.__dict__["iter"] = steps + 1
        for counter in COUNTERS.values():
            if counter in fields:
                for view in views:
                    view.__dict__[counter] = fields[counter]
        return views
    rules, scalars_write = optimizer._groups.rules, optimizer.running or optimizer.shared
    if not (rules or scalars_write):
        return [optimizer]
    views = [group_view(optimizer, k, steps) for k in range(1 + len(rules))]
    has_schedules = optimizer._schedules or any(callable(value) for _, own in rules for value in own.values())
    if not (scalars_write or has_schedules):
        # Setting an attribute drops them, and so does new state.
        fields["_views"] = views
    return views


def group_view(optimizer: Any, k: int, steps: int) -> Any:
    """Return a copy of the optimizer with the hyperparameters of group ``k``; parameters without a group have 0."""
    view = object.__new__(type(optimizer))
    fields = vars(view)
    fields.update(vars(optimizer), _plan=None, _plans=[])
    fields.update((name, vars(optimizer).get(_running(name, k), value)) for name, value in optimizer.running.items())
    if k:
        for name, value in optimizer._groups.rules[k - 1][1].items():
            fields[name] = checked(optimizer, name, value(steps)) if callable(value) else value
    return view
