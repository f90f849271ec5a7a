"""What ranks compute together, compared with one process; `test_mpi.py` runs this by ``mpiexec`` on 1 to 4 ranks.

``mpi_checks.py FOLDER`` prints the name of each check that has passed.
"""

import re
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from mpi4py import MPI

import fastoptim as fo
from fastoptim.mpi import RankError, Sharded

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
FOLDER = Path(sys.argv[1])

SHAPES = {
    "W1": (70, 50),
    "b1": (50,),
    "fortran": (60, 31),
    "W2": (211, 41),
    "cube": (3, 20, 11),
    "none": (0, 4),
    "s": (),
}


def arrays(*seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    made = {key: np.asarray(rng.standard_normal(shape), dtype) for key, shape in SHAPES.items()}
    made["fortran"] = np.asfortranarray(made["fortran"])
    return made


def gradients(step, rank=RANK, dtype=np.float32):
    return arrays(step, rank + 1, dtype=dtype)


def mean_gradients(step, dtype=np.float32):
    """The means over the ranks, added in their order."""
    wide = np.result_type(dtype, np.float32)
    total = {key: g.astype(wide) for key, g in gradients(step, 0, dtype).items()}
    for rank in range(1, SIZE):
        for key, g in gradients(step, rank, dtype).items():
            total[key] += g
    return {key: np.asarray(g / wide.type(SIZE), dtype) for key, g in total.items()}


def assert_same(ours, theirs, what):
    assert ours.keys() == theirs.keys(), what
    for key, array in ours.items():
        assert array.dtype == theirs[key].dtype, (what, key)
        assert array.shape == theirs[key].shape, (what, key)
        assert array.tobytes() == theirs[key].tobytes(), (what, key)


def is_fortran(_key, array):
    return array.ndim > 1 and not array.flags.c_contiguous


GROUPS = {"b*": {"lr": 0.1, "weight_decay": 0.0}, is_fortran: {"lr": fo.schedules.exponential(0.1, 0.9)}}

OPTIMIZERS = {
    "AdamW": lambda: fo.AdamW(fo.schedules.cosine(0.01, 20)),
    "clip_norm": lambda: fo.Nesterov(0.01, clip_norm=0.5, weight_decay=0.1),
    "LAMB": lambda: fo.LAMB(0.01, groups=GROUPS, frozen=["W2"]),
    "LARS": lambda: fo.LARS(0.01),
    "Prodigy": lambda: fo.Prodigy(clip_array_norm=1.0),
    "cautious": lambda: fo.AdamW(0.01, cautious=True, ema=0.9, groups=GROUPS),
    "Muon": lambda: fo.Muon(0.01, clip_norm=1.0),
    "Adafactor": lambda: fo.Adafactor(0.01),
    "centralize": lambda: fo.SGD(0.01, centralize=True, clip_norm=1.0),
    "accumulate": lambda: fo.NAdam(0.01, accumulate=2, lookahead=(2, 0.5)),
    "stochastic": lambda: fo.AdamW(0.01, state_dtype="bfloat16-stochastic", clip_norm=1.0),
}
EVERY = ["AdamW", "LAMB", "Muon"]
"""Those that are checked on each number of ranks; the others on 3."""


def check_bits(name):
    """Each step, the state and the file are those of one process; a file of one process continues on all ranks."""
    params, expected = arrays(0), arrays(0)
    sharded, one = Sharded(OPTIMIZERS[name]()), OPTIMIZERS[name]()
    for step in range(4):
        sharded.update(params, gradients(step))
        one.update(expected, mean_gradients(step))
    assert_same(params, expected, "params")
    for slot, arrays_of_slot in one._state.items():
        assert_same(sharded.gathered(slot, params), arrays_of_slot, slot)
    files = FOLDER / f"{name}-{SIZE}", FOLDER / f"{name}-{SIZE}-one"
    sharded.save(files[0], params)
    if RANK == 0:
        one.save(files[1], expected)
    COMM.barrier()
    assert files[0].read_bytes() == files[1].read_bytes(), name
    COMM.barrier()
    sharded = Sharded(OPTIMIZERS[name]())
    params = arrays(1)
    sharded.load(files[1], params)
    assert_same(params, expected, "loaded")
    for step in range(4, 6):
        sharded.update(params, gradients(step))
        one.update(expected, mean_gradients(step))
    assert_same(params, expected, "resumed")


def check_dtypes():
    for p_dtype, g_dtype in ((np.float64, np.float32), (np.float16, np.float16), (ml_dtypes.bfloat16,) * 2):
        params, expected = arrays(0, dtype=p_dtype), arrays(0, dtype=p_dtype)
        sharded, one = Sharded(fo.Nesterov(0.01, clip_norm=0.5)), fo.Nesterov(0.01, clip_norm=0.5)
        for step in range(3):
            sharded.update(params, gradients(step, dtype=g_dtype))
            one.update(expected, mean_gradients(step, dtype=g_dtype))
        assert_same(params, expected, p_dtype)


def check_averaged():
    """Gradients that are the same everywhere are not sent, and lists and flat dicts are taken."""
    params, expected = fo.flatten(arrays(0)), arrays(0)
    sharded, one = Sharded(fo.AdaGrad(0.1, clip_norm=1.0), averaged=True), fo.AdaGrad(0.1, clip_norm=1.0)
    a, b = [*arrays(0).values()], [*arrays(0).values()]
    of_list, one_of_list = Sharded(fo.Adam()), fo.Adam()
    for step in range(3):
        sharded.update(params, gradients(step, 0))
        one.update(expected, gradients(step, 0))
        of_list.update(a, [*gradients(step).values()])
        one_of_list.update(b, [*mean_gradients(step).values()])
    assert_same(params, expected, "averaged")
    assert_same(dict(enumerate(a)), dict(enumerate(b)), "list")


def check_memory():
    """Each rank has an n-th of the state."""
    params = {"W": np.ones((500, 401), np.float32), "b": np.ones(401, np.float32)}
    sharded = Sharded(fo.Adam())
    sharded.update(params, params)
    own = sum(array.size for array in sharded.optimizer.m.values())
    assert own <= 1.02 / SIZE * 501 * 401 + 1
    assert COMM.allreduce(own) == 501 * 401


def check_evaluation():
    params, expected = arrays(0), arrays(0)
    sharded, one = Sharded(fo.ScheduleFreeAdamW(0.01)), fo.ScheduleFreeAdamW(0.01)
    for step in range(3):
        sharded.update(params, gradients(step))
        one.update(expected, mean_gradients(step))
        with sharded.evaluation(params), one.evaluation(expected):
            assert_same(params, expected, "averages")
    assert_same(params, expected, "after evaluation")


class Failing(fo.SGD):
    """Raises an error in one step of the last rank."""

    def scalars(self):
        if self.iter == 3 and self.fails and RANK == SIZE - 1:
            raise ArithmeticError("no number")
        return super().scalars()


def expect(error, message, function, *args):
    with pytest.raises(error, match=re.escape(message) or None):
        function(*args)


def check_errors():
    """What one rank finds is raised on all, changes nothing, and the next step goes on."""
    last = RANK == SIZE - 1
    for clip in (None, 1.0):
        optimizer = Failing(0.1, clip_norm=clip)
        optimizer.fails = True
        sharded, params = Sharded(optimizer), arrays(0)
        for step in range(2):
            sharded.update(params, gradients(step))
        before = {key: array.copy("K") for key, array in params.items()}
        grads = gradients(2)

        def fails(error, message, *args, sharded=sharded, before=before, params=params):
            expected = error if last else RankError
            expect(expected, message if last else f"rank {SIZE - 1} raised {error.__name__}", sharded.update, *args)
            assert_same(params, before, message)
            assert sharded.optimizer.iter == 2

        fails(ArithmeticError, "no number", params, grads)
        optimizer.fails = False
        fails(KeyError, "no gradient of 'b1'", params, {k: g for k, g in grads.items() if k != "b1" or not last})
        fails(ValueError, "shape", params, {k: g[:-1] if k == "W1" and last else g for k, g in grads.items()})
        rows = fo.Rows(np.array([0]), np.ones((1, 50), np.float32))
        fails(TypeError, "of type Rows", params, {k: rows if k == "W1" and last else g for k, g in grads.items()})
        fails(TypeError, "int64", params, {k: g.astype(int) if k == "W1" and last else g for k, g in grads.items()})
        fails(
            ValueError,
            "has shape",
            {k: np.ascontiguousarray(p) if k == "fortran" and last else p for k, p in params.items()},
            grads,
        )
        fails(ValueError, "has gaps", {k: p[::-1] if k == "W1" and last else p for k, p in params.items()}, grads)
        if SIZE > 1:
            optimizer.lr = 0.1 * (1 + last)
            expect(ValueError, "but rank", sharded.update, params, grads)
            optimizer.lr = 0.1
            expect(
                ValueError,
                "float64",
                sharded.update,
                params,
                {k: g.astype(float) if last else g for k, g in grads.items()},
            )
        assert_same(params, before, "differing ranks")
        sharded.update(params, grads)
        assert sharded.optimizer.iter == 3


def check_nonfinite():
    """All ranks skip a step, or raise the same error, if any part of a gradient is not finite."""
    params = arrays(0)
    sharded = Sharded(fo.Adam(on_nonfinite="skip"))
    grads = gradients(0)
    sharded.update(params, grads)
    before = {key: array.copy("K") for key, array in params.items()}
    if RANK == 0:
        grads["W1"].flat[3] = np.nan
    sharded.update(params, grads)
    assert_same(params, before, "skipped")
    assert (sharded.optimizer.iter, sharded.optimizer.skipped) == (1, 1)
    sharded.optimizer.on_nonfinite = "raise"
    expect(FloatingPointError, "'W1'", sharded.update, params, grads)
    assert_same(params, before, "raised")
    sharded.update(params, gradients(1))
    assert sharded.optimizer.iter == 2


def check_files():
    """Files that do not fit, and folders that are not there, are errors on all ranks that change nothing."""
    params = arrays(0)
    sharded = Sharded(fo.Adam())
    first = (lambda error: error) if RANK == 0 else (lambda _: RankError)
    expect(first(FileNotFoundError), "", sharded.load, FOLDER / "none", params)
    expect(first(OSError), "", sharded.save, FOLDER / "none" / "file", params)
    if RANK == 0:
        fo.SGD().save(FOLDER / f"SGD-{SIZE}", params)
        fo.Adam().save(FOLDER / f"Adam-{SIZE}", {"W1": params["W1"]})
        fo.Adam().save(FOLDER / f"bare-{SIZE}")
    expect(first(ValueError), "SGD" if RANK == 0 else "rank 0", sharded.load, FOLDER / f"SGD-{SIZE}", params)
    expect(first(ValueError), "lacks the keys" if RANK == 0 else "", sharded.load, FOLDER / f"Adam-{SIZE}", params)
    expect(first(ValueError), "without parameters" if RANK == 0 else "", sharded.load, FOLDER / f"bare-{SIZE}", params)
    sharded.update(params, gradients(0))
    assert sharded.optimizer.iter == 1


def check_other_ranks():
    """A file of another number of ranks is that of this number."""
    names = {path.name for path in FOLDER.glob("AdamW-[0-9]")}
    for name in sorted(names - {f"AdamW-{SIZE}"}):
        params, sharded = arrays(1), Sharded(fo.AdamW(fo.schedules.cosine(0.01, 20)))
        sharded.load(FOLDER / name, params)
        sharded.save(FOLDER / f"{name}-of-{SIZE}", params)
        COMM.barrier()
        assert (FOLDER / f"{name}-of-{SIZE}").read_bytes() == (FOLDER / name).read_bytes()


def main():
    names = [name for name in OPTIMIZERS if SIZE == 3 or name in EVERY]
    checks = {f"bits of {name}": lambda name=name: check_bits(name) for name in names}
    others = [check_memory, check_other_ranks]
    if SIZE < 4:
        others += [check_dtypes, check_averaged, check_evaluation, check_errors, check_nonfinite, check_files]
    checks |= {check.__name__: check for check in others}
    for name, check in checks.items():
        check()
        if RANK == 0:
            print(name, flush=True)


if __name__ == "__main__":
    main()
