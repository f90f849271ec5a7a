"""The optimizer of torch that updates by an optimizer of this package, against torch's own."""

import copy
import io
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastoptim as fo
from fastoptim import dtypes, threads

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

import fastoptim.torch as fast  # noqa: E402
from test_docs import DOCS, run_blocks  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """Starting threads takes longer than these small products, in particular beside other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Transformer(nn.Module):
    """One layer, which predicts the next of 11 symbols."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 11)

    def forward(self, x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.head(self.layer(self.embedding(x)))


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def batches(n):
    generator = torch.Generator().manual_seed(1)
    starts = torch.randint(0, 11, (n, 8, 1), generator=generator)
    return (starts + torch.arange(9)) % 11


def pair(model, make, torch_make, params=lambda model: model.parameters()):
    """Our optimizer on a model, and torch's on its copy."""
    other = copy.deepcopy(model)
    return (model, fast.Optimizer(params(model), make())), (other, torch_make(params(other)))


def mlp(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def train(model, optimizer, seed=0, *, skip=()):
    """Make one step; the parameters whose numbers are in ``skip`` get no gradient."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    optimizer.zero_grad()
    loss = model(x.to(next(model.parameters()).dtype)).square().mean()
    loss.backward()
    for k, p in enumerate(model.parameters()):
        if k in skip:
            p.grad = None
    optimizer.step()
    return loss.item()


def assert_same(model, other, tolerance=1e-14):
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        difference = (p - q).abs().max().item()
        assert difference <= tolerance * max(q.abs().max().item(), 1), (name, difference)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)], ids=str)
def test_transformer(dtype, tolerance):
    """In each of 200 steps both get the gradients of the first, so that rounding does not grow by itself."""
    torch.manual_seed(0)
    (model, ours), (other, theirs) = pair(
        Transformer().to(dtype),
        lambda: fo.AdamW(lr=1e-2, weight_decay=0.1),
        lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=0.1),
    )
    losses = []
    for batch in batches(200):
        ours.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    assert_same(model, other, tolerance)
    assert losses[0] > 2
    assert np.mean(losses[-10:]) < 0.05


RULES = {
    "AdamW": (fo.AdamW, torch.optim.AdamW),
    "SGD": (lambda lr: fo.SGD(lr), torch.optim.SGD),
    "Momentum": (
        lambda lr: fo.Momentum(lr, like="torch"),
        lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9),
    ),
    "RAdam": (lambda lr: fo.RAdam(lr, like="torch"), torch.optim.RAdam),
    "NAdam": (lambda lr: fo.NAdam(lr, like="torch"), torch.optim.NAdam),
}


@pytest.fixture
def doubles():
    """torch keeps NAdam's product in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("rule", RULES)
def test_missing_gradients_are_skipped(rule):
    ours, theirs = RULES[rule]
    model, other = pair(mlp(), lambda: ours(lr=0.1), lambda params: theirs(params, lr=0.1))
    for step in range(12):
        skip = {0, 1, 2, 3} if step == 2 else {step % 4, 3} if 0 < step < 7 else {1} if step == 0 else set()
        for each in model, other:
            train(*each, step, skip=skip)
        assert_same(model[0], other[0], 1e-13)


SCHEDULERS = {
    "OneCycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[0.3, 0.1], total_steps=12),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12),
    "lambda": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda t: 1 / (1 + t), lambda _: 1.0]),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_groups_and_schedulers(name):
    def groups(model):
        weights, biases = model[0::2], [layer.bias for layer in model[0::2]]
        return [
            {"params": [layer.weight for layer in weights], "betas": (0.8, 0.99)},
            {"params": biases, "lr": 0.05, "weight_decay": 0.0},
        ]

    both = pair(mlp(), lambda: fo.AdamW(lr=0.1), lambda params: torch.optim.AdamW(params, lr=0.1), groups)
    schedulers = [SCHEDULERS[name](optimizer) for _, optimizer in both]
    for step in range(12):
        for (model, optimizer), scheduler in zip(both, schedulers, strict=True):
            train(model, optimizer, step)
            scheduler.step()
        ours, theirs = (optimizer for _, optimizer in both)
        for own, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert own["lr"] == other["lr"]
        assert_same(both[0][0], both[1][0])
    assert len(ours.optimizer._plans) == 1


def test_group_added_later():
    both = pair(
        mlp(),
        lambda: fo.AdamW(lr=0.1),
        lambda params: torch.optim.AdamW(params, lr=0.1),
        lambda model: model[0].parameters(),
    )
    for step in range(6):
        for model, optimizer in both:
            train(model, optimizer, step)
            if step == 2:
                optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.01})
    assert_same(both[0][0], both[1][0])


