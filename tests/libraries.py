"""Which optimizer of ours is which of another library: one table, and how each library runs.

A case is what a user writes, here and there. Both take 200 steps in float64, along the same gradients, and the learning
rate is halved after 100. ``python tests/libraries.py torch adam`` prints the worst relative difference of each case of
torch that has "adam" in its text.
"""

import json
import os
import sys
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from fastoptim import optimizers, schedules

STEPS, HALVED = 200, 100
SHAPES = {"W": (6, 5), "b": (7,), "zero": (4, 3)}
BOUND = 2e-14


class Case(NamedTuple):
    """Both sides as text, because a library is imported only where its cases run."""

    ours: str
    theirs: str
    before: str = ""
    """What changes the gradients before each step."""
    average: str = ""
    """What averages the parameters after each step; then the averages are compared."""
    quadratic: bool = False
    """Whether gradients are those of a noisy quadratic with its minimum at 1, and all parameters start at 0.

    Prodigy needs a loss to estimate a distance, and a start whose difference from the parameters is exact.
    """
    bound: float = BOUND
    """The largest difference that is allowed, relative to the largest value that an element has had."""

    @property
    def calls(self):
        return [text for text in (self.before, self.theirs, self.average) if text]


class Schedule(NamedTuple):
    """Two schedules that begin with 1, as text, and the number of steps for which they agree."""

    ours: str
    theirs: str
    steps: int = 25
    bound: float = BOUND

    @property
    def calls(self):
        return [self.theirs]


