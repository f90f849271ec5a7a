"""Nested parameters: a flat view of dicts, lists and tuples in one another, with a path as the key of each array."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NoReturn

__all__ = ["Places", "Tree", "tree"]


class Places(dict[Any, Any]):
    """A dict of values that lie in other containers, to which it passes on what is assigned to its keys.

    Parameters
    ----------
    places : mapping
        For each key the container of its value, and the key that the value has there.
    values : mapping
        The values, by the same keys.
    """

    __slots__ = ("_places",)

    def __init__(self, places: Mapping[Hashable, tuple[Any, Any]], values: Mapping[Hashable, Any]) -> None:
        self._places = dict(places)
        super().__init__(values)

    def __setitem__(self, key: Hashable, value: Any) -> None:
        if key not in self._places:
            raise KeyError(f"{key!r} is not among the keys, which are fixed: {', '.join(map(repr, self))}")
        container, own = self._places[key]
        container[own] = value
        super().__setitem__(key, value)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"the keys of a {type(self).__name__} are fixed; `dict(x)` is an ordinary dict of its values")

    __delitem__ = __ior__ = pop = popitem = clear = setdefault = update = _refuse


class Tree(Places):
    """The flat view of nested containers; made by `tree`.

    Assigning to a key replaces the value in the nested container too. Keys cannot be added or removed.
    """

    __slots__ = ("_nested",)

    def __init__(self, nested: Any) -> None:
        self._nested = nested
        places: dict[Hashable, tuple[Any, Any]] = {}
        values: dict[Hashable, Any] = {}
        for path, container, key, value in _leaves(nested, "", ()):
            if path in places:
                raise ValueError(f"two values have the path {path!r}; give one of them another key")
            places[path], values[path] = (container, key), value
        super().__init__(places, values)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._nested,)


def _leaves(nested: Any, prefix: str, around: tuple[int, ...]) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield path, container, key and value of each leaf; ``around`` are the ``id`` of the containers around it."""
    if id(nested) in around:
        raise ValueError(f"the container at {prefix.rstrip('/')!r} contains itself")
    for key, value in nested.items() if isinstance(nested, Mapping) else enumerate(nested):
        path = f"{prefix}{key}"
        if isinstance(value, Mapping | list | tuple):
            yield from _leaves(value, f"{path}/", (*around, id(nested)))
        else:
            yield path, nested, key, value


def tree(nested: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> Tree:
    """Return a flat view of nested dicts, lists and tuples, which ``update``, groups and checkpoints take.

    The key of a value is its path, such as ``"layer1/W"`` or ``"layers/0/b"``. The values are the same objects, so an
    update of the view is one of the nested arrays. A new number is assigned to the container that has it.

    Parameters
    ----------
    nested : dict, list or tuple
        Parameters, or gradients, which may also be `Rows`. Containers without values are left out.

    Returns
    -------
    Tree
        A dict of the values as they are now. If other arrays are assigned to the nested containers, make a new view;
        the state of an optimizer belongs to the keys.

    Raises
    ------
    TypeError
        If ``nested`` is no dict, list or tuple.
    ValueError
        If two values have the same path, or a container contains itself.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> params = {"layers": [{"W": np.ones((2, 2)), "b": np.zeros(2)}, {"W": np.ones(2)}], "scale": 1.0}
    >>> list(fo.tree(params))
    ['layers/0/W', 'layers/0/b', 'layers/1/W', 'scale']
    >>> grads = {"layers": [{"W": np.ones((2, 2)), "b": np.ones(2)}, {"W": np.ones(2)}], "scale": 2.0}
    >>> opt = fo.SGD(lr=0.25, groups={"*/b": {"lr": 0.5}})
    >>> opt.update(fo.tree(params), fo.tree(grads))
    >>> params["layers"][0]["b"], params["scale"]
    (array([-0.5, -0.5]), 0.5)
    """
    if not isinstance(nested, Mapping | list | tuple):
        raise TypeError(f"tree takes nested dicts, lists and tuples of arrays, not {type(nested).__name__}")
    return Tree(nested)