def saved(state_dict, weights_only=True):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


def test_state_is_exchanged_with_torch():
    """Each continues where the other was."""
    (model, ours), (other, theirs) = pair(
        mlp(), lambda: fo.AdamW(lr=0.1), lambda params: torch.optim.AdamW(params, lr=0.1)
    )
    for step in range(9):
        ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.1 / (1 + step)
        train(model, ours, step, skip={1} if step < 3 else ())
        train(other, theirs, step, skip={1} if step < 3 else ())
        of_ours, of_theirs = saved(ours.state_dict()), saved(theirs.state_dict())
        for k, state in of_theirs["state"].items():
            assert state.keys() == of_ours["state"][k].keys()
            assert state["step"] == of_ours["state"][k]["step"]
            torch.testing.assert_close(state["exp_avg"], of_ours["state"][k]["exp_avg"], rtol=1e-12, atol=1e-15)
        ours, theirs = fast.Optimizer(model.parameters(), fo.AdamW()), torch.optim.AdamW(other.parameters())
        ours.load_state_dict(of_theirs if step % 2 else of_ours)
        theirs.load_state_dict(of_ours if step % 2 else of_theirs)
    assert_same(model, other)


@pytest.mark.parametrize("rule", [*RULES, "schedule-free", "ema", "Muon", "Prodigy"])
@pytest.mark.parametrize("n_groups", [1, 2])
def test_saved_state_continues_with_the_same_bits(rule, n_groups):
    make = {
        "schedule-free": lambda lr: fo.ScheduleFreeAdamW(lr, warmup=2),
        "ema": lambda lr: (
            fo.Adam(fo.schedules.cosine(lr, 20), ema=0.9, amsgrad=None)
            if False
            else fo.Adam(fo.schedules.cosine(lr, 20), ema=0.9)
        ),
        "Muon": lambda lr: fo.Muon(lr),
        "Prodigy": lambda lr: fo.Prodigy(lr),
    }.get(rule, RULES.get(rule, [None])[0])

    def new(model):
        if n_groups == 1:
            return fast.Optimizer(model.named_parameters(), make(lr=0.1))
        groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.02}]
        return fast.Optimizer(groups, make(lr=0.1))

    model = mlp()
    optimizer = new(model)
    lags = rule != "Prodigy"
    for step in range(5):
        train(model, optimizer, step, skip={1} if step == 2 and lags else ())
    other = copy.deepcopy(model)
    resumed = new(other)
    if n_groups == 2:
        train(other, resumed, 99)
        other.load_state_dict(model.state_dict())
    resumed.load_state_dict(saved(optimizer.state_dict()))
    for step in range(5, 9):
        train(model, optimizer, step)
        train(other, resumed, step)
    assert_same(model, other, 0)


def test_state_that_does_not_fit():
    model = mlp()
    optimizer = fast.Optimizer(model.parameters(), fo.AdamW(lr=0.1))
    train(model, optimizer)
    good = copy.deepcopy(optimizer.state_dict())
    amsgrad = torch.optim.AdamW(copy.deepcopy(model).parameters(), amsgrad=True)
    train(copy.deepcopy(model), amsgrad)

    def changed(change):
        wrong = copy.deepcopy(good)
        change(wrong)
        return wrong

    before = copy.deepcopy(optimizer.state_dict())
    for wrong, message in (
        (changed(lambda it: it["state"][1].update(exp_avg=torch.zeros(3))), r"'m' of 1 of shape"),
        (changed(lambda it: it["state"][1].pop("exp_avg")), "no state 'm' of parameter 1"),
        (changed(lambda it: [own.pop("exp_avg") for own in it["state"].values()]), "expected m, v"),
        (changed(lambda it: it["param_groups"].append(it["param_groups"][0])), "number of parameter groups"),
        (changed(lambda it: it["fastoptim"].update({"class": "SGD"})), "SGD"),
        (fast.Optimizer(mlp().parameters(), fo.SGD()).state_dict(), "SGD"),
        (amsgrad.state_dict(), "amsgrad=True"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(wrong)
        after = optimizer.state_dict()
        assert after["param_groups"] == before["param_groups"]
        assert after["fastoptim"] == before["fastoptim"]
        for k, state in before["state"].items():
            assert all(torch.equal(state[name], after["state"][k][name]) for name in state)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: saved(pair, weights_only=False)], ids=["copy", "save"]
)
def test_copies_continue_on_their_own(duplicate):
    model = mlp()
    optimizer = fast.Optimizer(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.01}], fo.AdamW(lr=0.1)
    )
    for step in range(3):
        train(model, optimizer, step, skip={2} if step == 1 else ())
    other, its_own = duplicate((model, optimizer))
    before = copy.deepcopy(model)
    train(other, its_own, 7)
    assert_same(model, before, 0)
    assert optimizer.optimizer.iter == 3
    train(model, optimizer, 7)
    assert_same(model, other, 0)


