"""State in memory-mapped files: `state_dir`."""

import copy
import inspect
import math
import mmap
import os
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import fastoptim as fo
import script
from fastoptim import mapped, threads
from fastoptim.family import FAMILY
from fastoptim.hyperparameters import Hyperparameter
from fastoptim.param_groups import ParamGroups
from fastoptim.update import segments


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let state that a test can afford be many blocks."""
    monkeypatch.setattr(segments, "BLOCK_BYTES", 1 << 12)


def arrays(seed, dtype=np.float32):
    """Return arrays in both orders, one that is strided, and one that is smaller than a page."""
    rng = np.random.default_rng(seed)
    return {
        "W": rng.standard_normal((60, 50)).astype(dtype),
        "F": np.asfortranarray(rng.standard_normal((40, 30)).astype(dtype)),
        "s": rng.standard_normal((30, 80)).astype(dtype)[:, ::2],
        "b": rng.standard_normal(17).astype(dtype),
    }


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".fastoptim"))


def journal(folder):
    return (folder / "journal").read_text().strip()


def same_bits(a, b):
    return all(a[key].tobytes() == b[key].tobytes() for key in a)


def run(optimizer, steps, params=None, seed=1):
    params = arrays(0) if params is None else params
    for k in range(steps):
        optimizer.update(params, arrays(seed + k))
    return params


compiled = pytest.mark.skipif(segments.DISABLED, reason="there are no kernels")

ACCUMULATING = partial(fo.Momentum, accumulate=2)
GROUPS = {"b*": {"lr": 0.3, "weight_decay": 0.0}}


@pytest.mark.parametrize(
    "make",
    [
        fo.SGD,
        partial(fo.AdaGrad, initial_accumulator=0.1),
        partial(fo.AdamW, groups=GROUPS, frozen=("F",)),
        partial(fo.AdamW, clip_norm=1.0, ema=0.9, lookahead=(2, 0.5), cautious=True),
        ACCUMULATING,
        fo.LAMB,
        fo.ScheduleFreeAdamW,
        fo.Prodigy,
        fo.Muon,
        fo.Adafactor,
    ],
    ids=[
        "SGD",
        "AdaGrad",
        "groups",
        "transforms",
        "accumulate",
        "LAMB",
        "ScheduleFreeAdamW",
        "Prodigy",
        "Muon",
        "Adafactor",
    ],
)
def test_bits_are_those_of_state_in_memory(make, tmp_path):
    ours = make(state_dir=tmp_path)
    params, expected = run(ours, 3), run(make(), 3)
    assert same_bits(params, expected)
    state = [array for slot in ours._state for array in ours._state[slot].values()]
    assert all(mapped.is_mapped(array) for array in state if array.size)
    assert len(files(tmp_path)) == len(ours._state)
    assert journal(tmp_path) == f"step {ours.iter + (make is ACCUMULATING)} finished"
    del ours, state
    assert files(tmp_path) == []


def test_gradients_that_change_the_dtype_of_state(tmp_path):
    ours, expected = fo.Momentum(state_dir=tmp_path), fo.Momentum()
    params, others = arrays(0), arrays(0)
    for dtype in (np.float32, np.float64):
        ours.update(params, arrays(1, dtype))
        expected.update(others, arrays(1, dtype))
        assert same_bits(params, others)
    assert ours.v["W"].dtype == np.float64
    assert mapped.is_mapped(ours.v["W"])


@compiled
@pytest.mark.parametrize("state_dtype", ["bfloat16", "bfloat16-stochastic"])
def test_state_of_bfloat16(state_dtype, tmp_path):
    pytest.importorskip("ml_dtypes")
    make = partial(fo.Adam, state_dtype=state_dtype)
    assert same_bits(run(make(state_dir=tmp_path), 3), run(make(), 3))
    assert files(tmp_path) == []


def test_rows_flat_dicts_and_threads(tmp_path):
    rng = np.random.default_rng(0)
    table, rows = rng.standard_normal((500, 40)), fo.Rows([3, 400, 3], rng.standard_normal((3, 40)))
    for name, params, grads in (
        ("rows", {"W": table}, {"W": rows}),
        ("flat", fo.flatten({"W": table}), fo.flatten({"W": table})),
    ):
        ours, expected = fo.Adam(state_dir=tmp_path / name), fo.Adam()
        a, b = copy.deepcopy(params), copy.deepcopy(params)
        with fo.num_threads(2):
            for _ in range(3):
                ours.update(a, grads)
                expected.update(b, grads)
        assert same_bits(a, b)
        assert same_bits(ours.v, expected.v)


@compiled
def test_a_step_goes_through_blocks_and_releases_them(tmp_path, monkeypatch):
    seen = []
    real = segments.calls
    monkeypatch.setattr("fastoptim.update.kerneltask.calls", lambda *args: seen.append(real(*args)) or seen[-1])
    optimizer = fo.Adam(state_dir=tmp_path)
    params = {k: np.zeros(n, np.float32) for k, n in enumerate((1000, 3, 5000))}
    optimizer.update(params, {k: np.ones_like(p) for k, p in params.items()})
    (program,) = seen
    blocks = [call for call in program if call[0] != mapped.madvise()]
    assert [first for *_, first, _ in blocks] == list(range(0, 6003, 512))
    assert [last for *_, last in blocks] == [*range(512, 6003, 512), 6003]
    released = [(start, start + size) for what, start, size, _ in program if what == mapped.madvise() != 0]
    for array in (*optimizer.m.values(), *optimizer.v.values()) if released else ():
        start = array.ctypes.data
        pages = range(start // mmap.PAGESIZE * mmap.PAGESIZE, start + array.nbytes, mmap.PAGESIZE)
        assert all(any(low <= page < high for low, high in released) for page in pages)


def test_files_are_gone_with_the_optimizer(tmp_path):
    optimizer = fo.Adam(state_dir=tmp_path / "a" / "b")
    run(optimizer, 2)
    assert optimizer.state_dir == str(tmp_path / "a" / "b")
    assert f"state_dir={optimizer.state_dir!r}" in repr(optimizer)
    assert files(tmp_path / "a" / "b") == ["m.float32.0.fastoptim", "v.float32.1.fastoptim"]
    del optimizer
    assert files(tmp_path / "a" / "b") == []
    assert journal(tmp_path / "a" / "b") == "closed"
    run(fo.Adam(state_dir=tmp_path / "a" / "b"), 1)


def test_checkpoints_are_those_of_state_in_memory(tmp_path):
    ours, expected = fo.Adam(state_dir=tmp_path / "state"), fo.Adam()
    params, others = run(ours, 2), run(expected, 2)
    ours.save(tmp_path / "ours", params)
    expected.save(tmp_path / "expected", others)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "expected").read_bytes()
    resumed = fo.Adam(state_dir=tmp_path / "resumed")
    resumed.load(tmp_path / "ours", params)
    assert mapped.is_mapped(resumed.m["W"])
    assert resumed.state_dir == str(tmp_path / "resumed")
    assert same_bits(run(resumed, 2, params), run(expected, 2, others))
    assert journal(tmp_path / "resumed") == "step 4 finished"
    resumed.load_state_dict(expected.state_dict())
    assert mapped.is_mapped(resumed.m["W"])
    damaged = bytearray((tmp_path / "ours").read_bytes())
    damaged[-40] ^= 1
    (tmp_path / "ours").write_bytes(damaged)
    with pytest.raises(ValueError, match="checksum"):
        resumed.load(tmp_path / "ours", params)


def test_copies_have_their_state_in_memory(tmp_path):
    optimizer = fo.Adam(state_dir=tmp_path)
    params = run(optimizer, 2)
    made = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    expected = run(optimizer, 2, copy.deepcopy(params))
    for each in made:
        assert each.state_dir is None
        assert not mapped.is_mapped(each.m["W"])
        assert same_bits(run(each, 2, copy.deepcopy(params)), expected)


def test_state_moves(tmp_path):
    optimizer, expected = fo.Adam(), fo.Adam()
    params, others = run(optimizer, 1), run(expected, 1)
    for k, folder in enumerate((tmp_path / "a", tmp_path / "b", None)):
        optimizer.state_dir = folder
        assert mapped.is_mapped(optimizer.m["W"]) == (folder is not None)
        assert same_bits(run(optimizer, 1, params, seed=k), run(expected, 1, others, seed=k))
    assert files(tmp_path / "a") == files(tmp_path / "b") == []
    optimizer.state_dir = tmp_path / "a"
    optimizer.m = arrays(5)
    assert mapped.is_mapped(optimizer.m["W"])
    assert same_bits(optimizer.m, arrays(5))


@pytest.mark.parametrize("options", [{}, {"on_nonfinite": "raise"}], ids=["plain", "checked"])
@pytest.mark.parametrize("value", [1.0, np.ones(3, np.longdouble), np.ones(3)], ids=["float", "longdouble", "float64"])
def test_every_way_of_binding_lets_go_of_the_files(value, options, tmp_path):
    optimizer, params = fo.Adam(state_dir=tmp_path, **options), {"x": value}
    for _ in range(2):
        optimizer.update(params, {"x": value})
    del optimizer
    assert files(tmp_path) == []


def test_parameters_that_join_later(tmp_path):
    """Those of torch without a gradient in the first step have their state in files as well."""
    results = []
    for optimizer in (fo.Adam(state_dir=tmp_path), fo.Adam()):
        groups, params = ParamGroups(optimizer), arrays(0)
        groups.set_members([list(params)])
        for keys in (["W", "b"], list(params), ["F"]):
            groups.follow([dict(groups.defaults)])
            groups.update(params, {key: arrays(1)[key] for key in keys})
        results.append(params)
        assert optimizer.m.keys() == params.keys()
        assert all(mapped.is_mapped(m) == (optimizer.state_dir is not None) for m in optimizer.m.values())
    assert same_bits(*results)


def test_a_folder_belongs_to_one_optimizer(tmp_path):
    optimizer = fo.Adam(state_dir=tmp_path)
    with pytest.raises(RuntimeError, match="in use by another optimizer"):
        fo.SGD(state_dir=tmp_path)
    params = run(optimizer, 1)
    with pytest.raises(RuntimeError, match="in use"):
        optimizer.state_dir = tmp_path
    run(optimizer, 1, params)


@pytest.mark.parametrize("name", FAMILY)
def test_a_constructor_that_fails_does_not_take_the_folder(name, tmp_path):
    cls = getattr(fo, name)
    own = [it for it in inspect.signature(cls).parameters if isinstance(cls._declared.get(it), Hyperparameter)]
    assert own
    for argument in own:
        # In a notebook, the traceback lives until the next error.
        with pytest.raises(ValueError, match=f"^{argument} must be") as kept:
            cls(**{argument: math.nan}, state_dir=tmp_path)
        fo.SGD(state_dir=tmp_path)
        del kept


def test_bad_folders(tmp_path):
    for bad in (3, ""):
        with pytest.raises(TypeError, match=f"state_dir must be the path of a folder, or None, not {bad!r}"):
            fo.Adam(state_dir=bad)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="state_dir must be a folder, not a file"):
        fo.Adam(state_dir=tmp_path / "file")


def test_other_files_of_the_folder_are_kept(tmp_path):
    own = [tmp_path / name for name in ("night.fastoptim", "adam.lr0.1.fastoptim", "m.float32.fastoptim")]
    for path in own:
        path.write_bytes(b"a checkpoint")
    (tmp_path / "journal").write_text("closed")
    (tmp_path / "m.float32.0.fastoptim").write_bytes(b"")
    run(fo.Adam(state_dir=tmp_path), 1)
    run(fo.Adam(state_dir=tmp_path), 1)
    assert sorted(tmp_path.iterdir()) == sorted([*own, tmp_path / "journal"])


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    optimizer, params = fo.Adam(state_dir=tmp_path), arrays(0)
    with pytest.raises(OSError, match=r"No space left.*m\.float32"):
        run(optimizer, 1, params)
    assert same_bits(params, arrays(0))
    assert (optimizer.iter, optimizer.m, files(tmp_path)) == (0, None, [])


def test_file_systems_that_cannot_reserve(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    assert same_bits(run(fo.Adam(state_dir=tmp_path), 2), run(fo.Adam(), 2))


def test_a_forked_process_writes_nothing(tmp_path, monkeypatch):
    optimizer = fo.Adam(state_dir=tmp_path)
    params = run(optimizer, 1)
    before, saved = copy.deepcopy(params), optimizer.state_dict()
    monkeypatch.setattr(os, "getpid", lambda: 0)
    with pytest.raises(RuntimeError, match="forked process shares"):
        run(optimizer, 1, params)
    with pytest.raises(RuntimeError, match="forked process shares"):
        optimizer.load_state_dict(saved)
    assert same_bits(params, before)
    assert (optimizer.iter, journal(tmp_path)) == (1, "step 1 finished")
    del optimizer
    assert journal(tmp_path) == "step 1 finished"
    assert files(tmp_path)


@compiled
def test_a_step_that_is_given_up_was_never_begun(tmp_path, monkeypatch):
    optimizer = fo.Adam(state_dir=tmp_path)
    params = run(optimizer, 1)
    seen = []

    def interrupted():
        seen.append(journal(tmp_path))
        raise KeyboardInterrupt

    optimizer._recompose()
    with monkeypatch.context() as patch:
        patch.setattr(threads, "run_short", lambda _: interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(optimizer, 1, params)
    assert (seen, journal(tmp_path), optimizer.iter) == (["step 2 begun"], "step 1 finished", 1)
    run(optimizer, 1, params)
    assert journal(tmp_path) == "step 2 finished"


class Interrupted:
    """The file of a journal; an interruption comes after the line that begins a step, or before one that ends it."""

    def __init__(self, stream, word):
        self.stream, self.word = stream, word

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, line):
        if self.word != b"finished" or self.word not in line:
            self.stream.write(line)
        if self.word in line:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("word", "steps", "line"), [(b"begun", 1, "step 1 finished"), (b"finished", 2, "step 2 begun")]
)
def test_an_interruption_while_the_journal_is_written(word, steps, line, tmp_path):
    optimizer, expected = fo.Adam(state_dir=tmp_path), fo.Adam()
    params, others = run(optimizer, 1), arrays(0)
    own = optimizer._files.journal
    own._stream = Interrupted(own._stream, word)
    with pytest.raises(KeyboardInterrupt):
        run(optimizer, 1, params)
    own._stream = own._stream.stream
    assert (optimizer.iter, journal(tmp_path)) == (steps, line)
    for _ in range(steps):
        run(expected, 1, others)
    assert same_bits(params, others)
    del optimizer, own
    assert journal(tmp_path) == "closed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_neither_keeps_the_lock_nor_makes_files(tmp_path):
    source = """
    import os, sys
    import numpy as np
    import fastoptim as fo
    params = {"w": np.ones(3)}
    opt = fo.Adam(state_dir=sys.argv[1])
    opt.update(params, params)
    saved, (end, begin) = opt.state_dict(), os.pipe()
    if (pid := os.fork()) == 0:
        os.close(begin)
        try:
            opt.load_state_dict(saved)
        except RuntimeError as error:
            os.read(end, 1)
            os._exit(7 if "forked process shares" in str(error) else 1)
        os._exit(2)
    del opt
    opt = fo.Adam(state_dir=sys.argv[1])
    os.close(begin)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert script.run(source, tmp_path, tmp_path / "adam") == "7"


