"""`load` creates the object that a file holds; it alone knows all classes that can be saved."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from fastoptim import optimizers
from fastoptim.family import FAMILY
from fastoptim.network import MultiLayerNet, MultiLayerNetExtend
from fastoptim.serialize import StateDict, StrPath, reading

__all__ = ["load"]

_NETWORKS = {cls.__name__: cls for cls in (MultiLayerNet, MultiLayerNetExtend)}


def load(path: StrPath, params: Any = None) -> Any:
    """Create the optimizer or the network that a file holds.

    Parameters
    ----------
    path : path
        A file written by `fastoptim.Optimizer.save`, `MultiLayerNet.save` or `MultiLayerNetExtend.save`.
    params : dict or list, optional
        The parameters, if they were saved with the optimizer: they are written in place, as by
        `fastoptim.Optimizer.load`.

    Returns
    -------
    Optimizer, MultiLayerNet or MultiLayerNetExtend
        An object of the class that the file names, which must be one of this package. For a class of your own, create
        an object and call its method ``load``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is damaged or holds anything else, if ``params`` do not fit, or if the optimizer had groups, frozen
        parameters or functions of your own, which only a constructor can give to it. Nothing is changed then.

    Notes
    -----
    Nothing in a file is imported or executed, and reading one takes at most four times its size and 32 MB of memory.
    The checksum detects damage, not forgery.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> params, grads = {"w": np.ones(2)}, {"w": np.array([1.0, -1.0])}
    >>> opt = fo.Adam(lr=0.5)
    >>> opt.update(params, grads)
    >>> restored = {"w": np.zeros(2)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     opt.save(f"{folder}/adam.safetensors", params)
    ...     opt = fo.load(f"{folder}/adam.safetensors", restored)
    >>> opt.iter, opt.lr, opt.m["w"], restored["w"].round(4)
    (1, 0.5, array([ 0.1, -0.1]), array([0.5, 1.5]))
    """
    with reading(path) as state_dict:
        return _created(path, state_dict, params)


def _created(path: StrPath, state_dict: StateDict, params: Any) -> Any:
    package, _, name = str(state_dict.get("class")).rpartition(".")
    if package == "fastoptim" and name in _NETWORKS:
        if params is not None:
            raise ValueError(f"{path} holds a network, which has parameters of its own: load it without params")
        return _network(_NETWORKS[name], state_dict)
    if package != "fastoptim" or name not in FAMILY:
        raise ValueError(f"{path} holds a {name}, which is not a class of fastoptim: create one and call its `load`")
    if "not_saved" in state_dict:
        further = f"an optimizer with {state_dict['not_saved']}, which no file holds"
        raise ValueError(f"{path} was saved by {further}: create one with the same and call its `load`")
    optimizer = getattr(optimizers, name)()
    optimizer.load_state_dict(state_dict, params)
    return optimizer


def _network(cls: type[MultiLayerNet], state_dict: StateDict) -> MultiLayerNet:
    """Create a network from its state dict, or raise `ValueError`."""
    try:
        arguments = state_dict["hyperparameters"]
        sizes = [arguments["input_size"], *arguments["hidden_size_list"], arguments["output_size"]]
        if not all(type(size) is int for size in sizes):
            # NumPy's integers would wrap around in the product.
            raise TypeError("the sizes must be plain integers")
        # Compare the sizes with the arrays first, so that a forged file cannot allocate more memory than its own size.
        n_params = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
        if n_params > sum(array.size for array in state_dict["params"].values()):
            raise ValueError(f"the parameters are not those of a network with the sizes {sizes}")
        net = cls(**arguments, weight_init_std=0.0, seed=0)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"the checkpoint does not hold a network: {error}") from error
    net.load_state_dict(state_dict)
    return net