def test_tensors_of_any_layout():
    """Strided parameters and gradients, and storage that is exchanged between steps."""

    def step(p, optimizer, k):
        optimizer.zero_grad()
        (p * torch.arange(12.0).reshape(3, 4).sin() * (k + 1)).sum().backward()
        optimizer.step()

    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).T
    wide = torch.zeros(3, 9)
    wide[:, ::2][:, :4] = start
    for own in (start.clone(), wide[:, ::2][:, :4], start.contiguous()):
        p, q = nn.Parameter(own), nn.Parameter(start.clone())
        assert p.data_ptr() == own.data_ptr()
        ours, theirs = fast.Optimizer([p], fo.AdamW()), torch.optim.AdamW([q])
        for k in range(4):
            if k == 2:
                p.data = p.data.clone()
            step(p, ours, k)
            step(q, theirs, k)
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert (wide[:, 1::2] == 0).all()
    # Convolutions whose channels come last.
    torch.manual_seed(0)
    model, other = pair(
        nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
        fo.AdamW,
        torch.optim.AdamW,
    )
    for each, optimizer in (model, other):
        for _ in range(3):
            optimizer.zero_grad()
            each(torch.ones(2, 3, 5, 5)).square().sum().backward()
            optimizer.step()
    assert_same(model[0], other[0], 1e-6)


def test_a_model_in_place_of_its_parameters_is_refused():
    model = nn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"^params must be parameters such as model.parameters\(\), not the Linear$"):
        fast.Optimizer(model, fo.SGD())
    with pytest.raises(TypeError, match=r"^masters must be True or False, not 'no'$"):
        fast.Optimizer(model.parameters(), fo.SGD(), masters="no")


def test_parameters_and_gradients_that_are_refused():
    for wrong in (
        nn.Parameter(torch.zeros(3, device="meta")),
        nn.Parameter(torch.zeros(3, dtype=torch.complex64)),
        nn.Parameter(torch.zeros(3).to_sparse()),
    ):
        with pytest.raises(TypeError, match="parameter 0 is a torch"):
            fast.Optimizer([wrong], fo.SGD())
    p = nn.Parameter(torch.zeros(3))
    optimizer = fast.Optimizer([p], fo.SGD())
    with pytest.raises(TypeError, match="parameter 1 is"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3, device="meta"))]})
    with pytest.raises(
        ValueError, match="a group cannot have 'clip_norm', which is for all parameters: give it to the"
    ):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))], "clip_norm": 1.0, "max_lr": 0.1})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))], "maximize": False, "max_lr": 0.1, "l2": 0.1})
    with pytest.raises(ValueError, match="two parameters have the name 'a'"):
        fast.Optimizer([{"params": [("a", p)]}, {"params": [("a", nn.Parameter(torch.zeros(2)))]}], fo.SGD())
    with pytest.raises(ValueError, match="non-leaf"):
        fast.Optimizer([p * 2], fo.SGD())
    with pytest.raises(TypeError, match=r"an optimizer such as fo.AdamW\(\), not .*; did you mean \w+\(\)\?"):
        fast.Optimizer([p], fo.SGD)
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = fast.Optimizer(table.named_parameters(), fo.SGD())
    table(torch.tensor([1, 1])).sum().backward()
    with pytest.raises(TypeError, match=r"gradient of 'weight' .* sparse"):
        optimizer.step()
    assert optimizer.optimizer.iter == 0


def test_hyperparameters_are_checked():
    optimizer = fast.Optimizer([nn.Parameter(torch.zeros(3))], fo.AdamW())
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "lr": torch.tensor(0.5)})
    assert optimizer.param_groups[1]["lr"] == 0.5
    assert isinstance(optimizer.param_groups[1]["lr"], float)
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.step()
    assert (optimizer.param_groups[0]["params"][0] == 0).all()


def test_closure_hooks_and_profiler():
    model = mlp()
    optimizer = fast.Optimizer(model.parameters(), fo.AdamW(lr=0.1))
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure():
        calls.append("closure")
        optimizer.zero_grad()
        loss = model(torch.ones(1, 3, dtype=torch.float64)).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() != 0
    assert calls == ["before", "closure", "after"]
    plain = fast.Optimizer(model.parameters(), fo.AdamW())
    with torch.autograd.profiler.profile() as profile:
        plain.step()
    assert any(event.key == "Optimizer.step#Optimizer.step" for event in profile.key_averages())
    assert plain.step() is None