# In these, `params` are the tensors, `lr` is a schedule of optax that begins with our learning rate.
CASES = {
    "torch": [
        Case('SGD(like="torch")', "SGD(params)"),
        Case('SGD(like="torch", maximize=True)', "SGD(params, maximize=True)"),
        Case('SGD(like="torch", l2=0.1)', "SGD(params, weight_decay=0.1)"),
        Case("SGD(0.1, clip_value=0.5)", "SGD(params, 0.1)", "nn.utils.clip_grad_value_(params, 0.5)"),
        Case("SGD(0.1, clip_norm=1.0)", "SGD(params, 0.1)", "nn.utils.clip_grad_norm_(params, 1.0)"),
        Case("SGD(0.1, clip_array_norm=1.0)", "SGD(params, 0.1)", "[nn.utils.clip_grad_norm_(p, 1.0) for p in params]"),
        Case('Momentum(like="torch")', "SGD(params, momentum=0.9)"),
        Case('Momentum(like="torch", dampening=0.5)', "SGD(params, momentum=0.9, dampening=0.5)"),
        Case('Nesterov(like="torch")', "SGD(params, momentum=0.9, nesterov=True)"),
        Case('AdaGrad(like="torch")', "Adagrad(params)"),
        Case(
            'AdaGrad(like="torch", lr_decay=0.1, initial_accumulator=0.1)',
            "Adagrad(params, lr_decay=0.1, initial_accumulator_value=0.1)",
        ),
        Case('RMSprop(like="torch")', "RMSprop(params)"),
        Case('RMSprop(like="torch", centered=True)', "RMSprop(params, centered=True)"),
        Case('RMSprop(like="torch", momentum=0.9)', "RMSprop(params, momentum=0.9)"),
        Case('RMSprop(like="torch", centered=True, momentum=0.9)', "RMSprop(params, centered=True, momentum=0.9)"),
        Case('Adam(like="torch")', "Adam(params)"),
        Case('Adam(like="torch", l2=0.1)', "Adam(params, weight_decay=0.1)"),
        Case("AdamW()", "AdamW(params)"),
        Case("AdamW(clip_norm=1.0)", "AdamW(params)", "nn.utils.clip_grad_norm_(params, 1.0)"),
        Case(
            "AdamW(ema=0.9)",
            "AdamW(params)",
            average="swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))",
        ),
        Case("AMSGrad()", "Adam(params, amsgrad=True)"),
        Case("AdaMax()", "Adamax(params)"),
        Case("NAdam()", "NAdam(params)"),
        Case("NAdam(weight_decay=0.1)", "NAdam(params, weight_decay=0.1, decoupled_weight_decay=True)"),
        Case("RAdam()", "RAdam(params)"),
        Case('AdaDelta(like="torch")', "Adadelta(params)"),
        Case("Rprop()", "Rprop(params)"),
        Case("Adafactor()", "Adafactor(params)"),
        Case("Adafactor(weight_decay=0.1)", "Adafactor(params, weight_decay=0.1)"),
    ],
    "optax": [
        Case('SGD(like="optax")', "sgd(lr)"),
        Case("SGD(grad_scale=0.5, l2=0.1)", "chain(scale(0.5), add_decayed_weights(0.1), sgd(lr))"),
        Case("SGD(clip_value=0.5)", "chain(clip(0.5), sgd(lr))"),
        Case('Momentum(like="optax")', "sgd(lr, 0.9)"),
        Case('Nesterov(like="optax")', "sgd(lr, 0.9, nesterov=True)"),
        Case('AdaGrad(like="optax")', "adagrad(lr)"),
        Case('RMSprop(like="optax")', "rmsprop(lr)"),
        Case('RMSprop(like="optax", centered=True)', "rmsprop(lr, centered=True)"),
        Case('RMSprop(like="optax", momentum=0.9)', "rmsprop(lr, momentum=0.9)"),
        Case('Adam(like="optax")', "adam(lr)"),
        Case('Adam(like="optax", accumulate=3)', "MultiSteps(adam(lr), 3, accumulator_dtype=float)"),
        Case('Adam(like="optax", lookahead=(5, 0.5))', "lookahead(adam(lr), 5, 0.5)"),
        Case('AdamW(like="optax")', "adamw(lr)"),
        Case('AMSGrad(like="optax")', "amsgrad(lr)"),
        Case('AdaMax(like="optax")', "adamax(lr)"),
        Case('AdaMax(like="optax", weight_decay=0.1)', "adamaxw(lr, weight_decay=0.1)"),
        Case('NAdam(like="optax")', "nadam(lr)"),
        Case('NAdam(like="optax", weight_decay=0.1)', "nadamw(lr, weight_decay=0.1)"),
        Case('RAdam(like="optax")', "radam(lr)"),
        Case('AdaBelief(like="optax")', "adabelief(lr)"),
        Case("Yogi()", "yogi(lr)"),
        Case('ADOPT(like="optax")', "adopt(lr)"),
        Case("AdEMAMix()", "ademamix(lr)"),
        Case('AdaDelta(like="optax")', "adadelta(lr)"),
        Case('LAMB(like="optax")', "lamb(lr)"),
        Case('LAMB(like="optax", weight_decay=0.1)', "lamb(lr, weight_decay=0.1)"),
        Case("Muon()", "muon(lr)", bound=1e-13),
        Case("SignSGD()", "sign_sgd(lr)"),
        Case("Signum()", "signum(lr)"),
        Case('LARS(like="optax")', "lars(lr)"),
        Case('LARS(like="optax", weight_decay=0.1)', "lars(lr, weight_decay=0.1)"),
        Case('Lion(like="optax")', "lion(lr)"),
        Case("ScheduleFreeSGD()", "schedule_free(sgd(lr), lr)"),
        Case("ScheduleFreeAdamW()", "schedule_free(rmsprop(lr, 0.999, eps_in_sqrt=False, bias_correction=True), lr)"),
        Case("Prodigy(bias_correction=True)", "prodigy(lr)", quadratic=True),
        Case("Prodigy(bias_correction=True, weight_decay=0.1)", "prodigy(lr, weight_decay=0.1)", quadratic=True),
    ],
    "keras": [
        Case('SGD(like="keras")', "SGD()"),
        Case('Momentum(like="keras")', "SGD(momentum=0.9)"),
        Case('Nesterov(like="keras")', "SGD(momentum=0.9, nesterov=True)"),
        Case('AdaGrad(like="keras")', "Adagrad()"),
        Case('RMSprop(like="keras")', "RMSprop()"),
        Case('RMSprop(like="keras", centered=True)', "RMSprop(centered=True)"),
        Case('RMSprop(like="keras", momentum=0.9)', "RMSprop(momentum=0.9)"),
        Case('Adam(like="keras")', "Adam()"),
        Case('AdamW(like="keras")', "AdamW()"),
        Case('AMSGrad(like="keras")', "Adam(amsgrad=True)"),
        Case('AdaMax(like="keras")', "Adamax()"),
        Case('NAdam(like="keras")', "Nadam()"),
        Case('AdaDelta(like="keras")', "Adadelta()"),
        Case('LAMB(like="keras")', "Lamb()"),
        Case('LAMB(like="keras", weight_decay=0.1)', "Lamb(weight_decay=0.1)"),
        Case('Lion(like="keras")', "Lion()"),
        Case("ScheduleFreeAdamW()", "ScheduleFreeAdamW()"),
    ],
    "timm": [
        Case('AdaBelief(like="timm")', "AdaBelief(params)"),
        Case('AdaBelief(like="timm", weight_decay=0.1)', "AdaBelief(params, weight_decay=0.1)"),
        Case('ADOPT(like="timm")', "Adopt(params)"),
        Case("Adan()", "Adan(params)"),
        Case("Adan(weight_decay=0.1)", "Adan(params, weight_decay=0.1)"),
        Case('LAMB(like="timm")', "Lamb(params, max_grad_norm=None)"),
        Case('LAMB(like="timm", weight_decay=None)', "Lamb(params, weight_decay=0.0, max_grad_norm=None)"),
        Case('LARS(like="timm")', "Lars(params)"),
        Case('LARS(like="timm", momentum=0.9, weight_decay=0.1)', "Lars(params, momentum=0.9, weight_decay=0.1)"),
        Case("Lion(1e-4)", "Lion(params)"),
        Case("Lion(1e-4, weight_decay=0.1)", "Lion(params, weight_decay=0.1)"),
        Case("AdamW(cautious=True)", "AdamWLegacy(params, caution=True)"),
        Case("Lion(1e-4, cautious=True)", "Lion(params, caution=True)"),
    ],
    "schedulefree": [
        Case("ScheduleFreeSGD()", "SGDScheduleFree(params)"),
        Case(
            "ScheduleFreeSGD(weight_decay=0.1, warmup=30, rho=1.0)",
            "SGDScheduleFree(params, weight_decay=0.1, warmup_steps=30, r=1.0)",
        ),
        Case("ScheduleFreeAdamW()", "AdamWScheduleFree(params)"),
        Case(
            "ScheduleFreeAdamW(weight_decay=0.1, warmup=30, rho=1.0)",
            "AdamWScheduleFree(params, weight_decay=0.1, warmup_steps=30, r=1.0)",
        ),
    ],
    "prodigyopt": [
        Case("Prodigy()", "Prodigy(params)", quadratic=True),
        Case("Prodigy(weight_decay=0.1)", "Prodigy(params, weight_decay=0.1)", quadratic=True),
        Case("Prodigy(bias_correction=True)", "Prodigy(params, use_bias_correction=True)", quadratic=True),
        Case("Prodigy(safeguard_warmup=True)", "Prodigy(params, safeguard_warmup=True)", quadratic=True),
    ],
}


