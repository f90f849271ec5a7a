"""Optimizers that share their work and their state among the processes of MPI: each updates a part of all arrays."""

from fastoptim._optional import imported_for

with imported_for("fastoptim.mpi", "'fastoptim[mpi]'"):
    from fastoptim.mpi.sharded import Sharded
    from fastoptim.mpi.team import RankError

__all__ = ["RankError", "Sharded"]
