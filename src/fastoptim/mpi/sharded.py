"""Optimizers that share their work and their state among the processes of MPI: each updates a part of all arrays."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from mpi4py import MPI

from fastoptim.arguments import check_object, true_or_false
from fastoptim.mpi.inputs import check_forms, check_inputs, describe, divide_arrays
from fastoptim.mpi.shards import Bucket, Dtypes, Shards, make_buckets
from fastoptim.mpi.states import gather_slot, load, save
from fastoptim.mpi.team import Team
from fastoptim.optimizer import Optimizer
from fastoptim.serialize import StrPath
from fastoptim.update.validate import Array, Parameter, Parameters

__all__ = ["Sharded"]


class Sharded:
    """An optimizer of which each rank of MPI has a part: of n ranks, each has an n-th of the state and of the work.

    In a step, each rank gets the means over all ranks of its part of the gradients, updates its part of the parameters,
    and sends it to all others. Each has all parameters, which must be the same at the first update. This is stage 1 of
    ZeRO (Rajbhandari et al. 2020).

    Parameters
    ----------
    optimizer : Optimizer
        A new optimizer, the same on all ranks, with any transforms, groups and schedules.
    comm : mpi4py.MPI.Comm, optional
        The ranks; the default is ``MPI.COMM_WORLD``.
    averaged : bool
        Whether the gradients given to `update` are the same on all ranks already, so that none are sent.

    Attributes
    ----------
    optimizer : Optimizer
        As given. Its hyperparameters may be changed between updates, on all ranks alike. Its state is that of this
        rank's part: an array of one axis for each parameter; see `gathered`.

    Raises
    ------
    TypeError
        If ``optimizer`` is not an optimizer of this package, ``comm`` no communicator, or ``averaged`` no bool.
    ValueError
        If it was updated before.

    Notes
    -----
    The mean is ``(g0 + g1 + …) / n``, added in the order of the ranks. The result of a step has the bits of one process
    that is given this mean, for any number of ranks, also where a step needs norms or sums over arrays.

    Arrays are cut at multiples of 512 elements. Rules of whole arrays, such as `fastoptim.Muon`, and ``centralize`` do
    not cut those that they need as a whole; these go to one rank each, so n should be far below their number.

    An error on any rank is raised on all in the same call, as itself where it arose and as `RankError` on the others,
    and nothing has changed. An error that is not caught on one rank, in a step or elsewhere, ends all processes.

    References
    ----------
    S. Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models", SC 2020, section 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> from fastoptim.mpi import Sharded
    >>> params = {"w": np.ones(3)}
    >>> opt = Sharded(fo.SGD(lr=0.5))
    >>> opt.update(params, {"w": np.array([1.0, 0.0, -1.0])})
    >>> params["w"]
    array([0.5, 1. , 1.5])
    """

    optimizer: Optimizer

    # ``sharded.lr = 0.1`` is a mistake for ``sharded.optimizer.lr = 0.1``, and without slots nothing would say so.
    __slots__ = ("_averaged", "_buckets", "_means", "_shards", "_team", "optimizer")

    def __init__(self, optimizer: Any, comm: Any = None, *, averaged: bool = False) -> None:
        check_object("optimizer", optimizer, Optimizer, "an optimizer such as fo.AdamW()")
        if optimizer.iter or optimizer._state is not None or optimizer._shards is not None:
            raise ValueError("the optimizer has made a step already: pass a new one, and read a file by Sharded.load")
        comm = MPI.COMM_WORLD if comm is None else comm
        check_object("comm", comm, MPI.Comm, "a communicator such as MPI.COMM_WORLD")
        self.optimizer, self._averaged = optimizer, true_or_false("averaged", averaged)
        self._team = Team(comm)
        self._shards: Shards | None = None
        self._buckets: dict[Dtypes, list[list[Bucket]]] = {}
        self._means: dict[Dtypes, tuple[list[Array], dict[Hashable, Array]]] = {}

    def __repr__(self) -> str:
        return f"Sharded({self.optimizer!r}, rank {self._team.rank} of {self._team.size})"

    def update(self, params: Parameters, grads: Parameters) -> None:
        """Update all parameters in place, on all ranks.

        Parameters
        ----------
        params : dict or list
            Arrays without gaps in memory, of float16, bfloat16, float32 or float64; or CPU tensors of torch. Keys,
            shapes, dtypes and memory orders are the same in all updates, and on all ranks.
        grads : dict or list
            The gradients of this rank, an array for each key of ``params``.

        Raises
        ------
        RankError
            If another rank has raised an error.
        TypeError
            If a parameter or gradient is a number or `fastoptim.Rows`, or of another dtype.
        ValueError
            If a parameter has gaps, or another form than at the first update; or if the ranks differ in parameters,
            hyperparameters or the dtypes of gradients.

            Other errors are those of `fastoptim.Optimizer.update`. After any of these, parameters and state are
            unchanged.
        """
        team, optimizer = self._team, self.optimizer
        with team.together():
            shards, parameters = self._checked(params, grads)
            team.agree(*describe(self.optimizer, shards, parameters))
            means = self._averages(shards, parameters)
            own = shards.own({each.key: each.p for each in parameters})
            team.may_fail, steps = True, optimizer.iter
            with self._patterns_see(params):
                optimizer.update(shards.pieces(own), shards.pieces(means))
            if optimizer.iter != steps:
                self._gather(shards, own, parameters)

    def _checked(self, params: Any, grads: Any) -> tuple[Shards, list[Parameter]]:
        """Return how arrays are divided, which is final once there is state, and those that are not frozen."""
        optimizer = self.optimizer
        parameters = check_inputs(optimizer, params, grads)
        if self._shards is None or optimizer._state is None:
            self._shards = vars(optimizer)["_shards"] = divide_arrays(optimizer, parameters, self._team)
            self._buckets.clear()
        check_forms(optimizer, self._shards, parameters)
        return self._shards, parameters

    @contextmanager
    def _patterns_see(self, params: Any) -> Iterator[None]:
        """Let functions of groups be called with whole arrays, which the optimizer does not get."""
        fields = vars(self.optimizer)
        arrays = dict(params.items() if isinstance(params, Mapping) else enumerate(params))
        fields["_groups"] = replace(fields["_groups"], arrays=arrays)
        try:
            yield
        finally:
            fields["_groups"] = replace(fields["_groups"], arrays=None)

    def _averages(self, shards: Shards, parameters: Sequence[Parameter]) -> dict[Hashable, Array]:
        """Return the mean gradients of this rank's part."""
        grads = {each.key: each.g for each in parameters}
        if self._averaged or self._team.size == 1:
            return shards.own(grads)
        buckets = self._buckets_of(shards, grads)
        kinds = shards.dtypes(grads)
        if kinds not in self._means:
            # Memory for one kind of gradients is enough.
            self._means = {kinds: shards.places(buckets[self._team.rank], grads)}
        out, means = self._means[kinds]
        self._team.mean(shards.flats(grads), buckets, out)
        return means

    def _gather(self, shards: Shards, own: Mapping[Hashable, Array], parameters: Sequence[Parameter]) -> None:
        """Write the parts of the other ranks to whole arrays."""
        arrays = {each.key: each.p for each in parameters}
        parts = [own.get(key) for key in shards.keys]
        self._team.gather(parts, self._buckets_of(shards, arrays), shards.flats(arrays))

    def _buckets_of(self, shards: Shards, arrays: Mapping[Hashable, Array]) -> list[list[Bucket]]:
        """Return the messages with the parts of each rank."""
        kinds = shards.dtypes(arrays)
        if kinds not in self._buckets:
            self._buckets[kinds] = [make_buckets(parts, kinds, self._team.limit) for parts in shards.parts]
        return self._buckets[kinds]

    # State.

    def gathered(self, name: str, params: Parameters) -> dict[Hashable, Array]:
        """Return a slot of the state, such as ``"m"``, or the averages of ``ema``, ``"averaged"``, on all ranks.

        Parameters
        ----------
        name : str
            Name of the slot.
        params : dict or list
            The parameters.

        Returns
        -------
        dict
            An array for each parameter that has state.

        Raises
        ------
        RankError
            If another rank has raised an error.
        ValueError
            If there is no such state, as before the first update.
        """
        with self._team.together():
            shards, _ = self._checked(params, params)
            state = self.optimizer._state or {}
            if name not in state:
                raise ValueError(f"there is no state {name!r} after {self.optimizer.iter} updates, only {[*state]}")
            self._team.agree()
            return gather_slot(self._team, shards, self.optimizer, name)

    def save(self, path: StrPath, params: Parameters) -> None:
        """Write optimizer and parameters to one file: the bytes of `fastoptim.Optimizer.save` in one process.

        Rank 0 writes it, and needs memory for the whole state meanwhile. When the call returns, on all ranks, the file
        is complete; after a crash there is either the old file or the new one.

        Parameters
        ----------
        path : path
            An existing file is replaced. Only rank 0 uses it.
        params : dict or list
            The parameters.

        Raises
        ------
        RankError
            If another rank has raised an error.
        OSError, TypeError, ValueError
            On rank 0, as by `fastoptim.Optimizer.save`.
        """
        with self._team.together():
            shards, _ = self._checked(params, params)
            save(self._team, shards, self.optimizer, path, params)

    def load(self, path: StrPath, params: Parameters) -> None:
        """Restore optimizer and parameters from a file that any number of ranks, or one process, has written.

        Parameters
        ----------
        path : path
            Only rank 0 reads it, and needs memory for all of it meanwhile.
        params : dict or list
            The parameters, which are written in place on all ranks.

        Raises
        ------
        RankError
            If another rank has raised an error.
        OSError, TypeError, ValueError
            As by `fastoptim.Optimizer.load`, or if the file has no parameters. Nothing is changed then.
        """
        with self._team.together():
            shards, parameters = self._checked(params, params)
            self._team.agree(*describe(self.optimizer, shards, parameters))
            self._team.may_fail = True
            load(self._team, shards, self.optimizer, path, params)

    @contextmanager
    def evaluation(self, params: Parameters) -> Iterator[None]:
        """Make the parameters their averages inside a ``with`` block, as `fastoptim.ScheduleFreeSGD.evaluation` does.

        Parameters
        ----------
        params : dict or list
            The parameters, which are restored when the block ends.

        Raises
        ------
        RankError
            If another rank has raised an error.
        AttributeError
            If the optimizer has no ``evaluation``.
        """
        with ExitStack() as stack:
            with self._team.together():
                shards, parameters = self._checked(params, params)
                own = shards.own({each.key: each.p for each in parameters})
                averages = self.optimizer.evaluation(shards.pieces(own))  # type: ignore[attr-defined]
                self._team.agree()
                # What the other ranks have is restored from copies, so that the end of the block needs no other rank.
                stack.callback(_restore, [(each.p, each.p.copy("K")) for each in parameters])
                with self._patterns_see(params):
                    stack.enter_context(averages)
                self._gather(shards, own, parameters)
            yield


def _restore(pairs: Sequence[tuple[Array, Array]]) -> None:
    for array, before in pairs:
        np.copyto(array, before)