# `CosineAnnealingLR` rises again when it has come to its end.
SCHEDULES = {
    "torch": [
        Schedule("step(1.0, 3, 0.5)", "StepLR(optimizer, 3, 0.5)"),
        Schedule("multistep(1.0, [2, 2, 7], 0.5)", "MultiStepLR(optimizer, [2, 2, 7], 0.5)"),
        Schedule("exponential(1.0, 0.9)", "ExponentialLR(optimizer, 0.9)"),
        Schedule("polynomial(1.0, 5, power=2)", "PolynomialLR(optimizer, 5, 2)"),
        Schedule("linear(0.1, 1.0, 5)", "LinearLR(optimizer, 0.1, 1.0, 5)"),
        Schedule("cosine(1.0, 10, 0.1)", "CosineAnnealingLR(optimizer, 10, 0.1)", steps=11),
        Schedule("cosine_restarts(1.0, 3, 2, 0.1)", "CosineAnnealingWarmRestarts(optimizer, 3, 2, 0.1)"),
        Schedule("cyclic(0.1, 1.0, 4, 2)", "CyclicLR(optimizer, 0.1, 1.0, 4, 2, cycle_momentum=False)"),
        Schedule("one_cycle(1.0, 25)", "OneCycleLR(optimizer, 1.0, 25, cycle_momentum=False)"),
        Schedule(
            "join([linear(0.1, 1.0, 5), exponential(1.0, 0.5)], [5])",
            "SequentialLR(optimizer, [LinearLR(optimizer, 0.1, 1.0, 5), ExponentialLR(optimizer, 0.5)], [5])",
        ),
        Schedule(
            "ReduceOnPlateau(1.0, patience=2, cooldown=1)", "ReduceLROnPlateau(optimizer, patience=2, cooldown=1)"
        ),
    ],
    "optax": [
        Schedule("constant(1.0)", "constant_schedule(1.0)"),
        Schedule("step(1.0, 3, 0.5)", "exponential_decay(1.0, 3, 0.5, staircase=True)"),
        Schedule("multistep(1.0, [2, 7], 0.5)", "piecewise_constant_schedule(1.0, {2: 0.5, 7: 0.5})"),
        Schedule("exponential(1.0, 0.9)", "exponential_decay(1.0, 1, 0.9)"),
        Schedule("polynomial(1.0, 5, 0.1, power=2)", "polynomial_schedule(1.0, 0.1, 2, 5)"),
        Schedule("linear(0.1, 1.0, 5)", "linear_schedule(0.1, 1.0, 5)"),
        Schedule("cosine(1.0, 10, 0.1)", "cosine_decay_schedule(1.0, 10, 0.1)"),
        Schedule("join([linear(0.0, 1.0, 4), cosine(1.0, 6)], [4])", "warmup_cosine_decay_schedule(0.0, 1.0, 4, 10)"),
    ],
}


