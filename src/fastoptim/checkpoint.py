"""`load`: make the object that a file holds. This module alone knows all classes that can be saved."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from fastoptim import network, optimizers
from fastoptim.serialize import StateDict, StrPath, read

__all__ = ["load"]


def load(path: StrPath, params: Any = None) -> Any:
    """Make the optimizer, or the network, that a file holds.

    Parameters
    ----------
    path : path
        A file written by `Optimizer.save` or `MultiLayerNet.save`.
    params : dict or list, optional
        Where the parameters that were saved with an optimizer are written to, as by `Optimizer.load`.

    Returns
    -------
    Optimizer or MultiLayerNet
        Of the class of this package that the file names. For a class of one's own, make an object and call its method
        ``load``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, or holds anything else, or if ``params`` do not fit. Nothing is changed then.

    Notes
    -----
    Nothing that a file says is imported or executed, and it is given no more memory than a few times its size. The
    checksum finds damage, not malice.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> params, grads = {"w": np.ones(2)}, {"w": np.array([1.0, -1.0])}
    >>> opt = fo.Adam(lr=0.5)
    >>> opt.update(params, grads)
    >>> params_of_tomorrow = {"w": np.zeros(2)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     opt.save(f"{folder}/night.safetensors", params)
    ...     opt = fo.load(f"{folder}/night.safetensors", params_of_tomorrow)
    >>> opt.iter, opt.lr, opt.m["w"], params_of_tomorrow["w"].round(4)
    (1, 0.5, array([ 0.1, -0.1]), array([0.5, 1.5]))
    """
    state_dict = read(path)
    package, _, name = str(state_dict.get("class")).rpartition(".")
    if package == "fastoptim" and name in network.__all__:
        if params is not None:
            raise ValueError(f"{path} holds a network, which has parameters of its own: load it without params")
        return _network(state_dict)
    if package != "fastoptim" or name not in optimizers.__all__:
        raise ValueError(f"{path} holds a {name}, which is not a class of fastoptim: create one and call its `load`")
    optimizer = getattr(optimizers, name)()
    optimizer.load_state_dict(state_dict, params)
    return optimizer


def _network(state_dict: StateDict) -> network.MultiLayerNet:
    """Return a network with the sizes and parameters of a state dict, or raise `ValueError`."""
    try:
        arguments = state_dict["hyperparameters"]
        sizes = [arguments["input_size"], *arguments["hidden_size_list"], arguments["output_size"]]
        # A file cannot ask for the memory of more numbers than it holds.
        n_params = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
        if n_params != sum(array.size for array in state_dict["params"].values()):
            raise ValueError(f"the parameters are not those of a network with the sizes {sizes}")
        net = network.MultiLayerNet(**arguments, weight_init_std=0.0, seed=0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the checkpoint does not hold a network: {error}") from error
    net.load_state_dict(state_dict)
    return net
