"""What ranks send each other: whether all are well, gradients, parameters and state."""

from __future__ import annotations

import atexit
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np
from mpi4py import MPI

from fastoptim.mpi.shards import Bucket
from fastoptim.update.validate import Array

__all__ = ["RankError", "Team", "message_limit"]

_LIMITS = 64 << 10, 1 << 20, 64 << 20
"""Bytes: the least and the most of a message, and about the most that is received at a time from all ranks."""

_AHEAD = 2
"""Number of buckets that are received at a time."""

_PATIENCE_S = 5.0
"""For how long a rank that has no error of its own waits for the one that has, before it ends all."""

_PASSING_ON_S = 0.5
"""For how long the last message of a rank is given time to reach the terminal."""


def message_limit(n_ranks: int) -> int:
    """Return the number of bytes of a message."""
    return max(_LIMITS[0], min(_LIMITS[1], _LIMITS[2] // n_ranks))


class RankError(RuntimeError):
    """Another rank has raised an error, or has ended."""


class Team:
    """The ranks of a communicator, which go through each step together.

    A rank calls `agree` before all that needs the others. If one has failed, it says so at that point, and all raise.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        It is duplicated, so that no other messages are mistaken for those sent here.

    Attributes
    ----------
    comm : mpi4py.MPI.Comm
        The duplicate.
    rank, size : int
        The number of this rank, and of all.
    limit : int
        The number of bytes of a message.
    may_fail : bool
        Whether the next that the others call is `agree`, which tells them of an error. Where it is not, as after
        `agree` until what follows is exchanged, an error ends all processes.
    """

    def __init__(self, comm: Any) -> None:
        self.comm = comm.Dup()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.may_fail = True
        self._failed: BaseException | None = None
        self.limit = message_limit(self.size)
        if self.size > 1:
            _end_all_by_errors()
            atexit.register(self._leave)

    # Errors.

    def agree(self, number: int = 0, describe: Callable[[], str] = str) -> None:
        """Return once all ranks have come here.

        Parameters
        ----------
        number : int
            What must be the same on all ranks.
        describe : function
            Returns its meaning.

        Raises
        ------
        RankError
            If another rank has failed.
        ValueError
            If the ranks differ.
        """
        if self.size == 1:
            return
        ours = self._exchange_flags(0, number)
        if ours[0]:
            self._raise_first("")
        if ours[1] != -ours[2]:
            texts = self.comm.allgather(describe())
            rank = next(k for k, other in enumerate(texts) if other != texts[0])
            self.may_fail = True
            raise ValueError(f"rank 0 has {texts[0]}, but rank {rank} has {texts[rank]}; all ranks must have the same")

    def _exchange_flags(self, failed: int, number: int) -> list[int]:
        # An interruption in here could come before or after the others know.
        self.may_fail = False
        flags = np.array([failed, number, -number], np.int64)
        self.comm.Allreduce(MPI.IN_PLACE, flags, MPI.MAX)
        return list(flags.tolist())

    def _raise_first(self, message: str) -> None:
        messages = self.comm.allgather(message)
        first = next(rank for rank, each in enumerate(messages) if each)
        self.may_fail = True
        if not message:
            raise RankError(f"rank {first} {messages[first]}")
        _followers[:] = [] if first == self.rank else [self._failed]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Tell the other ranks of an error in a ``with`` block, or end all where they could not know."""
        if self.size == 1:
            yield
            return
        self.may_fail = True
        try:
            yield
        except RankError:
            raise
        except BaseException as error:
            if not self.may_fail:
                _end_all(error)
            self._failed = error
            self._exchange_flags(1, 0)
            self._raise_first(f"raised {type(error).__name__}: {error}")
            self._failed = None
            raise

    def _leave(self) -> None:
        """Tell ranks that are inside of a step that this one has ended."""
        with suppress(RankError):
            self._exchange_flags(1, 0)
            self._raise_first("has ended, but other ranks are still in a step")

    # Arrays.

    def _others(self) -> list[int]:
        """Return the other ranks, beginning after this one, so that not all send to the same at once."""
        return [(self.rank + k) % self.size for k in range(1, self.size)]

    def mean(self, arrays: Sequence[Array], buckets: Sequence[list[Bucket]], out: Sequence[Array]) -> None:
        """Compute the means over all ranks of the elements that this rank has.

        Parameters
        ----------
        arrays : sequence of ndarray
            The whole arrays of this rank, each along one axis.
        buckets : sequence of list of Bucket
            What each rank has.
        out : sequence of ndarray
            Gets the means, for each bucket of this rank. Each is ``(a0 + a1 + …) / n``, in the order of the ranks, so
            the bits depend on the arrays alone; numbers of 16 bits are added in float32, and rounded once.
        """
        own, others = buckets[self.rank], self._others()
        waiting: deque[tuple[Any, list[Array]]] = deque()

        def receive(bucket: Bucket) -> None:
            parts = [np.empty(bucket.size, bucket.dtype) for _ in others]
            requests = [self._receive(part, rank) for part, rank in zip(parts, others, strict=True)]
            waiting.append((requests, parts))

        for bucket in own[:_AHEAD]:
            receive(bucket)
        sends = []
        for k in range(max(map(len, buckets))):
            sends += [self._send(_packed(arrays, buckets[d][k]), d) for d in others if k < len(buckets[d])]
        for k, bucket in enumerate(own):
            requests, parts = waiting.popleft()
            MPI.Request.Waitall(requests)
            if k + _AHEAD < len(own):
                receive(own[k + _AHEAD])
            in_order = dict(zip(others, parts, strict=True)) | {self.rank: _packed(arrays, bucket)}
            _average([in_order[rank] for rank in range(self.size)], out[k])
        MPI.Request.Waitall([request for request, _ in sends])

    def gather(
        self,
        own: Sequence[Any],
        buckets: Sequence[list[Bucket]],
        whole: Sequence[Any],
        root: int | None = None,
    ) -> None:
        """Send what each rank has of arrays to all ranks, or to one.

        Parameters
        ----------
        own : sequence of ndarray
            What this rank has of each array, along one axis.
        buckets : sequence of list of Bucket
            What each rank has.
        whole : sequence of ndarray
            The whole arrays, each along one axis, where the parts of other ranks are written; empty where none are
            received.
        root : int, optional
            The rank that receives; all if it is None.
        """
        requests, copies = [], []
        if whole:
            for rank in self._others():
                for bucket in buckets[rank]:
                    if len(bucket.parts) == 1:
                        ((k, start, stop),) = bucket.parts
                        target = whole[k][start:stop]
                    else:
                        target = np.empty(bucket.size, bucket.dtype)
                        copies.append((bucket, target))
                    requests.append(self._receive(target, rank))
        firsts: dict[int, int] = {}
        kept = []
        for bucket in buckets[self.rank]:
            for part in bucket.parts:
                firsts.setdefault(part.array, part.start)
            message = _packed(own, bucket, firsts)
            sent = [
                self._send(message, rank)
                for rank in ([root] if root is not None else self._others())
                if rank != self.rank
            ]
            requests += [request for request, _ in sent]
            kept.append(sent)
        MPI.Request.Waitall(requests)
        for bucket, source in copies:
            at = 0
            for k, start, stop in bucket.parts:
                whole[k][start:stop] = source[at : at + stop - start]
                at += stop - start

    def broadcast(self, array: Array) -> None:
        """Give an array, which is along one axis and without gaps, the elements that it has on rank 0."""
        data = array.view(np.uint8)
        for start in range(0, len(data), self.limit):
            self.comm.Bcast([data[start : start + self.limit], MPI.BYTE])

    def _send(self, array: Array, rank: int) -> tuple[Any, Array]:
        # The array must live until it is sent.
        return self.comm.Isend([array.view(np.uint8), MPI.BYTE], rank), array

    def _receive(self, array: Array, rank: int) -> Any:
        return self.comm.Irecv([array.view(np.uint8), MPI.BYTE], rank)


def _packed(arrays: Sequence[Array], bucket: Bucket, firsts: Any = None) -> Array:
    """Return the elements of a bucket, one after the other; a view if they are of one array."""
    ranges = ((k, start, stop, 0 if firsts is None else firsts[k]) for k, start, stop in bucket.parts)
    parts = [arrays[k][start - first : stop - first] for k, start, stop, first in ranges]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _average(parts: Sequence[Array], out: Array) -> None:
    total = out if out.dtype.itemsize > 2 else np.empty(out.shape, np.float32)
    # Gradients that are not finite are the optimizer's to judge.
    with np.errstate(all="ignore"):
        np.add(parts[0], parts[1], out=total, dtype=total.dtype)
        for part in parts[2:]:
            total += part.astype(total.dtype, copy=False)
        total /= len(parts)
        if total is not out:
            out[...] = total


# Ending all processes.

_followers: list[BaseException | None] = []
"""The error of this rank of which another one tells, as that failed in the same step and comes first."""


def _end_all(error: BaseException) -> None:
    traceback.print_exception(error)
    _abort()


def _abort() -> None:
    sys.stderr.flush()
    # mpiexec drops what it has not passed on when it ends all.
    time.sleep(_PASSING_ON_S)
    MPI.COMM_WORLD.Abort(1)


@cache
def _end_all_by_errors() -> None:
    """Let an uncaught error of any rank end all, because the others would wait for it; only one rank tells of it."""
    before = sys.excepthook

    def hook(kind: Any, error: BaseException, trace: Any) -> None:
        if isinstance(error, RankError) or any(error is other for other in _followers):
            time.sleep(_PATIENCE_S)
        before(kind, error, trace)
        _abort()

    sys.excepthook = hook