def parameters(case):
    rng = np.random.default_rng(0)
    return {
        key: np.zeros(shape) if key == "zero" or case.quadratic else rng.standard_normal(shape)
        for key, shape in SHAPES.items()
    }


def gradients(least):
    """Gradients of three scales, element by element, a tenth of them 0; near epsilon they show where it is added."""
    rng = np.random.default_rng(1)
    grads = {}
    for key, shape in SHAPES.items():
        scale = np.maximum(rng.choice([1, 1e-2, 1e-7], shape), least)
        grads[key] = np.where(rng.random((STEPS, *shape)) < 0.1, 0, scale * rng.standard_normal((STEPS, *shape)))
    return grads


def gradient(case, g, p):
    return g + 0.1 * (p - 1) if case.quadratic else g


def vector(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def run_ours(case, grads):
    """Return all parameters after each step."""
    opt, params, path = eval(case.ours, vars(optimizers)), parameters(case), []
    opt.lr = schedules.step(opt.lr, HALVED, 0.5)
    for t in range(STEPS):
        opt.update(params, {key: gradient(case, g[t], params[key]) for key, g in grads.items()})
        path.append(vector((opt.averaged if case.average else params).values()))
    if hasattr(opt, "evaluation"):
        with opt.evaluation(params):
            path.append(vector(params.values()))
    return np.array(path)


def run_torch(module, case, grads, _lr):
    import torch

    torch.set_default_dtype(torch.float64)
    params, path = [torch.nn.Parameter(torch.tensor(p)) for p in parameters(case).values()], []
    model = torch.nn.ParameterList(params)
    names = {**vars(torch.optim), **vars(import_module(module)), "nn": torch.nn, "params": params, "model": model}
    with redirect_stdout(sys.stderr):  # prodigyopt prints what it does.
        optimizer = eval(case.theirs, names)
    average = eval(case.average, names) if case.average else None
    if is_schedule_free := hasattr(optimizer, "train"):
        optimizer.train()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, HALVED, 0.5)
    for t in range(STEPS):
        for tensor, g in zip(params, grads.values(), strict=True):
            tensor.grad = gradient(case, torch.tensor(g[t]), tensor.detach())
        eval(case.before or "None", names)
        optimizer.step()
        scheduler.step()
        if average:
            average.update_parameters(model)
        path.append(vector(p.detach() for p in (average or model).parameters()))
    if is_schedule_free:
        optimizer.eval()
        path.append(vector(p.detach() for p in params))
    return np.array(path)


