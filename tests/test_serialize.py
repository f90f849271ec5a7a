"""A checkpoint file is read whole or refused, is replaced in one step, and cannot allocate more than its own size."""

import hashlib
import json
import os
import pickle
import re
import stat
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastoptim as fo
import mutations
import script
from fastoptim import _files
from naive import assert_bits
from states import mixed, small, snapshot, trained

# Damaged and forged files


@pytest.fixture
def saved(tmp_path):
    """The bytes of a saved optimizer, and a function that checks that other bytes are refused and change nothing."""
    opt, params = small()
    path = tmp_path / "checkpoint"
    opt.save(path, params)
    opt.update(params, params)
    before = snapshot(opt, params)

    def refused(data, message="damaged, or not a checkpoint"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            opt.load(path, params)

    yield path.read_bytes(), refused
    assert snapshot(opt, params) == before


def test_file_cut_at_any_byte(saved):
    data, refused = saved
    for size in range(len(data)):
        refused(data[:size])
    refused(data + b"\0")
    refused(data + data)


def test_file_with_any_bit_flipped(saved):
    data, refused = saved
    for k in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[k // 8] ^= 1 << k % 8
        refused(flipped)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 1000, b"\xff" * 1000, b"PK\x03\x04", pickle.dumps({"a": 1}), b"{}" * 100]
)
def test_other_files(saved, data):
    saved[1](data)


def test_large_file_of_another_kind_is_not_read(tmp_path):
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ValueError, match="not a checkpoint"):
        fo.load(tmp_path / "large")


def test_file_that_cannot_be_opened(tmp_path):
    for path in tmp_path / "missing", tmp_path, tmp_path / "missing" / "checkpoint":
        with pytest.raises(OSError, match=re.escape(str(path))):
            fo.load(path)
        with pytest.raises(OSError, match=re.escape(str(path))):
            fo.Adam().load(str(path))