@pytest.mark.parametrize("line", ["step 7 finished", "no step finished", "damaged \x00", ""])
def test_what_a_killed_process_leaves_is_never_continued(line, tmp_path):
    (tmp_path / "journal").write_text(line)
    (tmp_path / "m.float32.0.fastoptim").write_bytes(bytes(8))
    optimizer, params = fo.Adam(state_dir=tmp_path), arrays(0)
    with pytest.raises(RuntimeError, match=r"was in use by a process that was killed.*opt\.load\(path, params\)"):
        run(optimizer, 1, params)
    assert same_bits(params, arrays(0))
    del optimizer
    with pytest.raises(RuntimeError, match="cannot be continued"):
        run(fo.Adam(state_dir=tmp_path), 1)
    assert files(tmp_path) == ["m.float32.0.fastoptim"]
    optimizer, other = fo.Adam(), fo.Adam()
    run(optimizer, 1, params), run(other, 1, arrays(0))
    with pytest.raises(RuntimeError, match="cannot be continued"):
        optimizer.state_dir = tmp_path
    assert optimizer.state_dir is None
    assert files(tmp_path) == ["m.float32.0.fastoptim"]
    assert same_bits(run(optimizer, 1, params), run(other, 1, params))
    for path in tmp_path.iterdir():
        path.unlink()
    run(fo.Adam(state_dir=tmp_path), 1)