def scanned(step, carry, grads):
    """Return all parameters after each step of a compiled loop of JAX."""
    import jax

    path = jax.lax.scan(step, carry, {key: jax.numpy.asarray(g) for key, g in grads.items()})[1]
    return np.concatenate([np.reshape(p, (STEPS, -1)) for p in path], axis=1)


def run_optax(case, grads, lr):
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)

    def schedule(k):  # A schedule of optax computes in float32 here.
        return jax.numpy.where(k < HALVED, jax.numpy.float64(lr), lr / 2)

    optimizer = eval(case.theirs, {**vars(optax), **vars(optax.contrib), "lr": schedule})
    params = {key: jax.numpy.asarray(p) for key, p in parameters(case).items()}
    if "lookahead" in case.ours:
        params = optax.LookaheadParams.init_synced(params)

    def step(carry, g):
        params, state = carry
        g = {key: gradient(case, each, getattr(params, "fast", params)[key]) for key, each in g.items()}
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), list(getattr(params, "fast", params).values())

    return scanned(step, (params, optimizer.init(params)), grads)


def run_keras(case, grads, _lr):
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    params = [keras.Variable(p) for p in parameters(case).values()]
    optimizer = eval(case.theirs, vars(keras.optimizers))
    lr = float(optimizer.learning_rate)
    optimizer.learning_rate = keras.optimizers.schedules.PiecewiseConstantDecay([HALVED - 1], [lr, lr / 2])
    optimizer.build(params)

    def step(carry, g):
        params, state = optimizer.stateless_apply(carry[1], list(g.values()), carry[0])
        return (params, state), params

    return scanned(step, ([p.value for p in params], [v.value for v in optimizer.variables]), grads)


LIBRARIES = {
    "torch": partial(run_torch, "torch.optim"),
    "optax": run_optax,
    "keras": run_keras,
    "timm": partial(run_torch, "timm.optim"),
    "schedulefree": partial(run_torch, "schedulefree"),
    "prodigyopt": partial(run_torch, "prodigyopt"),
}


def missing(library):
    """Return the names of the packages that the cases of a library need and that are not installed."""
    return [name for name in (library, *(["jax"] if library == "keras" else [])) if not find_spec(name)]


def difference(library, case):
    """Return the worst difference of two paths, relative to the largest value that each element has had."""
    # Where decay alone moves an element to and fro about 0, a rule that divides by its size makes rounding grow.
    grads = gradients(least=1e-2 if "l2" in case.ours else 0)
    ours = run_ours(case, grads)
    theirs = LIBRARIES[library](case, grads, eval(case.ours, vars(optimizers)).lr)
    # The average that ends a schedule-free path is compared where the other side has it too.
    ours = ours[: len(theirs)]
    largest = np.maximum(abs(vector(parameters(case).values())), np.maximum.accumulate(abs(theirs)))
    return float(np.max(abs(ours - theirs) / np.where(largest > 0, largest, 1)))


def numbers_of_torch(case, losses):
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = eval(case.theirs, {**vars(torch.optim.lr_scheduler), "optimizer": optimizer})
    for loss in losses:
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step(*([loss] if "Plateau" in case.ours else []))


def numbers_of_optax(case, losses):
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    schedule = eval(case.theirs, vars(optax))
    return [float(schedule(k)) for k in range(len(losses))]


def difference_of_schedules(library, case):
    """Return the largest difference of the numbers of two schedules, which are 1 at most."""
    losses = np.random.default_rng(2).random(case.steps)
    theirs = {"torch": numbers_of_torch, "optax": numbers_of_optax}[library](case, losses)
    schedule, worst = eval(case.ours, vars(schedules)), 0.0
    for k, (loss, number) in enumerate(zip(losses, theirs, strict=True)):
        worst = max(worst, abs(schedule(k) - number))
        if "Plateau" in case.ours:
            schedule.observe(loss)
    return worst


def main(library, *words):
    """Print each case with its difference, as JSON."""
    measures = (CASES, difference), (SCHEDULES, difference_of_schedules)
    for case, measure in [(case, measure) for table, measure in measures for case in table.get(library, [])]:
        if all(word.lower() in "".join(case[:2]).lower() for word in words):
            print(json.dumps([*case[:2], measure(library, case), case.bound]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
