"""The rules that PyTorch has too take its steps in float64, to rounding."""

import numpy as np
import pytest

import fastoptim as fo

torch = pytest.importorskip("torch", reason="PyTorch is in the peers extra: pip install -e '.[peers]'")

# Hyperparameters of both, in each library's words; what is left out has the same default. Adam is not here: the notes
# add epsilon before the correction of the root, PyTorch after it.
PEERS = {
    "SGD": ({}, torch.optim.SGD, {"lr": 0.01}),
    "Momentum": ({}, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "Nesterov": ({}, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "AdaGrad": ({}, torch.optim.Adagrad, {"lr": 0.01, "eps": 1e-7}),
    "RMSprop": ({}, torch.optim.RMSprop, {"lr": 0.01, "eps": 1e-7}),
    "AdamW": ({}, torch.optim.AdamW, {}),
}


@pytest.mark.parametrize("name", PEERS)
def test_two_hundred_steps_of_torch(name):
    """Gradients near epsilon show where it is added; parameters that start at zero are the sum of their steps."""
    ours, peer, theirs = PEERS[name]
    rng = np.random.default_rng(0)
    scale = rng.choice([1.0, 1e-2, 1e-7], 60)
    start = {"W": rng.standard_normal(60), "zero": np.zeros(60)}
    tensors = [torch.tensor(p, requires_grad=True) for p in start.values()]
    comp_opt, ref_opt = getattr(fo, name)(**ours), peer(tensors, **theirs)
    largest = {key: abs(p) for key, p in start.items()}
    for _ in range(200):
        grads = {key: np.where(rng.random(60) < 0.1, 0, scale * rng.standard_normal(60)) for key in start}
        for tensor, g in zip(tensors, grads.values(), strict=True):
            tensor.grad = torch.tensor(g)
        ref_opt.step()
        comp_opt.update(start, grads)
        for key, tensor in zip(start, tensors, strict=True):
            ref = tensor.detach().numpy()
            largest[key] = np.maximum(largest[key], abs(ref))
            assert np.all(abs(ref - start[key]) <= 2e-14 * largest[key]), key
