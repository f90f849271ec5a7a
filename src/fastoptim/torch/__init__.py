"""An optimizer of torch that updates CPU tensors by an optimizer of this package."""

from fastoptim.torch.optimizer import Optimizer

__all__ = ["Optimizer"]
