"""Groups of parameters as in torch: other code may change their hyperparameters, and a step may lack gradients."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from fastoptim.arguments import check_object
from fastoptim.optimizer import Optimizer
from fastoptim.parameters import FlatDict, Layout
from fastoptim.transforms import COUNTERS, GROUPED, KEYWORDS, names_in_groups

__all__ = ["Counters", "Members", "ParamGroups"]

Counters = tuple[tuple[str, Any], ...]
"""What an optimizer counts, by the names of the attributes: `iter` and the numbers that follow from earlier steps."""

_BETAS = "beta1", "beta2"
"""The hyperparameters that a group has as one, ``betas``, which is the name that schedulers look for."""


class Members(frozenset[Hashable]):
    """The keys of a group, as a pattern of `Optimizer.groups`. A step may lack the gradients of all of them."""

    is_optional = True

    # Two groups without parameters are two patterns.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __call__(self, key: Hashable, _array: Any) -> bool:
        """Tell whether a key is in the group."""
        return key in self


class ParamGroups:
    """An optimizer that takes its hyperparameters from groups of parameters, which other code may change between steps.

    Parameters with a gradient in each step are updated together. If a gradient is missing, the parameter and its number
    of steps stay as they are, so the parameters that lag behind are updated on their own from then on.

    Parameters
    ----------
    optimizer : Optimizer
        One that has not made a step, without groups.

    Attributes
    ----------
    defaults : dict
        The hyperparameters that a group may have, with their numbers in the optimizer; ``betas`` is a pair.
    counters : dict or None
        What was counted for each key; None as long as that is the same for all.

    Raises
    ------
    TypeError
        If it is no optimizer of this package.
    ValueError
        If it has made a step, or has groups.
    """

    optimizer: Optimizer

    def __init__(self, optimizer: Any) -> None:
        check_object("optimizer", optimizer, Optimizer, "an optimizer such as fo.AdamW()")
        if optimizer.iter or optimizer._groups:
            which = "has made a step already" if optimizer.iter else "has groups or frozen parameters of its own"
            raise ValueError(f"the optimizer {which}: pass a new one, and give hyperparameters to the groups in params")
        self.optimizer = optimizer
        names = names_in_groups(optimizer)
        self._initial = {name: value for name in names if (value := getattr(optimizer, name, None)) is not None}
        self.defaults = dict(self._initial)
        if names.issuperset(_BETAS):
            self.defaults["betas"] = tuple(self.defaults.pop(name) for name in _BETAS)
            names = names.difference(_BETAS) | {"betas"}
        self._names = names
        self._members: list[Members] = []
        self._seen: list[dict[str, Any]] | None = None
        self.counters: dict[Hashable, Counters] | None = None

    # Hyperparameters.

    def set_members(self, keys: Sequence[Iterable[Hashable]]) -> None:
        """Say which keys each group has; keys that are added after the first step begin at step 0."""
        before = self.keys
        self._members, self._seen = [Members(own) for own in keys], None
        added = set(self.keys).difference(before)
        if before and added and self.optimizer.iter:
            counters = self.counters or dict.fromkeys(before, read_counters(self.optimizer))
            self.counters = {**counters, **dict.fromkeys(added, ())}

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise `ValueError` if a group turns on a keyword of the optimizer that cannot differ between groups."""
        for name in KEYWORDS:
            # Groups of torch's optimizers have ``maximize=False``.
            if name not in self._names and group.get(name) not in (None, False):
                raise ValueError(f"a group cannot have {name!r}, which is for all parameters: give it to the optimizer")

    def follow(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Set the hyperparameters of the optimizer to those of the groups, where they have changed.

        Raises
        ------
        TypeError, ValueError
            If a value is not allowed.
        """
        # Comparing all that a group has takes less time than looking up what may have changed.
        if groups == self._seen:
            return
        given = [self._given(group) for group in groups]
        if len(given) == 1:
            self._follow_one(given[0])
        else:
            self._follow_all(given)
        self._seen = [dict(group) for group in groups]

    def _given(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters of a group by their names here."""
        own = {name: value for name, value in group.items() if name in self._names and value is not None}
        if "betas" in own:
            try:
                own["beta1"], own["beta2"] = own.pop("betas")
            except (TypeError, ValueError):
                raise ValueError(f"betas must be a pair of numbers, not {group['betas']!r}") from None
        return own

    def _follow_one(self, given: Mapping[str, Any]) -> None:
        """Set attributes, so that an optimizer with one group compiles nothing but its own rule."""
        optimizer = self.optimizer
        for name, value in given.items():
            # A schedule of the optimizer stays until the group gets another number than it began with.
            is_kept = name in optimizer._schedules and value == self._initial.get(name)
            if not is_kept and value != getattr(optimizer, name):
                setattr(optimizer, name, value)

    def _follow_all(self, given: list[dict[str, Any]]) -> None:
        """Set hyperparameters of groups; what no group has changed remains an attribute, and costs nothing."""
        optimizer, own = self.optimizer, optimizer_groups(self.optimizer)
        if len(own) != len(given):
            self._follow_one({**dict.fromkeys(GROUPED.difference(self._initial)), **self._initial})
            own = [{} for _ in given]
        new = [
            {name: value for name, value in values.items() if name in before or value != self._initial.get(name)}
            for values, before in zip(given, own, strict=True)
        ]
        if [each.keys() for each in new] == [each.keys() for each in own] and optimizer._groups:
            optimizer._change_groups(new)
        else:
            optimizer.groups = dict(zip(self._members, new, strict=True))

    # Steps.

    @property
    def keys(self) -> list[Hashable]:
        """The keys of all groups."""
        return [key for own in self._members for key in own]

    def counted(self, key: Hashable) -> Counters:
        """Return what was counted for a parameter."""
        return read_counters(self.optimizer) if self.counters is None else self.counters[key]

    def restore(self, counters: Mapping[Hashable, Counters]) -> None:
        """Let each parameter continue from what was counted for it; those that are missing begin at step 0."""
        self._seen = None
        complete = {key: counters.get(key, ()) for key in self.keys}
        self.counters = complete if len({*complete.values()}) > 1 else None

    def update(self, params: Mapping[Hashable, Any], grads: Mapping[Hashable, Any]) -> None:
        """Update the parameters that have a gradient.

        Parameters
        ----------
        params : dict
            All parameters.
        grads : dict
            The gradients that there are.

        Raises
        ------
        ValueError
            If parameters that have made different numbers of steps would have to be updated together, because
            something is computed from all gradients. Nothing is changed then; nor after an error of
            `Optimizer.update`, unless some parameters lag behind.
        """
        if self.counters is None and len(grads) == len(params):
            self.optimizer.update(params, grads)
        elif grads:
            self._update_some(params, grads)

    def _update_some(self, params: Mapping[Hashable, Any], grads: Mapping[Hashable, Any]) -> None:
        optimizer, now = self.optimizer, read_counters(self.optimizer)
        counters = dict.fromkeys(params, now) if self.counters is None else self.counters
        alike: dict[Counters, list[Hashable]] = {}
        for key in grads:
            alike.setdefault(counters[key], []).append(key)
        if len(alike) > 1 or set(alike) != {now}:
            _check_separable(optimizer)
        self.counters = counters
        try:
            # Those with the most steps come last, so that the attributes are theirs.
            for each, keys in sorted(alike.items(), key=lambda item: dict(item[0]).get("iter", 0)):
                after = _update_alike(optimizer, each, {k: params[k] for k in keys}, {k: grads[k] for k in keys})
                counters.update(dict.fromkeys(keys, after))
        finally:
            most = max(counters.values(), key=lambda each: dict(each).get("iter", 0))
            if read_counters(optimizer) != most:
                write_counters(optimizer, most)


def optimizer_groups(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the hyperparameters of the groups of an optimizer."""
    return [own for _, own in optimizer._groups.rules]


def read_counters(optimizer: Optimizer) -> Counters:
    """Return what an optimizer has counted."""
    return tuple((name, value) for name, value in vars(optimizer).items() if is_counter(optimizer, name))


def is_counter(optimizer: Optimizer, name: str) -> bool:
    """Tell whether an attribute counts steps, or follows from earlier steps; groups have numbers such as product_1."""
    running = optimizer.running
    return name == "iter" or name in COUNTERS.values() or name in running or name.rpartition("_")[0] in running


def write_counters(optimizer: Optimizer, counters: Counters) -> None:
    """Let an optimizer continue from what was counted; what is missing begins anew."""
    fields, new = vars(optimizer), {"iter": 0, **optimizer.running, **dict(counters)}
    for name in [name for name in fields if is_counter(optimizer, name) and name not in new]:
        if name in COUNTERS.values():
            fields[name] = 0
        else:
            del fields[name]
    fields.update(new)
    # Assigned as an attribute, it evaluates schedules.
    optimizer.iter = new["iter"]


def _check_separable(optimizer: Optimizer) -> None:
    together = ["clip_norm"] if optimizer.clip_norm is not None else [*optimizer.shared]
    if optimizer.on_nonfinite != "ignore":
        together.append(f"on_nonfinite={optimizer.on_nonfinite!r}")
    if together:
        raise ValueError(
            f"{together[0]} needs all gradients at once, but some parameters lacked a gradient in some steps, so they "
            "are updated on their own; give each parameter a gradient in each step, such as zeros"
        )


def _update_alike(
    optimizer: Optimizer, counters: Counters, params: Mapping[Hashable, Any], grads: Mapping[Hashable, Any]
) -> Counters:
    """Update parameters that have made the same number of steps, and return what is counted for them then."""
    known: FlatDict | dict[Hashable, Any] = next(iter((optimizer._state or {}).values()), {})
    if known and not params.keys() <= known.keys():
        # The state has the keys of the first update, so new ones begin in an optimizer of their own.
        first = copy.copy(optimizer)
        first._keep(None, [])
        write_counters(first, ())
        first.update(params, grads)
        optimizer._keep(_joined(optimizer, first), [])
        return read_counters(first)
    if read_counters(optimizer) != counters:
        write_counters(optimizer, counters)
    optimizer.update(params, grads)
    return read_counters(optimizer)


def _joined(optimizer: Optimizer, other: Optimizer) -> dict[str, FlatDict]:
    """Return the state of two optimizers with other keys, where that of the first one lies."""
    joined = {}
    for slot, arrays in (optimizer._state or {}).items():
        items = {**arrays, **(other._state or {})[slot]}
        joined[slot] = optimizer._zeros(slot, Layout.of(items.items()))
        joined[slot].update(items)
    return joined
