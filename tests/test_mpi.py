"""Optimizers divided among 1 to 4 ranks of MPI, as processes of their own."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastoptim as fo
import mpi_launch
import script

pytestmark = pytest.mark.skipif(not mpi_launch.mpiexec(), reason="mpi4py or mpiexec is not installed")

TESTS = Path(__file__).parent


def run(n_ranks, *arguments, timeout=200):
    """Run a script on some ranks; what still runs after the time is an error."""
    command, environment = mpi_launch.command(n_ranks, *arguments), mpi_launch.environment()
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def test_ranks_compute_what_one_process_does(tmp_path):
    """Four starts of many checks, one after the other, because each reads the files of those before."""
    for n_ranks in (1, 2, 3, 4):
        done = run(n_ranks, TESTS / "mpi_checks.py", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr
        assert len(done.stdout.splitlines()) == {1: 11, 2: 11, 3: 19, 4: 5}[n_ranks]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 / 0 if rank == 1 else update(grads)", "ZeroDivisionError: division by zero"),
        ("update({})", "KeyError: \"grads has no gradient of 'w'"),
        ("sys.exit(3) if rank == 1 else update(grads)", "RankError: rank 1 has ended"),
    ],
    ids=["elsewhere", "on all", "exit"],
)
def test_an_error_of_one_rank_ends_all_with_one_message(tmp_path, line, message):
    source = f"""
import sys
import numpy as np
import fastoptim as fo
import fastoptim.mpi.team
from fastoptim.mpi import Sharded
from mpi4py import MPI
rank = MPI.COMM_WORLD.rank
fastoptim.mpi.team._PATIENCE_S = 2.5
params, grads, opt = {{"w": np.ones(2000)}}, {{"w": np.ones(2000)}}, Sharded(fo.SGD())
update = lambda grads: opt.update(params, grads)
update(grads)
{line}
update(grads)
"""
    (tmp_path / "fails.py").write_text(source, encoding="utf-8")
    done = run(2, tmp_path / "fails.py", timeout=30)
    assert done.returncode != 0
    text = done.stdout + done.stderr
    assert text.count("Traceback") == 1, text
    assert message in text


def test_a_killed_rank_ends_all_and_leaves_a_whole_file():
    argv = [sys.executable, *script.WARNINGS, TESTS / "soak_mpi.py", "2"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=200).stdout
    assert re.match(r"2 kills, \d of them in the middle of a file, [1-9]\d* steps", out)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("sizes", "whole"),
    [
        ([10_000, 3, 0, 7000], [False] * 4),
        ([10_000, 3, 0, 7000], [True] * 4),
        ([4000, 100_000, 8000], [True, False, True]),
        ([90_000, 1000, 512], [True, False, False]),
        ([], []),
        ([0], [False]),
    ],
)
def test_arrays_are_divided_evenly(sizes, whole, n_ranks):
    from fastoptim.kernels.strided import BLOCK
    from fastoptim.mpi.shards import divide

    parts = divide(sizes, whole, n_ranks)
    covered = sorted(part for each in parts for part in each)
    for k, size in enumerate(sizes):
        own = [part for part in covered if part.array == k]
        assert [0, *(part.stop for part in own)] == [*(part.start for part in own), size]
        assert all(part.start % BLOCK == 0 for part in own)
        assert len(own) <= 1 or not whole[k]
    loads = [sum(part.stop - part.start for part in each) for each in parts]
    largest = max([size for size, is_whole in zip(sizes, whole, strict=True) if is_whole], default=0)
    assert max(loads) <= max(largest, np.ceil(sum(sizes) / n_ranks) + max(largest, BLOCK))


def test_wrong_arguments():
    from fastoptim.mpi import Sharded

    for arguments, message in (
        ({"optimizer": fo.SGD}, "an optimizer such as fo.AdamW(), not <class"),
        ({"comm": 3}, "comm must be a communicator such as MPI.COMM_WORLD, not 3"),
        ({"averaged": "yes"}, "averaged must be True or False, not 'yes'"),
    ):
        with pytest.raises(TypeError, match=re.escape(message)):
            Sharded(**{"optimizer": fo.SGD(), **arguments})
    with pytest.raises(AttributeError, match="'lr'"):
        Sharded(fo.SGD()).lr = 0.1


def test_sums_of_blocks_are_added_in_order():
    from fastoptim.mpi.shards import Shards
    from fastoptim.update.validate import validate

    class Alone:
        rank, size = 0, 1
        may_fail = True
        comm = property(lambda self: self)

        def agree(self):
            """No other rank can have failed."""

        def Allgatherv(self, local, gathered):
            gathered[0][...] = local

    shards = Shards(validate({"w": np.ones(2048)}, {"w": np.ones(2048)}), [False], Alone())
    blocks = np.array([[1e16], [1.0], [-1e16], [3.0]])
    assert shards.total(["w"], [blocks], np.zeros((1, 1))) == 3.0


def test_the_core_does_not_import_mpi(tmp_path):
    script.run("import sys, fastoptim; fastoptim.Adam(); assert 'mpi4py' not in sys.modules", tmp_path)