def test_a_load_that_fails_leaves_what_was_left(tmp_path, monkeypatch):
    made, params = fo.Adam(), arrays(0)
    run(made, 2, params)
    made.save(tmp_path / "checkpoint", params)
    (tmp_path / "adam").mkdir()
    (tmp_path / "adam" / "journal").write_text("step 7 finished")
    optimizer, seen = fo.Adam(state_dir=tmp_path / "adam"), []

    def copyto(*_):
        seen.append(journal(tmp_path / "adam"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "copyto", copyto)
        with pytest.raises(KeyboardInterrupt):
            optimizer.load(tmp_path / "checkpoint", params)
    assert (seen, journal(tmp_path / "adam")) == (["load begun"], "step 7 finished")
    with pytest.raises(RuntimeError, match="step 7 finished"):
        run(optimizer, 1, params)
    del optimizer
    assert journal(tmp_path / "adam") == "step 7 finished"
    optimizer = fo.Adam(state_dir=tmp_path / "adam")
    optimizer.load(tmp_path / "checkpoint", params)
    assert journal(tmp_path / "adam") == "no step finished"
    others = copy.deepcopy(params)
    assert same_bits(run(optimizer, 1, params), run(made, 1, others))


CRASH = """
import os, sys
import numpy as np
import fastoptim as fo
from fastoptim import threads
from fastoptim.update import segments
from fastoptim.kernels import table

segments.BLOCK_BYTES, real = 1 << 12, threads.run_short
crashes = False

def run(program):
    if crashes:
        program[table.COUNT] = 1
    real(program)()
    if crashes:
        os.kill(os.getpid(), 9)

threads.run_short = lambda program: lambda: run(program)
folder = sys.argv[1]
params = {"w": np.memmap(f"{folder}/w", np.float32, "w+", shape=4096)}
opt = fo.Adam(state_dir=f"{folder}/adam")
for _ in range(3):
    opt.update(params, {"w": np.ones(4096, np.float32)})
opt.save(f"{folder}/checkpoint", params)
print("ready", flush=True)
sys.stdin.readline()
crashes = True
opt.update(params, {"w": np.ones(4096, np.float32)})
"""


@compiled
def test_a_crash_in_the_middle_of_a_step_is_found(tmp_path):
    command = [sys.executable, "-c", CRASH, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(RuntimeError, match="in use by another optimizer, of this process or another one"):
            fo.Adam(state_dir=tmp_path / "adam")
        process.communicate("\n")
    assert process.returncode
    optimizer = fo.Adam(state_dir=tmp_path / "adam")
    params, grads = {"w": np.array(np.memmap(tmp_path / "w", np.float32, "r"))}, {"w": np.ones(4096, np.float32)}
    assert len(np.unique(params["w"])) == 2  # torn
    torn = params["w"].copy()
    with pytest.raises(RuntimeError, match=r"says 'step 4 begun'.*parameters that lie in files, may be torn"):
        optimizer.update(params, grads)
    assert params["w"].tobytes() == torn.tobytes()
    assert len(files(tmp_path / "adam")) == 2
    optimizer.load(tmp_path / "checkpoint", params)
    optimizer.update(params, grads)
    expected, others = fo.Adam(), {"w": np.zeros(4096, np.float32)}
    for _ in range(4):
        expected.update(others, grads)
    assert same_bits(params, others)
    assert len(files(tmp_path / "adam")) == 2


LIMITED = """
import resource, sys
import numpy as np
import fastoptim as fo
from fastoptim.update import segments

MIB = 1 << 20
segments.BLOCK_BYTES = 4 * MIB

def status(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024

folder, grad = sys.argv[1], np.ones(MIB, np.float32)
with fo.num_threads(1):
    fo.Adam().update({"w": np.zeros(MIB, np.float32)}, {"w": grad})
    memory = np.memmap(f"{folder}/params", np.float32, "w+", shape=(8, MIB))
    params, grads = dict(enumerate(memory)), dict.fromkeys(range(8), grad)
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + 16 * MIB,) * 2)
    try:
        fo.Adam().update(params, grads)
        raise SystemExit("there is no limit")
    except MemoryError:
        pass
    opt = fo.Adam(state_dir=f"{folder}/adam")
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    for _ in range(2):
        opt.update(params, grads)
    # The parameters are 32 MiB of it.
    print(sum(a.nbytes for slot in (opt.m, opt.v) for a in slot.values()) / MIB, (status("VmHWM") - before) / MIB - 32)
    opt.save(f"{folder}/checkpoint")
    opt.load(f"{folder}/checkpoint")
    print((status("VmHWM") - before) / MIB - 32)
    opt.update(params, grads)
    assert memory.min() == memory.max() < 0
"""


@compiled
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this limit")
def test_state_four_times_the_limit_of_memory(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    state, peak, peak_of_checkpoint = map(float, done.stdout.split())
    assert state == 64
    assert peak < 16
    assert peak_of_checkpoint < 24
