"""The textbook's networks: fully connected, and the same with batch normalization and dropout."""

from fastoptim.network.extended import MultiLayerNetExtend
from fastoptim.network.multilayer import MultiLayerNet

__all__ = ["MultiLayerNet", "MultiLayerNetExtend"]
