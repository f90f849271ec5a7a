"""The optimizers of torch, DeepSpeed and optax with the notes' hyperparameters. All imports are lazy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import numba
import numpy as np

from .cases import Update
from .timing import Arrays, Contestant

__all__ = [
    "COMPILED",
    "OPTAX_RULES",
    "TORCH_RULES",
    "deepspeed_contestant",
    "of_optax",
    "of_tensors",
    "optax_contestant",
    "optax_optimizer",
    "torch_compiled",
    "torch_contestant",
    "torch_optimizer",
    "torch_threads",
]


# torch

COMPILED = "torch.compile"


def torch_compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled by `torch.compile` for its first arguments; it forgets all that were compiled before.

    torch keeps few compilations of one code, and beyond them would interpret it without a word.
    """
    import torch

    torch._dynamo.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=False)


@contextmanager
def torch_threads(n: int | None):
    """Limit torch to ``n`` threads. With None it has as many as Numba, so that all libraries have equal means."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n or numba.config.NUMBA_NUM_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


TORCH_RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.01}),
    "Momentum": ("SGD", {"lr": 0.01, "momentum": 0.9}),
    "Nesterov": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "AdaGrad": ("Adagrad", {"lr": 0.01, "eps": 1e-7}),
    "RMSprop": ("RMSprop", {"lr": 0.01, "alpha": 0.99, "eps": 1e-7}),
    "Adam": ("Adam", {"lr": 0.001, "eps": 1e-7}),
}
"""For each rule that torch has, its class and the notes' hyperparameters."""


def torch_optimizer(rule: str, params: list[Any], **how: Any) -> Any:
    """Return torch's optimizer with the notes' hyperparameters."""
    from torch import optim

    name, hyperparameters = TORCH_RULES[rule]
    return getattr(optim, name)(params, **hyperparameters, **how)


def of_tensors(make: Callable[[list[Any]], Callable[[], Any]], case: Any, params: Arrays, grads: Arrays) -> Contestant:
    """Set up torch for a case; ``make`` takes its parameters and returns the step."""
    import torch

    tensors = {key: torch.nn.Parameter(torch.tensor(array)) for key, array in params.items()}
    for key, tensor in tensors.items():
        # Keeping the same gradient tensors costs torch nothing: it looks them up at each step anyway.
        tensor.grad = torch.tensor(grads[key])
    return Contestant(
        make(list(tensors.values())),
        lambda: {key: tensor.detach().numpy() for key, tensor in tensors.items()},
        limit=partial(torch_threads, case.threads),
        vanish=lambda: [tensor.grad.zero_() for tensor in tensors.values()],
    )


def torch_contestant(case: Update, params: Arrays, grads: Arrays, **how: Any) -> Contestant:
    return of_tensors(lambda tensors: torch_optimizer(case.rule, tensors, **how).step, case, params, grads)


def deepspeed_contestant(case: Update, params: Arrays, grads: Arrays) -> Contestant:
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    make = partial(DeepSpeedCPUAdam, lr=0.001, eps=1e-7, adamw_mode=False)
    return of_tensors(lambda tensors: make(tensors).step, case, params, grads)


# optax


OPTAX_RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("sgd", {"learning_rate": 0.01}),
    "Momentum": ("sgd", {"learning_rate": 0.01, "momentum": 0.9}),
    "Nesterov": ("sgd", {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}),
    # optax adds its epsilon inside the root; 1e-14 there is 1e-7 outside.
    "AdaGrad": ("adagrad", {"learning_rate": 0.01, "initial_accumulator_value": 0, "eps": 1e-14}),
    "RMSprop": ("rmsprop", {"learning_rate": 0.01, "decay": 0.99, "eps": 1e-7, "eps_in_sqrt": False}),
    "Adam": ("adam", {"learning_rate": 0.001, "eps": 1e-7}),
}
"""For each rule that optax has, its function and the notes' hyperparameters."""


def optax_optimizer(rule: str) -> Any:
    """Return optax's optimizer with the notes' hyperparameters."""
    import optax

    name, hyperparameters = OPTAX_RULES[rule]
    return getattr(optax, name)(**hyperparameters)


def optax_contestant(case: Update, params: Arrays, grads: Arrays) -> Contestant:
    return of_optax(optax_optimizer(case.rule), params, grads)


def of_optax(optimizer: Any, params: Arrays, grads: Arrays, decay: float | None = None) -> Contestant:
    """Set up an optimizer of optax, compiled with the addition of its updates and with averages of a decay."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    p = {key: jax.numpy.array(array) for key, array in params.items()}
    g = {key: jax.numpy.array(array) for key, array in grads.items()}
    state = optimizer.init(p)

    averages = p if decay is None else jax.tree.map(lambda a: a.copy(), p)

    @partial(jax.jit, donate_argnums=(0, 1) if decay is None else (0, 1, 2))
    def update(p, state, averages, g):
        change, state = optimizer.update(g, state, p)
        p = optax.apply_updates(p, change)
        return p, state, p if decay is None else optax.incremental_update(p, averages, 1 - decay)

    def step() -> None:
        nonlocal p, state, averages
        p, state, averages = update(p, state, averages, g)

    # A training loop does not wait for each update, so this one waits only at the end of a block.
    return Contestant(step, lambda: {key: np.asarray(a) for key, a in p.items()}, lambda: jax.block_until_ready(p))
