"""The base class of all optimizers: state, step count and `update`, for any rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

from fastoptim.attributes import MAX_PLANS, Attributes
from fastoptim.concurrency import Guard, acquire, guarded
from fastoptim.conversions import with_arrays
from fastoptim.transforms import EXTRA_SLOTS, centralized
from fastoptim.update.composition import compose_optimizer
from fastoptim.update.plan import Plan
from fastoptim.update.precision import precision_of
from fastoptim.update.scalars import set_scalars
from fastoptim.update.state import Slot
from fastoptim.update.validate import NonFiniteGradients, Parameters, validate

__all__ = ["Optimizer"]


class Optimizer(Attributes):
    """Base class of optimizers: a scalar rule, compiled into a kernel that updates all parameters.

    To write an optimizer, name its state in `slots`, return the numbers of a step from `scalars`, and write the formula
    for one element as `rule`; hyperparameters are plain attributes. The rule is compiled at the first update and cached
    on disk. It runs in place and in parallel, in float16, float32, float64 and mixtures of them.

    Parameters
    ----------
    on_nonfinite : {"ignore", "raise", "skip"}
        What to do about gradients that are NaN or infinite: use them, as the notes do; raise `FloatingPointError`; or
        skip the step and count it in `skipped`. Gradients are checked in one pass before anything is written. This is
        also an attribute that may be changed between updates, even if a subclass does not pass the argument on.
    groups : dict, optional
        Hyperparameters of some parameters, ``{"b*": {"lr": 0.1, "weight_decay": 0.0}}``: by a pattern of the key, or by
        a function of key and array. The first that matches decides. Of the transforms, a group may have ``grad_scale``,
        ``clip_value``, ``clip_array_norm``, ``l2`` and ``weight_decay``. A pattern that matches nothing is an error.
    frozen : sequence of patterns
        Parameters that are not updated. They need no gradients, and have no state.
    state_dtype : {None, "bfloat16", "bfloat16-stochastic"}
        How the state of the rule is stored: with the parameters' dtype, or in half of the memory as bfloat16, rounded
        to nearest or at random with a mean of zero. Arithmetic is float32. It is faster where parameters do not fit
        into the cache. Needs ml_dtypes, and parameters and gradients of float32 or bfloat16.
    state_seed : int
        Seed of the random numbers of ``"bfloat16-stochastic"``, which also depend on slot, element and `iter`.
    state_dir : path, optional
        A folder in whose files the state lies, such as one on a fast disk, for state that memory does not hold. A step
        goes through it in blocks. The files are memory, not a checkpoint: they are deleted with the optimizer.
    **transforms
        What surrounds the rule, in this order; each is off by default, and an attribute that may be set between
        updates. Another number compiles nothing.

        ``maximize=True``
            Climb: gradients change their sign.
        ``grad_scale=s``
            Multiply gradients by s, such as one over a loss scale.
        ``accumulate=k``
            Make a step of the mean gradient of k calls; `iter` counts steps.
        ``centralize=True``
            Subtract from gradients their means over all axes but the last (Yong et al. 2020).
        ``clip_value=c``
            Clip elements of gradients to [-c, c].
        ``clip_norm=c``
            Multiply gradients by ``min(1, c / (norm + 1e-6))``, with the norm of all of them, as PyTorch does.
        ``clip_array_norm=c``
            The same with the norm of each array.
        ``l2=w``
            Add ``w * p`` to the gradient.
        ``weight_decay=w``
            Multiply parameters by ``1 - lr * w`` before the step (Loshchilov and Hutter 2019).
        ``cautious=True``
            Step only where the step goes against the gradient, and farther there: times the number of all elements of
            an array over that of those that move (Liang et al. 2024).
        ``ema=d``
            Keep averages of the parameters, ``a = d * a + (1 - d) * p``, in `averaged`.
        ``lookahead=(k, alpha)``
            Every k steps move slow copies by alpha towards the parameters, which restart from them (Zhang et al. 2019).

    Attributes
    ----------
    slots : tuple of str
        Names of the state. Each is an attribute: None until the first update, then a dict of arrays with the keys and
        shapes of the parameters and the dtypes that the rule gives them in NumPy, initially zero. The arrays may be
        written to. Setting one of these attributes to None resets all state; setting it to a dict copies its arrays.
    before, after : tuple of functions
        Transforms of the class: functions of ``g``, or of ``p`` after the rule, and then of other values among ``p``,
        ``g`` and the slots, and of hyperparameters, found by the names of the arguments. They return the new ``g`` or
        ``p``, and the slots that they take.
    measure : function
        ``measure(p, g, *slots, *scalars)`` returns numbers, which are summed over each array, or their squares where
        ``squares`` is true; `ratios` computes the last ``n_ratios`` scalars of the rule from the sums.
    in_rule : tuple of str
        Transforms that the rule applies itself, so they are not composed with it; `scalars` reads their attributes.
    running : dict
        Initial values of the attributes that `scalars` changes; each group has its own, and failed steps keep them.
    shared : dict
        The same for the attributes that `ratios` changes, which all groups share.
    averaged : dict or None
        The averages of ``ema``.
    accumulated, averages : int
        Number of gradients in the mean of ``accumulate``, and of steps in the averages of ``ema``.
    iter : int
        Number of updates so far.
    skipped : int
        Number of updates that ``on_nonfinite="skip"`` has skipped.

    Any hyperparameter takes a number or a function of the number of updates done, which is 0 in the first step; see
    `fastoptim.schedules`. The attribute is the number of the next step.

    Notes
    -----
    A rule is a function of numbers. It may use arithmetic, NumPy's elementwise functions (``np.sqrt``, ``np.sign``,
    ``np.maximum``, ``np.where``, …) and global functions of the same kind; it cannot raise. Literals are weak, as in
    NumPy 2: ``(1 - beta) * m`` is float32 if ``beta`` and ``m`` are. So are global numbers and ``np.pi``. Values that
    change between steps must be in `scalars`, because global values are compiled in.

    Arrays for which `array_slots` returns shapes are updated as a whole, by NumPy code in `array_rule`.

    Arrays of longdouble, of swapped bytes, or that share memory with their own gradient or state are updated by a
    fallback: the rule runs as NumPy code. A rule that branches runs there element by element.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> class SignMomentum(fo.Optimizer):
    ...     slots = ("m",)
    ...     def __init__(self, lr=1e-3, beta=0.9):
    ...         super().__init__()
    ...         self.lr, self.beta = lr, beta
    ...     def scalars(self):
    ...         return self.lr, self.beta
    ...     @staticmethod
    ...     def rule(p, g, m, lr, beta):
    ...         m = beta * m + (1 - beta) * g
    ...         return p - lr * np.sign(m), m
    >>> params = {"w": np.ones(3)}
    >>> opt = SignMomentum(lr=0.5)
    >>> opt.update(params, {"w": np.array([1.0, 0.0, -1.0])})
    >>> params["w"]
    array([0.5, 1. , 1.5])
    """

    slots: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[Callable[..., Any]] = cast(Callable[..., Any], None)

    _guard: Guard

    def __init_subclass__(cls, **kwargs: Any) -> None:
        slots: Any = cls.slots
        if isinstance(slots, str):
            raise TypeError(f"{cls.__name__}.slots must be a tuple of names, such as ({slots!r},)")
        for name in ("before", "after"):
            if callable(function := getattr(cls, name)):
                raise TypeError(f"{cls.__name__}.{name} must be a tuple of functions: ({function.__name__},)")
        taken = [name for name in slots if hasattr(Optimizer(), name)]
        if taken:
            raise TypeError(f"{cls.__name__}.slots cannot have the name {taken[0]!r}, which every optimizer has")
        if isinstance(vars(cls).get("on_nonfinite"), str):
            raise TypeError(
                f"{cls.__name__} cannot have on_nonfinite as an attribute of the class: pass it to __init__"
            )
        for name in (*cls.slots, *cls.optional_slots):
            setattr(cls, name, Slot(name))
        super().__init_subclass__(**kwargs)

    @guarded
    def update(self, params: Parameters, grads: Parameters) -> None:
        """Update all parameters in place.

        Parameters
        ----------
        params : dict or list
            Arrays of a floating dtype, or CPU tensors of torch, of any shape and memory layout; they are updated in
            place. A Python float or NumPy scalar is replaced in the dict by a new one of the same type.
        grads : dict or list
            A gradient of the same shape for each key of ``params``, also an array of another library that is in memory,
            or `Rows`, which touch only some of its rows. Other keys are ignored.

        Raises
        ------
        IndexError
            If `Rows` have an index that is no row of the parameter.
        KeyError
            If a gradient is missing, or a parameter was added after the state was made.
        TypeError
            If a parameter is not of a floating dtype, a gradient is not real, or is `Rows` where all elements are
            needed, `scalars` does not return the numbers that `rule` takes, or `rule` cannot be compiled.
        ValueError
            If a shape differs, or a parameter is read-only.
        FloatingPointError
            If a gradient is NaN or infinite, and `on_nonfinite` is ``"raise"``.
        RuntimeError
            If it is called during an update of the same optimizer, or in a process that was forked during one; or if it
            waits for another thread inside an update that may be waiting for this one.

            After any of these errors, or one in `scalars`, parameters, state and `iter` are unchanged.

        Notes
        -----
        Each arithmetic operation, root and square rounds as in NumPy: the results of the optimizers in this package
        equal NumPy's bit for bit, except that Adam rounds its step size to the dtype of float32 parameters. Powers,
        exponentials and the like may differ in the last place. Numbers near or below the smallest normal number are
        flushed to zero.

        An interruption, such as `KeyboardInterrupt`, leaves everything as it was before the step or as it is after it;
        `iter` shows which. Only a second interruption within microseconds, while the first is handled, can leave a step
        half done, and only if the fallback updates some of the parameters.

        Threads that share an optimizer update it one after the other. The caller must not let two optimizers, or an
        update and other code, write to the same arrays at the same time.

        Nothing is copied if arrays are without gaps and in the same memory order as their gradients. Updates of dicts
        made by `flatten` are the fastest.
        """
        guard = self._guard
        try:
            del guard[0]
        except IndexError:
            guard = acquire(self, "update")
        try:
            plan, is_extended = self._plan, self._extended
            if is_extended and "centralize" in self.__dict__:
                grads = centralized(grads)
            # Keep the arrays alive until the plan has run: the kernels only have their addresses.
            try:
                if plan is None or plan.rule is not self.rule or (arrays := plan.bind(params, grads)) is None:
                    plan, arrays = self._find_plan(params, grads)  # noqa: RUF059
            except NonFiniteGradients:
                if self.on_nonfinite == "raise":
                    raise
                self.skipped += 1
                return
            # Writing to the dict avoids the slower __setattr__.
            fields, steps = self.__dict__, self.iter
            fields["iter"] = steps + 1
            changes: dict[str, Any] | None = None
            try:
                if is_extended:
                    changes = set_scalars(self, plan, steps)
                elif not plan.takes_scalars(values := self.scalars()):
                    plan.convert_scalars(values)
                plan.run()
                if plan is not self._plan:
                    if plan in (plans := self._plans):
                        # Dicts take turns.
                        plans.insert(0, plans.pop(plans.index(plan)))
                        fields["_plan"], fields["_views"] = plan, None
                    else:
                        kept = [plan] * plan.is_reusable + [other for other in plans if other.state is plan.state]
                        self._keep(plan.state, kept)
                if changes:
                    fields.update(changes)
            except BaseException:
                # Everything may have been written. Nothing is called here, because Python checks for signals at calls.
                if not plan.committed[0]:
                    fields["iter"] = steps
                    raise
                if plan is not self._plan:
                    fields["_state"], fields["_views"], fields["_plan"], fields["_plans"] = plan.state, None, None, []
                if changes:
                    fields.update(changes)
                raise
        finally:
            guard.append(None)

    def _find_plan(self, params: Any, grads: Any) -> tuple[Plan, Any]:
        """Return a plan that is bound to these arrays, a kept one if any fits, and the arrays to keep alive."""
        rule, last, composition = self.rule, self._plan, self._composition
        if composition is None or (last is not None and last.rule is not rule):
            composition = vars(self)["_composition"] = compose_optimizer(self)
        # Looking for the values of other libraries takes longer than binding arrays, and rebinding longer still.
        kept: list[Plan] = []
        for plan in self._plans:
            if plan.rule is rule and plan.composition is composition:
                if plan is not last and (arrays := plan.bind(params, grads)) is not None:
                    return plan, arrays
                kept.append(plan)
        given = params, grads
        params, grads = with_arrays(params, grads, is_update=True)
        if params is not given[0] or grads is not given[1]:
            for plan in kept:
                if (arrays := plan.bind(params, grads)) is not None:
                    return plan, arrays
        for plan in kept:
            # Dicts that take turns get a plan each.
            if (arrays := plan.rebind(params, grads, may_move=len(kept) == MAX_PLANS)) is not None:
                return plan, arrays
        parameters = validate(params, grads, self._groups.frozen_keys(params))
        self._groups.assign(parameters)
        for each in parameters:
            each.slot_shapes = self.array_slots(each.p.shape)
        initial = {**self.initial_state(), **({"slow": "p"} if "slow" in composition.slots else {})}
        plan = Plan(
            self.rule,
            composition,
            params,
            grads,
            parameters,
            self._state,
            initial,
            precision_of(self.state_dtype, composition.slots, EXTRA_SLOTS.values(), initial),
            checks_finite=self.on_nonfinite != "ignore",
            n_groups=1 + len(self._groups.rules),
            files=self._files,
            shards=self._shards,
        )
        return plan, parameters

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A pickle of the textbook's class has m, v or h as plain attributes. Old protocols do not call __new__.
        vars(self).update(vars(Optimizer.__new__(type(self))))
        vars(self).update((name, value) for name, value in state.items() if name not in self.slots)
        for name in self.slots:
            if name in state:
                self._set_state(name, state[name])
        self._recompose()
