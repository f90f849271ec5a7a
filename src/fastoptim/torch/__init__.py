"""An optimizer of torch that updates CPU tensors by an optimizer of this package."""

from fastoptim._optional import imported_for

with imported_for("fastoptim.torch", "torch"):
    from fastoptim.torch.optimizer import Optimizer

__all__ = ["Optimizer"]