def test_a_graph_from_before_the_step_is_an_error():
    p = nn.Parameter(torch.ones(3))
    loss = p.square().sum()
    loss.backward(retain_graph=True)
    fast.Optimizer([p], fo.SGD()).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = (q := torch.ones(3, requires_grad=True)).square().sum()
    fo.SGD().update({"q": q}, {"q": torch.ones(3)})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_one_thread_of_torch_is_one_thread_here():
    results = []
    for n in 1, 2:
        torch.set_num_threads(n)
        p, seen = nn.Parameter(torch.ones(50_000)), set()
        optimizer = fast.Optimizer([p], fo.AdamW())
        run = optimizer._groups.update
        optimizer._groups.update = lambda *args, run=run, seen=seen: (seen.add(threads._setting.parts), run(*args))
        for k in range(20):
            p.grad = torch.full_like(p, k - 9.5)
            optimizer.step()
        assert seen == {1 if n == 1 else None}
        results.append(p.detach().clone())
    assert torch.equal(*results)


def bfloat16_pair(**how):
    """A transformer of bfloat16 with masters, and torch's AdamW on a copy of it in float32."""
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    torch.manual_seed(0)
    model = Transformer().bfloat16()
    other = copy.deepcopy(model).float()
    ours = fast.Optimizer(model.parameters(), fo.AdamW(lr=1e-2, **how))
    return model, ours, other, torch.optim.AdamW(other.parameters(), lr=1e-2)


def bfloat16_step(model, optimizer, batch, other=None, theirs=None):
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    if theirs:
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            q.grad = p.grad.float()
        theirs.step()
    optimizer.step()


@pytest.mark.parametrize(("state_dtype", "tolerance"), [(None, 1e-6), ("bfloat16", 0.02)])
def test_masters_of_bfloat16_parameters(state_dtype, tolerance):
    model, ours, other, theirs = bfloat16_pair(state_dtype=state_dtype)
    for batch in batches(30):
        bfloat16_step(model, ours, batch, other, theirs)
    for k, (p, q) in enumerate(zip(model.parameters(), other.parameters(), strict=True)):
        master = torch.from_numpy(ours._masters.arrays[k])
        assert (master - q).abs().max() <= tolerance
        assert torch.equal(p, master.bfloat16())
        assert ours.optimizer.m[k].dtype.name == (state_dtype or "float32")


def test_masters_are_saved_and_copied():
    """The same bits, although torch would round the state and the masters to bfloat16."""
    model, ours, _, _ = bfloat16_pair()
    first, *rest = batches(5)
    bfloat16_step(model, ours, first)
    copied, its_own = copy.deepcopy((model, ours))
    loaded = copy.deepcopy(model)
    resumed = fast.Optimizer(loaded.parameters(), fo.AdamW())
    resumed.load_state_dict(saved(ours.state_dict()))
    assert not resumed.state
    for batch in rest:
        for each in (model, ours), (copied, its_own), (loaded, resumed):
            bfloat16_step(*each, batch)
    for other, optimizer in (copied, its_own), (loaded, resumed):
        assert_same(model, other, 0)
        for key, master in ours._masters.arrays.items():
            assert_array_equal(optimizer._masters.arrays[key], master)
    wrong = saved(ours.state_dict())
    wrong["state"][3]["master"] = torch.zeros(1)
    with pytest.raises(ValueError, match="copy of 3 of shape"):
        ours.load_state_dict(wrong)


def test_masters_follow_other_code():
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    p = nn.Parameter(torch.ones(3).bfloat16())
    optimizer = fast.Optimizer([p], fo.SGD(lr=2.0**-12))

    def step():
        p.grad = torch.ones(3).bfloat16()
        optimizer.step()

    for _ in range(5):
        step()
    assert_array_equal(optimizer._masters.arrays[0], 1 - 5 / 4096)
    with torch.no_grad():
        p[1] = 2.0
    step()
    assert_array_equal(optimizer._masters.arrays[0], [1 - 6 / 4096, 2 - 1 / 4096, 1 - 6 / 4096])
    p.data = torch.zeros(3).bfloat16()
    step()
    assert_array_equal(optimizer._masters.arrays[0], -1 / 4096)
    optimizer.zero_grad()
    optimizer.step()
    assert (p == -1 / 4096).all()


