"""An optimizer of torch that updates CPU tensors by an optimizer of this package."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.optim import optimizer as torch_optimizer

from fastoptim.arguments import true_or_false
from fastoptim.conversions import as_gradient, as_parameter
from fastoptim.optimizer import Optimizer as Rule
from fastoptim.param_groups import ParamGroups
from fastoptim.threads import num_threads
from fastoptim.torch.masters import Masters
from fastoptim.torch.states import exported, imported

__all__ = ["Optimizer"]


# To look up a name of torch's takes longer than what some of them do.
_address, _count_change = torch.Tensor.data_ptr, torch.autograd.graph.increment_version
_GLOBAL_HOOKS = torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks


class Optimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """A ``torch.optim.Optimizer`` whose steps are updates by an optimizer of this package, in the tensors' memory.

    Parameters
    ----------
    params : iterable
        Parameters, such as ``model.parameters()``; pairs of name and parameter, ``model.named_parameters()``; or dicts
        with ``"params"`` and the hyperparameters of a group. They are dense CPU tensors of a floating dtype.
    optimizer : fastoptim.Optimizer
        A new optimizer, such as ``fo.AdamW(lr=1e-3)``. Its hyperparameters are the defaults of the groups.
    masters : bool
        Whether parameters of bfloat16 have copies in float32, which are updated in their place and rounded to them, so
        that steps below 1/256 of a number count. The state is that of the copies: float32, or bfloat16 with
        ``state_dtype="bfloat16"``.

    Attributes
    ----------
    optimizer : fastoptim.Optimizer
        As given. Its state has the names of the parameters as keys, or their numbers.
    param_groups : list of dict
        As torch's: what schedulers or other code write into a group is used in the next step. ``betas`` stands for
        ``beta1`` and ``beta2``.

    Raises
    ------
    TypeError
        If a parameter is no dense CPU tensor of a floating dtype, or ``optimizer`` is not one of this package.
    ValueError
        If ``optimizer`` was used before or has groups, or two parameters have one name.

    Notes
    -----
    Parameters without a gradient are skipped and keep their number of steps, as in torch; from then on they are updated
    apart from the others, so ``clip_norm`` and ``on_nonfinite``, which need all gradients, are errors.

    `state_dict` has the form of torch's, and for `fastoptim.Adam` and `fastoptim.AdamW` its names, so that one can be
    exchanged for the other in the middle of a training. torch counts each step as a change of the parameters: a
    backward pass through a graph made before the step is an error.

    Other code may change parameters of bfloat16 between steps if torch counts the change, as it does for all but
    changes of ``p.data`` in place.

    Hooks and the profiler see steps as they see torch's. ``torch.set_num_threads(1)`` keeps steps on one core.

    Examples
    --------
    >>> import fastoptim as fo
    >>> import fastoptim.torch
    >>> import torch
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = fastoptim.torch.Optimizer(model.parameters(), fo.AdamW(lr=0.1))
    >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     model(torch.ones(5, 3)).square().mean().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> optimizer.param_groups[0]["lr"], optimizer.optimizer.iter
    (0.025, 2)
    """

    def __init__(self, params: Iterable[Any], optimizer: Rule, *, masters: bool = True) -> None:
        if isinstance(params, torch.nn.Module):
            raise TypeError(f"params must be parameters such as model.parameters(), not the {type(params).__name__}")
        # The constructor of torch adds the groups.
        self._groups, self._masters = ParamGroups(optimizer), Masters()
        self._has_masters = true_or_false("masters", masters)
        super().__init__(params, self._groups.defaults)

    @property
    def optimizer(self) -> Rule:
        """The optimizer that updates the parameters."""
        return self._groups.optimizer

    # Steps.

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes gradients and returns the loss.

        Returns
        -------
        The loss, or None without a closure.

        Raises
        ------
        TypeError
            If a gradient is sparse or on another device.
        ValueError
            If a hyperparameter of a group is not allowed.
        """
        hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        if hooks or _GLOBAL_HOOKS[0] or _GLOBAL_HOOKS[1] or torch.autograd._profiler_enabled():
            return _watched_step(self, closure)
        return self._step(closure)

    # torch would wrap each step, which takes it longer than ours to update a thousand elements.
    step.hooked = True  # type: ignore[attr-defined]

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if [*map(_address, self._tensors)] != self._addresses:
            self._find_arrays()
        if self._masters.arrays:
            self._masters.refresh()
        try:
            grads = {key: g.numpy() for key, p in self._items if (g := p.grad) is not None}
        except (RuntimeError, TypeError):
            # NumPy has no bfloat16. What is no dense CPU tensor is an error of the update, which names the parameter.
            grads = {key: as_gradient(p.grad) for key, p in self._items if p.grad is not None}
        self._groups.follow(self.param_groups)
        if torch.get_num_threads() > 1:
            self._groups.update(self._arrays, grads)
        else:
            with num_threads(1):
                self._groups.update(self._arrays, grads)
        _count_change(self._tensors)
        if self._masters.arrays:
            self._masters.store(grads)
            self._masters.note()
        return loss

    # Parameters.

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, which begin at step 0.

        Parameters
        ----------
        param_group : dict
            ``"params"`` and hyperparameters; what is missing has the number that the optimizer was made with. Other
            names, such as those of schedulers, mean nothing.

        Raises
        ------
        TypeError
            If a parameter is no dense tensor of a floating dtype on the CPU.
        ValueError
            If a keyword of the optimizer cannot differ between groups.
        """
        super().add_param_group(param_group)
        try:
            self._groups.check(self.param_groups[-1])
            self._adopt()
        except BaseException:
            self.param_groups.pop()
            raise

    def _adopt(self) -> None:
        """Find the keys and arrays of all parameters."""
        keys: list[list[Hashable]] = []
        for group in self.param_groups:
            first = sum(map(len, keys))
            names = group.get("param_names")
            keys.append(list(names) if names else [*range(first, first + len(group["params"]))])
            # torch lets schedulers write to tensors in place.
            scalars = {name: value.item() for name, value in group.items() if isinstance(value, torch.Tensor)}
            group.update(scalars)
        items = list(zip(chain(*keys), chain(*(group["params"] for group in self.param_groups)), strict=True))
        names = [key for key, _ in items]
        if twice := {name for name in names if names.count(name) > 1} if len({*names}) < len(names) else None:
            raise ValueError(f"two parameters have the name {min(map(str, twice))!r}; give them other names, or none")
        for key, p in items:
            if not (p.is_floating_point() and isinstance(as_parameter(p), np.ndarray)):
                raise TypeError(
                    f"parameter {key!r} is a {p.layout} tensor of {p.dtype} on the device {p.device}, expected a dense "
                    "one of a floating dtype on the CPU"
                )
        self._items, self._tensors = items, [p for _, p in items]
        self._find_arrays()
        self._groups.set_members(keys)

    def _find_arrays(self) -> None:
        """Make an array for each parameter, in its memory."""
        if self._has_masters:
            self._masters.adopt(self._items)
        self._arrays = {key: as_parameter(p) for key, p in self._items} | self._masters.arrays
        self._addresses = [*map(_address, self._tensors)]

    # Copies and states.

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "_groups": self._groups,
            "_masters": self._masters,
            "_has_masters": self._has_masters,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._adopt()

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the form of torch's, with what else the optimizer needs under ``"fastoptim"``.

        Returns
        -------
        dict
            ``"state"``: for the number of each parameter that was updated, ``"step"`` and the slots as tensors, in the
            memory of the optimizer; ``"param_groups"``; and ``"fastoptim"``, plain values.
        """
        self._groups.follow(self.param_groups)
        states, rest = exported(self._groups, self._masters.arrays)
        self.state.update((p, states[key]) for key, p in self._items if key in states)
        try:
            return {**super().state_dict(), "fastoptim": rest}
        finally:
            self.state.clear()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, or the state of torch's own Adam or AdamW.

        Parameters
        ----------
        state_dict : dict
            Its tensors are copied.

        Raises
        ------
        ValueError
            If groups, parameters, shapes or the kind of optimizer differ. Nothing is changed then.
        """
        found: list[Callable[[], None]] = []

        def take(_self: Any, given: dict[str, Any]) -> dict[str, Any]:
            ids = chain(*(group["params"] for group in given["param_groups"]))
            keys = dict(zip(ids, self._arrays, strict=False))
            states = {keys[k]: state for k, state in given["state"].items() if k in keys}
            found.append(imported(self._groups, self._arrays, self._masters, states, given))
            # torch would keep another copy of the state, rounded to the dtype of the parameters.
            return {**given, "state": {}}

        handle = self.register_load_state_dict_pre_hook(take)
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            handle.remove()
        found[0]()

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}optimizer: {self.optimizer!r}\n)"


_watched_step = torch.optim.Optimizer.profile_hook_step(Optimizer._step)