def forged(data, change):
    """Return the file with a changed header and the correct checksum."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["fastoptim"])
    text = change(header, about)
    if not isinstance(text, str) or not text.startswith("{"):
        header["__metadata__"]["fastoptim"] = json.dumps(about)
        text = json.dumps(header)
    data = len(text).to_bytes(8, "little") + text.encode() + data[8 + length : -32]
    return data + hashlib.sha256(data).digest()


FIRST = 'params["W"]'
NESTED = '{"__metadata__": {"fastoptim": ' + "[" * 100_000
FORGED = {
    "a later version": (lambda _, a: a.update(format=2), "format 2"),
    "a later version with another form": (lambda _, a: a.update(format=2, params="W"), "format 2"),
    "terabytes": (lambda h, _: h[FIRST].update(shape=[1 << 40]), "not a checkpoint"),
    "more than any memory": (lambda h, _: h[FIRST].update(shape=[1 << 62, 1 << 62]), "not a checkpoint"),
    "terabytes of nothing": (lambda h, _: h[FIRST].update(shape=[1 << 62, 0, 1 << 62]), "not a checkpoint"),
    "negative sizes": (lambda h, _: h[FIRST].update(shape=[-2]), "not a checkpoint"),
    "fractional sizes": (lambda h, _: h[FIRST].update(shape=[1.0, 2.0]), "not a checkpoint"),
    "a shape that is text": (lambda h, _: h[FIRST].update(shape="12"), "not a checkpoint"),
    "an unknown dtype": (lambda h, _: h[FIRST].update(dtype="O"), "not a checkpoint"),
    "an array missing": (lambda h, _: h.pop(FIRST), "not a checkpoint"),
    "a key that is a dict": (lambda _, a: a["params"].append([{}, []]), "not a checkpoint"),
    "wrong axes": (lambda _, a: a["params"][0].__setitem__(1, [0, 0, -1]), "not a checkpoint"),
    "axes too far": (lambda _, a: a["params"][0].__setitem__(1, [7, 0]), "not a checkpoint"),
    "no metadata": (lambda *_: '{"__metadata__": {"fastoptim": 3}}', "not a checkpoint"),
    "no JSON": (lambda *_: '{"__metadata__": {"fastoptim"', "not a checkpoint"),
    "depth": (lambda *_: NESTED, "not a checkpoint"),
    "a hyperparameter that is an object": (lambda _, a: a["hyperparameters"].update(lr={"x": 1}), "lr"),
    "a number that is none": (lambda _, a: a["hyperparameters"].update(lr={"numpy.int8": 300}), "not a checkpoint"),
    "no class": (lambda _, a: a.pop("class"), "not a class|not a state dict"),
    "a function as class": (lambda _, a: a.update({"class": "os.system"}), "system, which is not a class|not of a"),
    "a function of the package as class": (
        lambda _, a: a.update({"class": "fastoptim.load_mnist"}),
        "not a class|not of a",
    ),
    "a base class": (lambda _, a: a.update({"class": "fastoptim.Optimizer"}), "not a class|not of a"),
    "no network": (lambda _, a: a.update({"class": "fastoptim.MultiLayerNet"}), "network|items|not of a"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_file_allocates_little_and_changes_nothing(saved, kind, tmp_path):
    data, refused = saved
    change, message = FORGED[kind]
    data = forged(data, change)
    tracemalloc.start()
    try:
        refused(data, message)
        (tmp_path / "other").write_bytes(data)
        params = small()[1]
        with pytest.raises(ValueError, match=f"{message}|without params"):
            fo.load(tmp_path / "other", params)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["hyperparameters"].update(hidden_size_list=[1 << 40]),
        lambda a: a["hyperparameters"].update(hidden_size_list=[1 << 40], input_size=-1, output_size=0),
        lambda a: a["hyperparameters"].update(hidden_size_list=None),
        lambda a: a["hyperparameters"].update(activation="eval"),
        lambda a: a["hyperparameters"].update(dtype="O"),
        lambda a: a["hyperparameters"].update(weight_decay_lambda="0"),
        lambda a: a["hyperparameters"].update(weight_init_std=1),
        lambda a: a["hyperparameters"].pop("dtype"),
        lambda a: a.update(hyperparameters=[]),
        lambda a: a.update(hyperparameters={"numpy.int8": 1}),
        lambda a: a.update(params=None),
        lambda a: a.update(iter=1),
        lambda a: a["params"].pop(),
    ],
)
def test_forged_network(change, tmp_path):
    path, net = tmp_path / "checkpoint", fo.MultiLayerNet(4, [5, 3], 2, weight_decay_lambda=0.1, seed=0)
    net.save(path)
    path.write_bytes(forged(path.read_bytes(), lambda _, about: change(about) and None))
    before = pickle.dumps(net)
    tracemalloc.start()
    try:
        for load in fo.load, net.load:
            with pytest.raises(ValueError, match="checkpoint"):
                load(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert pickle.dumps(net) == before


# Files that lie about what they hold


def test_mutations_with_right_checksums():
    assert mutations.main(300) > 0


def test_sizes_that_wrap_around(tmp_path):
    path = tmp_path / "checkpoint"
    fo.MultiLayerNet(1, [1], 1, seed=0).save(path)
    # (65536 + 1) * 65535 + 1 wraps around in 32 bits.
    sizes = {"input_size": {"numpy.uint32": 65536}, "hidden_size_list": [{"numpy.uint32": 65536}]}
    path.write_bytes(forged(path.read_bytes(), lambda _, a: a["hyperparameters"].update(sizes)))
    with pytest.raises(ValueError, match="plain integers"):
        fo.load(path)


def costs(path):
    """Return the message of the error, the seconds and the bytes that a file costs."""
    tracemalloc.start()
    start = time.thread_time()
    try:
        with pytest.raises((OSError, ValueError)) as error:
            fo.load(path)
        return str(error.value), time.thread_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def grown(data, header):
    """Return a file with another header and the right checksum, of which the header is as large as it may be."""
    length = int.from_bytes(data[:8], "little")
    data = len(header).to_bytes(8, "little") + header + data[8 + length : -32]
    return data + hashlib.sha256(data).digest()


BEGIN = b'{"__metadata__": {"fastoptim": "{\\"format\\": 1}"}, "sha256": 0, "a": '
HEADERS = {
    "nothing but brackets": lambda size: BEGIN + b"[" + b"{}," * (size // 3) + b"0]}",
    "huge numbers": lambda size: (
        BEGIN + b'{"dtype": "F32", "shape": [' + (b"9" * 4300 + b",") * (size // 4301) + b"0]}}"
    ),
    "one long string": lambda size: BEGIN + b'"' + b"long" * (size // 4) + b'"}',
}


@pytest.mark.parametrize("kind", HEADERS)
def test_header_costs_little(saved, kind, tmp_path):
    path = tmp_path / "other"
    for size in 1 << 19, 1_000_000, 10_000_000:
        path.write_bytes(grown(saved[0], HEADERS[kind](size)))
        message, seconds, memory = costs(path)
        assert len(message) <= 300
        assert message.isprintable()
        assert seconds < 1
        assert memory < 4 * size + (32 << 20)


def test_array_named_many_times_is_copied_once(tmp_path):
    path = tmp_path / "checkpoint"
    params = {"W": np.ones((1000, 2000)).T}
    fo.SGD().save(path, params)
    path.write_bytes(forged(path.read_bytes(), lambda _, a: a.update(params=a["params"] * 400)))
    message, seconds, memory = costs(path)
    assert "not a checkpoint" in message
    assert seconds < 1
    assert memory < 4 * path.stat().st_size


def test_array_that_belongs_to_nothing(saved):
    data, refused = saved
    refused(forged(data, lambda _, a: a["params"].pop()), "belong to nothing")


def test_message_is_one_printable_line(tmp_path):
    path = tmp_path / "checkpoint"
    fo.Adam().save(path, {"W": np.ones(2)})
    data = path.read_bytes()
    for text in "\x1b[2J\x07\n\u202e\ud800", "x" * 1_000_000:
        for change in (
            lambda _, a, text=text: a.update({"class": text}),
            lambda _, a, text=text: a.update({"format": text}),
            lambda _, a, text=text: a.update({text: 1}),
            lambda _, a, text=text: a["hyperparameters"].update({text: 1}),
            lambda _, a, text=text: a["hyperparameters"].update(lr=text),
            lambda _, a, text=text: a.update({"state": {text: []}}),
        ):
            path.write_bytes(forged(data, lambda h, a, change=change: change(h, a) and None))
            for load in fo.load, fo.Adam().load:
                with pytest.raises(ValueError, match=r".") as error:
                    load(path, {"W": np.ones(2)})
                assert 0 < len(str(error.value)) <= 300
                assert str(error.value).isprintable()
                assert len(str(error.value.__cause__)) <= 300


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        fo.load(tmp_path / "pipe")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_loop_of_links(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for call in fo.load, fo.SGD().save:
        with pytest.raises(OSError, match="a'"):
            call(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


def test_sparse_file_with_the_beginning_of_a_checkpoint(tmp_path):
    fo.SGD().save(tmp_path / "large")
    with (tmp_path / "large").open("r+b") as stream:
        stream.truncate(1 << 42)
    with pytest.raises(OSError, match="do not fit into memory"):
        fo.load(tmp_path / "large")


def test_arrays_too_many_and_too_small_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="use fewer, larger arrays"):
        fo.SGD().save(tmp_path / "checkpoint", [0.5] * 20_000)
    assert [*tmp_path.iterdir()] == []
    params = [0.5] * 8_000
    fo.SGD().save(tmp_path / "checkpoint", params)
    fo.load(tmp_path / "checkpoint", params)


# Writing


def assert_only(path, content):
    assert [*path.parent.iterdir()] == ([] if content is None else [path])
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("w", np.ones(2, np.longdouble), "'w' is of dtype"),
        ("w", np.ones(2, ">f4"), "'w' is of dtype"),
        (float("nan"), np.ones(2), "keys"),
        (b"w", np.ones(2), "keys"),
        (frozenset("w"), np.ones(2), "keys"),
        (("a", b"w"), np.ones(2), "keys"),
    ],
)
def test_value_that_cannot_be_written_leaves_the_old_file(key, value, message, tmp_path):
    if value.dtype == np.float64 != value.dtype.newbyteorder("="):
        pytest.skip("longdouble is float64 here")
    path = tmp_path / "checkpoint"
    for content in None, b"the old one":
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(TypeError, match=message):
            fo.Adam().save(path, {key: value})
        assert_only(path, content)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_full_disk_leaves_the_old_file(tmp_path):
    import resource

    path = tmp_path / "checkpoint"
    fo.Adam().save(path)
    content = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in 0, 100, 3000, 150_000:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                fo.Adam().save(path, {"w": np.ones(20_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert_only(path, content)
    fo.Adam().save(path, {"w": np.ones(20_000)})


def test_longest_file_name(tmp_path):
    path = tmp_path / ("é" * 120)
    for lr in 0.5, 0.25:
        fo.SGD(lr=lr).save(path)
        assert fo.load(path).lr == lr
    assert [*tmp_path.iterdir()] == [path]


def test_missing_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in tmp_path / "missing" / "checkpoint", tmp_path / "file" / "checkpoint", tmp_path:
        with pytest.raises(OSError, match=r"directory|denied|regular file"):
            fo.Adam().save(path)
    assert_only(tmp_path / "file", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot sync folders")
def test_file_and_folder_are_synced_in_order(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), events.append(stat.S_IFMT(os.fstat(file).st_mode))))
    monkeypatch.setattr(Path, "replace", lambda *paths: (replace(*paths), events.append("replace")))
    fo.Adam().save(tmp_path / "checkpoint")
    assert events == [stat.S_IFREG, "replace", stat.S_IFDIR]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_permissions_of_the_old_file_are_kept(tmp_path):
    path = tmp_path / "checkpoint"
    old = os.umask(0o027)
    try:
        fo.Adam().save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for mode in 0o600, 0o664, 0o444:
        path.chmod(mode)
        fo.Adam().save(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("failures", [2, 10**9])
def test_windows_replaces_a_file_when_its_readers_have_closed_it(tmp_path, monkeypatch, failures):
    """Windows refuses to replace a file that is open or read-only, and to delete one that is read-only."""
    path, attempts, replace = tmp_path / "checkpoint", [], Path.replace
    fo.SGD(lr=0.5).save(path)
    content = path.read_bytes()
    path.chmod(0o444)

    def refuse(temporary, target):
        attempts.append(temporary.stat().st_mode & stat.S_IWUSR)
        if len(attempts) <= failures:
            raise PermissionError(13, "Access is denied")
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(_files, "_IS_WINDOWS", True)
    if failures == 2:
        fo.SGD(lr=0.25).save(path)
        assert fo.load(path).lr == 0.25
    else:
        monkeypatch.setattr(_files, "_TIMEOUT_S", 0.05)
        with pytest.raises(PermissionError):
            fo.SGD(lr=0.25).save(path)
        assert_only(path, content)
    assert len(attempts) > 2
    assert all(attempts)
    path.chmod(0o644)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_symbolic_link_is_followed(tmp_path):
    path, link = tmp_path / "folder" / "checkpoint", tmp_path / "link"
    path.parent.mkdir()
    link.symlink_to(path)
    for lr in 0.5, 0.25:
        fo.SGD(lr=lr).save(link)
        assert link.is_symlink()
        assert fo.load(path).lr == fo.load(link).lr == lr
    assert [*path.parent.iterdir()] == [path]


def test_safetensors_library_reads_the_file(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    params = mixed(0)
    opt = trained(fo.Adam, params, 2)
    opt.save(tmp_path / "checkpoint", params)
    with safetensors.safe_open(tmp_path / "checkpoint", "np") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    data = (tmp_path / "checkpoint").read_bytes()
    assert len(read) == 3 * len(params) + 1
    assert read["sha256"].tobytes() == data[-32:] == hashlib.sha256(data[:-32]).digest()
    assert int.from_bytes(data[:8], "little") % 8 == 0, "readers would have to copy the arrays to align them"
    for group, arrays in {"params": params, "state.m": opt.m, "state.v": opt.v}.items():
        for key, array in arrays.items():
            assert_bits(array, read[f"{group}[{json.dumps(key)}]"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_killed_while_it_saves():
    soak = Path(__file__).with_name("soak_checkpoints.py")
    command = [sys.executable, *script.WARNINGS, soak, "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 kills")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        fo.SGD().save(tmp_path / "pipe")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