@pytest.mark.parametrize("masters", [True, False])
def test_parameters_of_two_dtypes(masters):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    half, single = nn.Parameter(torch.ones(3, 2).bfloat16().T), nn.Parameter(torch.ones(3))
    optimizer = fast.Optimizer([half, single], fo.AdamW(lr=0.5, weight_decay=0.0), masters=masters)
    for _ in range(2):
        half.grad, single.grad = torch.ones(2, 3).bfloat16(), torch.ones(3)
        optimizer.step()
    assert optimizer.optimizer.m[0].dtype.name == ("float32" if masters else "bfloat16")
    torch.testing.assert_close(half, torch.zeros(2, 3).bfloat16(), atol=1e-2, rtol=0)
    torch.testing.assert_close(single, torch.zeros(3), atol=1e-6, rtol=0)
    other = fast.Optimizer([half, single], fo.AdamW(), masters=masters)
    other.load_state_dict(saved(optimizer.state_dict()))
    assert_array_equal(other.optimizer.v[0], optimizer.optimizer.v[0])


def test_tensors_of_bfloat16_in_update():
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    p = nn.Parameter(torch.ones(3).bfloat16())
    w = np.ones(3, np.float32)
    fo.SGD(lr=0.5).update({"p": p, "w": w}, {"p": torch.ones(3).bfloat16(), "w": torch.ones(3).bfloat16()})
    assert (p == 0.5).all()
    assert_array_equal(w, 0.5)


def test_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    dtypes.bfloat16.cache_clear()
    p = nn.Parameter(torch.ones(3).bfloat16())
    with pytest.raises(ImportError, match="pip install ml_dtypes"):
        fast.Optimizer([p], fo.SGD())
    with pytest.raises(ImportError, match="pip install ml_dtypes"):
        fo.SGD().update({"w": np.ones(3)}, {"w": p})


def test_mixed_precision():
    """Products in bfloat16, parameters in float32."""
    torch.manual_seed(0)
    (model, ours), (other, theirs) = pair(
        Transformer(), lambda: fo.AdamW(lr=1e-2), lambda params: torch.optim.AdamW(params, lr=1e-2)
    )
    for batch in batches(20):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, batch)
        ours.zero_grad()
        loss.backward()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    assert_same(model, other, 1e-6)


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, k):
        return torch.full((3,), float(k), dtype=torch.float64)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are not forked here")
def test_workers_of_a_data_loader():
    """Workers are forked between steps, also after threads were started."""
    model = mlp()
    optimizer = fast.Optimizer(model.parameters(), fo.AdamW(lr=0.1))
    with fo.num_threads(2):
        train(model, optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loader = torch.utils.data.DataLoader(Numbers(), 3, num_workers=2, multiprocessing_context="fork")
            for x in loader:
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
    assert optimizer.optimizer.iter == 5


def test_torch_is_imported_by_nothing_else():
    code = "import fastoptim as fo, sys; fo.AdamW().update({'w': 1.0}, {'w': 1.0}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert fo.__getattr__("torch") is fast


def test_tensors_in_update():
    p, plain, g = nn.Parameter(torch.ones(3, 2)), torch.zeros(2), torch.ones(3, 2, requires_grad=True)
    params = {"p": p, "plain": plain, "x": 1.0}
    opt = fo.SGD(lr=0.5)
    opt.update(params, {"p": g, "plain": torch.ones(2), "x": torch.tensor(2.0)})
    assert (p == 0.5).all()
    assert (plain == -0.5).all()
    assert params["x"] == 0
    with warnings.catch_warnings():
        # torch warns that it does not check indices, and of the state of its own code.
        warnings.simplefilter("ignore")
        compressed = torch.ones(3, 2).to_sparse_csr()
        rows = torch.sparse_coo_tensor([[2, 0, 2]], torch.ones(3, 2), (4, 2)).coalesce()
    for wrong, hint in (
        (g * 2, "shares the memory"),
        (torch.ones(3, device="meta"), "on the device meta"),
        (torch.ones(3).to_sparse(), "fo.Rows("),
        (compressed, "to_dense"),
    ):
        with pytest.raises(TypeError) as caught:
            fo.SGD().update({"w": wrong}, {"w": np.ones(3)})
        assert hint in str(caught.value)
    w = np.ones((4, 2), np.float32)
    fo.SGD(lr=1.0).update({"w": w}, {"w": fo.Rows(rows.indices()[0].numpy(), rows.values().numpy())})
    assert_array_equal(w[:, 0], [0, 1, -1, 1])


def test_the_page_runs_as_it_is_written():
    names = run_blocks(DOCS / "torch.md")
    assert names["loss"].item() < 1.2
    assert names["optimizer"].optimizer.iter == 50
