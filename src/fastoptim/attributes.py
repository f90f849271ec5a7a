"""What an optimizer has beside its rule: transforms, groups and schedules, as attributes that are checked when set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from numpy.typing import NDArray

from fastoptim._suggest import did_you_mean
from fastoptim.arguments import whole_number
from fastoptim.concurrency import Guard, exclusive
from fastoptim.dtypes import RANDOM
from fastoptim.groups import Groups, Pattern, check_patterns
from fastoptim.hooks import Hooks
from fastoptim.hyperparameters import Choice, Hyperparameter, Switch, at_step, is_schedule
from fastoptim.parameters import table_of
from fastoptim.serialize import StrPath
from fastoptim.state_dicts import Checkpointed
from fastoptim.state_files import StateFiles, in_memory, moved
from fastoptim.tables import Table, size_of
from fastoptim.transforms import (
    COUNTERS,
    KEYWORDS,
    OPTIONS,
    PRECISION,
    Keyword,
    Transforms,
    arguments_of,
    names_in_groups,
)
from fastoptim.update.composition import Composition
from fastoptim.update.plan import Plan
from fastoptim.update.scalars import checked
from fastoptim.update.state import State, with_slot

__all__ = ["MAX_PLANS", "Attributes"]

MAX_PLANS = 4
"""Number of plans kept, for several dicts updated in turn; each takes a few kilobytes and keeps no arrays alive."""

_ON_NONFINITE = "ignore", "raise", "skip"


class Attributes(Hooks, Checkpointed):
    """Base class of `Optimizer`: the attributes that extend a rule."""

    accumulated: int
    averages: int
    skipped: int

    maximize: Any = False
    grad_scale: Any = None
    accumulate: Any = None
    centralize: Any = False
    clip_value: Any = None
    clip_norm: Any = None
    clip_array_norm: Any = None
    l2: Any = None
    weight_decay: Any = None
    cautious: Any = False
    ema: Any = None
    lookahead: Any = None
    state_dtype: Any = None
    state_seed: Any = 0

    _declared: ClassVar[Mapping[str, Hyperparameter | Choice | Keyword]] = KEYWORDS
    """What checks the attributes that may be set, by name."""
    _state: State | None
    _plan: Plan | None
    _plans: list[Plan]
    _groups: Groups
    _schedules: dict[str, Callable[[int], float]]
    _composition: Composition | None
    _views: list[Self] | None
    _extended: bool
    _files: StateFiles | None
    _shards: Any = None
    """What the parameters are parts of, while processes share the updates; see `fastoptim.mpi.shards`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: it for name, it in vars(cls).items() if isinstance(it, Hyperparameter | Choice)}
        for name in own:
            delattr(cls, name)
        inherited = {
            name: it for base in reversed(cls.__bases__) for name, it in getattr(base, "_declared", {}).items()
        }
        # A class may have an attribute or a property in place of an inherited hyperparameter.
        kept = {name: it for name, it in inherited.items() if getattr(cls, name, it) is getattr(Attributes, name, it)}
        cls._declared = kept | own

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:  # noqa: D102
        # Subclasses may forget to call __init__, and copies are made without it. Assigning a new dict keeps attribute
        # access fast after a hyperparameter has been written into it.
        self = super().__new__(cls)
        self.__dict__ = {
            "_guard": Guard(self),
            "_plan": None,
            "_plans": [],
            "_state": None,
            "_groups": Groups(),
            "_schedules": {},
            "_composition": None,
            "_variant": None,
            "_views": None,
            "_extended": cls._is_extended(),
            "_files": None,
            "on_nonfinite": "ignore",
            "iter": 0,
            "skipped": 0,
            **cls.running,
            **cls.shared,
        }
        return self

    def __init__(
        self,
        *,
        on_nonfinite: str = "ignore",
        groups: Mapping[Pattern, Mapping[str, Any]] | None = None,
        frozen: Sequence[Pattern] = (),
        state_dir: StrPath | None = None,
        **transforms: Unpack[Transforms],
    ) -> None:
        self.on_nonfinite = on_nonfinite
        for name, value in transforms.items():
            if name not in KEYWORDS:
                own = arguments_of(type(self))
                hint = did_you_mean(name, [*own, *sorted(OPTIONS)]) or f"; its own are {', '.join(own) or 'none'}"
                if hasattr(self, name):
                    hint = "; set the attribute, or write an __init__ that does"
                raise TypeError(f"{type(self).__name__} takes no argument {name!r}{hint}")
            setattr(self, name, value)
        if groups is not None:
            self.groups = groups
        if not isinstance(frozen, tuple) or frozen:
            self.frozen = frozen
        if state_dir is not None:
            self.state_dir = state_dir

    @property
    def on_nonfinite(self) -> str:
        """What to do about gradients that are NaN or infinite: ``"ignore"``, ``"raise"`` or ``"skip"``."""
        return str(vars(self)["on_nonfinite"])

    @on_nonfinite.setter
    @exclusive
    def on_nonfinite(self, choice: str) -> None:
        if not isinstance(choice, str) or choice not in _ON_NONFINITE:
            raise ValueError(f"on_nonfinite must be one of {', '.join(map(repr, _ON_NONFINITE))}, not {choice!r}")
        vars(self)["on_nonfinite"] = choice
        # A plan is made either with or without the check of gradients.
        self._recompose()

    @property
    def groups(self) -> Mapping[Pattern, Mapping[str, Any]]:
        """Hyperparameters by a pattern of keys, or a function of key and array; assign a dict to change them."""
        return MappingProxyType({pattern: MappingProxyType(own) for pattern, own in self._groups.rules})

    @groups.setter
    @exclusive
    def groups(self, groups: Mapping[Pattern, Mapping[str, Any]] | None) -> None:
        given: Any = groups
        if not isinstance(given, Mapping | None):
            raise TypeError(f"groups must be a dict such as {{'b*': {{'lr': 0.01}}}}, not {given!r}")
        check_patterns("groups", groups or ())
        rules = tuple((pattern, self._checked_group(pattern, own)) for pattern, own in (groups or {}).items())
        vars(self)["_groups"] = Groups(rules, self._groups.frozen)
        self._recompose()

    @property
    def frozen(self) -> tuple[Pattern, ...]:
        """Patterns of the parameters that are not updated; they need no gradients."""
        return self._groups.frozen

    @frozen.setter
    @exclusive
    def frozen(self, patterns: Sequence[Pattern]) -> None:
        if isinstance(patterns, str) or not isinstance(patterns, Sequence):
            such_as = (patterns,) if isinstance(patterns, str) else ("b*",)
            raise TypeError(f"frozen must be a tuple of patterns, such as {such_as}, not {patterns!r}")
        check_patterns("frozen", patterns)
        vars(self)["_groups"] = Groups(self._groups.rules, tuple(patterns))
        self._recompose()

    @property
    def state_dir(self) -> str | None:
        """The folder of the files in which the state lies; None if it lies in memory. Setting it moves the state."""
        return None if self._files is None else self._files.folder

    @state_dir.setter
    @exclusive
    def state_dir(self, folder: StrPath | None) -> None:
        files = None if folder is None else StateFiles(folder)
        if files is not None and self._state is not None:
            # A checkpoint would replace this state, so a folder that needs one is refused before anything is moved.
            files.journal.check()
        state = moved(self._state, in_memory if files is None else files.zeros)
        vars(self)["_files"] = files
        self._recompose()
        self._keep(state, [])

    @property
    def averaged(self) -> dict[Any, NDArray[Any]] | None:
        """The averages of the parameters, with ``ema``; None before the first update."""
        return (self._state or {}).get("averaged")

    def _keep(self, state: State | None, plans: list[Plan]) -> None:
        """Keep a state, and the plans that were made for it, the last one first."""
        vars(self).update(_state=state, _views=None, _plan=plans[0] if plans else None, _plans=plans[:MAX_PLANS])

    @exclusive
    def _set_state(self, name: str, value: Mapping[Any, NDArray[Any]] | None) -> None:
        if value is None:
            self._keep(None, [])
            vars(self).update((counter, 0) for counter in COUNTERS.values() if counter in vars(self))
            return
        state = with_slot(self._state, self.slots, name, value, self._zeros)
        if state is not self._state:
            self._keep(state, [])

    def _checked_group(self, pattern: Pattern, own: Any) -> dict[str, Any]:
        """Return the hyperparameters of a group as numbers and schedules, or raise an error."""
        if not isinstance(own, Mapping):
            raise TypeError(f"the group {pattern!r} must be a dict such as {{'lr': 0.01}}, not {own!r}")
        known, values = names_in_groups(self), dict[str, Any]()
        for name, value in own.items():
            if name not in known:
                has = f"; it may have {', '.join(sorted(known))}"
                hint = ", which is for all parameters" + has if name in OPTIONS else did_you_mean(name, known) or has
                raise ValueError(f"a group cannot have {name!r}{hint}")
            try:
                number = checked(self, name, at_step(name, value, self.iter))
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"in the group {pattern!r}, {error}") from error
            values[name] = value if callable(value) else number
        return values

    def _change_groups(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Give the groups other numbers for the names that they have; the plans stay."""
        new = [{name: checked(self, name, value) for name, value in own.items()} for own in groups]
        rules = tuple((pattern, own) for (pattern, _), own in zip(self._groups.rules, new, strict=True))
        vars(self).update(_groups=Groups(rules, self._groups.frozen), _views=None)

    def _is_on(self, name: str) -> bool:
        """Tell whether a hyperparameter is not 0, or is set by a schedule or a group."""
        in_groups = any(name in own for _, own in self._groups.rules)
        return bool(vars(self).get(name)) or name in self._schedules or in_groups

    def _recompose(self) -> None:
        """Drop all plans, because a transform was turned on or off or groups changed."""
        fields = vars(self)
        on = [name for name in KEYWORDS if name in fields and (name not in PRECISION or fields[name] == RANDOM)]
        fields.update(_composition=None, _views=None, _plan=None, _plans=[])
        for name, counter in COUNTERS.items():
            if name in on:
                fields.setdefault(counter, 0)
            else:
                fields.pop(counter, None)
        fields["_extended"] = bool(on or self._groups or self._schedules or self._files or self._is_extended())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._shown().items())})"

    def _repr_html_(self) -> str:
        rows = [
            (name, repr(value) + ", of a schedule" * (name in self._schedules)) for name, value in self._shown().items()
        ]
        state = self._state or {}
        n_bytes = sum(a.nbytes for arrays in state.values() for a in arrays.values())
        kept = f"state of {size_of(n_bytes)}" if state else "no state yet" if self.slots else "no state"
        settings = Table(("attribute", "value"), rows, 2, f"{type(self).__name__}, {kept}")._repr_html_()
        return settings + (table_of(state, "state")._repr_html_() if state else "")

    def _shown(self) -> dict[str, Any]:
        """Return the attributes that represent the optimizer, in the order of the constructor."""
        counted: dict[str, Any] = {"iter": self.iter}
        counted |= {name: vars(self)[name] for name in COUNTERS.values() if name in vars(self)}
        if self.on_nonfinite != "ignore":
            counted = {"on_nonfinite": self.on_nonfinite, **counted, "skipped": self.skipped}
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        own = public.keys() - {"on_nonfinite", "iter", "skipped", *KEYWORDS, *counted}
        shown = {name: value for name, value in public.items() if name in own}
        shown |= {name: public[name] for name in KEYWORDS if name in public}
        chosen = {name for name in shown if isinstance(self._declared.get(name), Choice | Switch)}
        shown = {name: value for name, value in shown.items() if value or name not in chosen}
        if public.get("like") == next(iter(getattr(type(self), "defaults", ())), None):
            shown.pop("like", None)
        others = {"groups": dict(self._groups.rules), "frozen": self.frozen, "state_dir": self.state_dir}
        return shown | {name: value for name, value in others.items() if value} | counted

    if not TYPE_CHECKING:  # With `__setattr__`, type checkers would accept any attribute.

        def __setattr__(self, name, value):
            cls = type(self)
            vars(self)["_views"] = None
            if (declared := cls._declared.get(name)) is not None:
                declared.__set__(self, value)
            elif name == "iter":
                vars(self)["iter"] = value = whole_number("iter", value, least=0)
                for other, schedule in self._schedules.items():
                    vars(self)[other] = checked(self, other, schedule(value))
            elif isinstance(getattr(cls, name, 0.0), float | int) and not name.startswith("_") and is_schedule(value):
                number = at_step(name, value, self.iter)
                vars(self).update({name: number, "_schedules": {**self._schedules, name: value}, "_extended": True})
            else:
                super().__setattr__(name, value)
                if name in self._schedules:
                    vars(self)["_schedules"] = {key: own for key, own in self._schedules.items() if key != name}

        def __delattr__(self, name):
            if name in type(self)._declared:
                raise AttributeError(f"{name} cannot be deleted; set it to another value")
            super().__delattr__(name)
