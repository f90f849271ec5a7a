"""What a fully connected network is: its sizes, its parameters in one buffer, and their checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastoptim.hyperparameters import Hyperparameter
from fastoptim.kernels import dense
from fastoptim.network.initialization import initial_parameters
from fastoptim.network.runner import Runner
from fastoptim.parameters import FlatDict, flatten
from fastoptim.serialize import StateDict, StrPath, check_arrays, check_items, copied, format_and_class, reading, write
from fastoptim.tables import Table, shortened, size_of

__all__ = ["ACTIVATIONS", "Architecture", "checked_dtype"]

ACTIVATIONS = {"relu": dense.RELU, "sigmoid": dense.SIGMOID}


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of a network; raise `TypeError` if it is no dtype, and `ValueError` if it is another one."""
    try:
        known: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float64, not {dtype!r}") from None
    if known not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, not {known}")
    return known


class Architecture:
    """The sizes and options of a network, which are fixed, and its parameters; subclasses compute with them."""

    weight_decay_lambda = Hyperparameter(0)

    _numbers: tuple[str, ...] = ("weight_decay_lambda",)
    """The arguments that may be changed later."""
    _is_normalized = False
    _state: Mapping[str, FlatDict] = MappingProxyType({})
    """Arrays that checkpoints keep in addition to the parameters."""

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0,
        *,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        if not isinstance(hidden_size_list, Iterable):
            raise ValueError(f"hidden_size_list must be a list of widths, such as [{hidden_size_list}]")
        sizes = [input_size, *hidden_size_list, output_size]
        if not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
            raise ValueError(f"the sizes of a network must be integers >= 1, not {sizes}")
        if not isinstance(activation, str) or activation.lower() not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, not {activation!r}")
        self._sizes = tuple(map(int, sizes))
        self._activation = activation.lower()
        self._dtype = checked_dtype(dtype)
        self.weight_decay_lambda = weight_decay_lambda
        self._runner = self._new_runner(self._dtype)
        arrays = initial_parameters(self._sizes, weight_init_std, seed, self._is_normalized)
        self._params = flatten(arrays, dtype=self.dtype)

    # Kernels trust these, so they cannot be set.

    @property
    def input_size(self) -> int:
        """Number of features of a sample."""
        return self._sizes[0]

    @property
    def hidden_size_list(self) -> list[int]:
        """Widths of the hidden layers."""
        return list(self._sizes[1:-1])

    @property
    def output_size(self) -> int:
        """Number of classes."""
        return self._sizes[-1]

    @property
    def activation(self) -> str:
        """Name of the activation."""
        return self._activation

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters and of all arithmetic."""
        return self._dtype

    @property
    def params(self) -> FlatDict:
        """The parameters, views of one buffer. Assigning a dict copies its arrays."""
        return self._params

    @params.setter
    def params(self, arrays: Mapping[str, ArrayLike]) -> None:
        if arrays.keys() != self._params.keys():
            raise KeyError(f"params has the keys {list(arrays)}, expected {list(self._params)}")
        self._params.update(arrays)

    def state_dict(self) -> StateDict:
        """Return the arguments that create such a network, and copies of its parameters.

        Returns
        -------
        dict
            ``"format"``, the version of the format; ``"class"``; ``"hyperparameters"``, the arguments; ``"params"``;
            and ``"state"``, if the class has further arrays.
        """
        return copied(self._state_dict())

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore the parameters, the state and the weight decay from what `state_dict` returned.

        Raises
        ------
        ValueError
            If the sizes, options or dtype of the network differ. Nothing is changed then.
        """
        own = self._state_dict()
        check_items(state_dict, self, *(item for item in own if item not in ("format", "class")))
        saved, arguments = state_dict["hyperparameters"], own["hyperparameters"]
        # The numbers need not be this network's, but must be numbers.
        numbers = {name: saved.get(name) for name in self._numbers} if isinstance(saved, Mapping) else {}
        are_numbers = all(isinstance(n, Real) and not isinstance(n, bool) for n in numbers.values())
        if not numbers or not are_numbers or {**saved} != arguments | numbers:
            raise ValueError(f"this is a checkpoint of a network with {saved}, not with {arguments}")
        check_arrays("params", state_dict["params"], self.params)
        state = state_dict.get("state", {})
        if not isinstance(state, Mapping) or state.keys() != self._state.keys():
            raise ValueError(f"the state of the checkpoint must be a dict with the keys {list(self._state)}")
        for name, arrays in self._state.items():
            check_arrays(name, state[name], arrays)
        vars(self).update({name: getattr(type(self), name).checked(number) for name, number in numbers.items()})
        self.params.update(state_dict["params"])
        for name, arrays in self._state.items():
            arrays.update(state[name])

    def save(self, path: StrPath) -> None:
        """Write the `state_dict` to a file, from which `fastoptim.load` creates the network.

        During training, ``opt.save(path, net.params)`` saves both in one file. Errors are as in
        `fastoptim.Optimizer.save`.
        """
        write(path, self._state_dict())

    def load(self, path: StrPath) -> None:
        """Restore what `save` wrote; see `load_state_dict`.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If the file is damaged, or if the sizes, options or dtype differ. Nothing is changed then.
        """
        with reading(path) as state_dict:
            self.load_state_dict(state_dict)

    def __repr__(self) -> str:
        input_size, hidden_size_list, output_size, *options = self._arguments().items()
        sizes = (str(size) for _, size in (input_size, hidden_size_list, output_size))
        named = (f"{name}={value if name == 'dtype' else repr(value)}" for name, value in options)
        return f"{type(self).__name__}({', '.join([*sizes, *named])})"

    def _repr_html_(self) -> str:
        last = len(self._sizes) - 1
        rows = []
        for i in range(1, last + 1):
            # A layer's arrays have its number in their keys.
            n_parameters = sum(a.size for key, a in self.params.items() if re.sub(r"\D", "", key) == str(i))
            activation = self.activation if i < last else "softmax"
            rows.append((str(i), activation, str(self._sizes[i - 1]), str(self._sizes[i]), f"{n_parameters:,}"))
        total, n_bytes = self.params.flat.size, self.params.flat.nbytes
        caption = f"{self!r}: {total:,} parameters, {size_of(n_bytes)}"
        titles = ("layer", "activation", "inputs", "outputs", "parameters")
        return Table(titles, shortened(rows, ("⋮", *[""] * 4)), 2, caption)._repr_html_()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_runner"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Kernels trust the table of layers, so it is not taken from a pickle, perhaps of another version.
        vars(self).update(state)
        self._runner = self._new_runner(self._dtype)

    def _new_runner(self, dtype: np.dtype[Any]) -> Runner:
        return Runner(self._sizes, self._is_normalized, ACTIVATIONS[self._activation], dtype)

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments that create such a network, except for its initial weights."""
        return {
            "input_size": self.input_size,
            "hidden_size_list": self.hidden_size_list,
            "output_size": self.output_size,
            "activation": self.activation,
            "weight_decay_lambda": self.weight_decay_lambda,
            "dtype": self.dtype.name,
        }

    def _state_dict(self) -> StateDict:
        """Return the state dict; the arrays are not copied."""
        state = {"state": {**self._state}} if self._state else {}
        return format_and_class(self) | {"hyperparameters": self._arguments(), "params": self.params} | state
