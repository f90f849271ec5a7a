import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import requests

from fastoptim import mnist
from fastoptim.mnist import MnistUnavailableError, load_mnist, read_idx

REAL_MNIST = os.environ.get("FASTOPTIM_DATA")

# A few images of the real size instead of 70,000.
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
SHAPES = dict(zip(mnist.FILES, [(7, 28, 28), (7,), (3, 28, 28), (3,)], strict=True))


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def publish(monkeypatch, folder, arrays):
    """Write the files and register their checksums as the published ones."""
    files = {}
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        packed = gzip.compress(idx(array))
        (folder / name).write_bytes(packed)
        files[name] = hashlib.sha256(packed).hexdigest(), array.shape
    monkeypatch.setattr(mnist, "FILES", files)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(256 if len(shape) == 3 else 10, size=shape, dtype=np.uint8) for name, shape in SHAPES.items()
    }


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder that does not exist yet; FASTOPTIM_DATA is unset and there are no mirrors."""
    monkeypatch.delenv("FASTOPTIM_DATA", raising=False)
    monkeypatch.setattr(mnist, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(mnist, "MIRRORS", ())
    return tmp_path / "cache" / "fastoptim"


@pytest.fixture
def folder(tmp_path, monkeypatch, arrays):
    publish(monkeypatch, tmp_path / "mnist", arrays)
    return tmp_path / "mnist"


class Files(http.server.SimpleHTTPRequestHandler):
    """A file server; the method `behavior`, if set, answers instead."""

    behavior = None
    stop = None

    def do_GET(self):
        if self.behavior is None:
            super().do_GET()
        else:
            with contextlib.suppress(OSError):
                self.behavior()

    def begin(self, **headers):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def content(self):
        return (Path(self.directory) / self.path[1:]).read_bytes()

    def page(self):
        self.begin()
        self.wfile.write(b"<html>Please log in</html>")

    def half(self):
        content = self.content()
        self.begin(Content_Length=len(content))
        self.wfile.write(content[: len(content) // 2])

    def half_of_unknown_length(self):
        content = self.content()
        self.begin()
        self.wfile.write(content[: len(content) // 2])

    def silence(self):
        self.stop.wait(20)

    def silence_after_half(self):
        self.half()
        self.stop.wait(20)

    def forbidden(self):
        self.send_error(403)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    """A function that starts a server of a folder, with a behavior if one is named, and returns its address."""
    servers = []
    stop = threading.Event()

    def start(folder, behavior=None):
        ways = {"behavior": getattr(Files, behavior) if behavior else None, "stop": stop}
        handler = functools.partial(type("Handler", (Files,), ways), directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    stop.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("one_hot_label", [True, False])
def test_arrays(folder, arrays, normalize, flatten, one_hot_label):
    pixels, digits = arrays[IMAGES], arrays[LABELS]
    (x, t), (x_test, t_test) = load_mnist(normalize, flatten, one_hot_label, folder=folder)

    ref = pixels.reshape((7, 784) if flatten else (7, 1, 28, 28))
    if normalize:
        ref = ref.astype(np.float32)
        ref /= 255.0
    assert x.dtype == ref.dtype
    np.testing.assert_array_equal(x, ref)
    assert x_test.shape == (3, *ref.shape[1:])
    if one_hot_label:
        assert t.dtype == np.float64
        np.testing.assert_array_equal(t, [[float(digit == k) for k in range(10)] for digit in digits])
        assert t_test.shape == (3, 10)
    else:
        np.testing.assert_array_equal(t, digits)
        assert t_test.shape == (3,)
    for array in (x, t, x_test, t_test):
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_folder_from_environment(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTOPTIM_DATA", str(folder))
    assert load_mnist()[0][0].shape == (7, 784)
    with pytest.raises(FileNotFoundError):
        load_mnist(folder=tmp_path / "given")
    with pytest.raises(FileNotFoundError):
        load_mnist(folder=folder / IMAGES)


def test_wrong_folder_is_an_error_despite_a_valid_cache(folder, cache, monkeypatch, tmp_path):
    cache.parent.mkdir()
    folder.rename(cache)
    assert load_mnist()[0][0].shape == (7, 784)
    monkeypatch.setenv("FASTOPTIM_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"{IMAGES} does not exist: .*FASTOPTIM_DATA, must hold {IMAGES}, "):
        load_mnist()


@pytest.mark.parametrize("damage", ["truncated", "longer", "flipped bit", "HTML", "empty"])
def test_damaged_file(folder, damage):
    whole = (folder / LABELS).read_bytes()
    flipped = bytes([*whole[:20], whole[20] ^ 1, *whole[21:]])
    damaged = {
        "truncated": whole[:-1],
        "longer": whole + b"\0",
        "flipped bit": flipped,
        "HTML": b"<html>",
        "empty": b"",
    }
    (folder / LABELS).write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=f"{LABELS} is damaged or another file .*: replace it"):
        load_mnist(folder=folder)


def test_every_truncation_and_bit_flip_is_detected(folder):
    path = folder / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    cuts = [whole[:length] for length in range(len(whole))]
    flips = [bytes([*whole[:k], whole[k] ^ 1 << bit, *whole[k + 1 :]]) for k in range(len(whole)) for bit in range(8)]
    for damaged in cuts + flips:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged or another file"):
            load_mnist(folder=folder)


posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes, links, devices and sparse files")

# How to create what is not a regular file, and the error that it causes.
NOT_A_FILE = {
    "nothing": (Path.exists, "does not exist"),
    "folder": (Path.mkdir, "is not a file"),
    "pipe": (lambda path: os.mkfifo(path), "is not a file"),
    "link to nothing": (lambda path: path.symlink_to("nowhere"), "does not exist"),
    "link to itself": (lambda path: path.symlink_to(path), "does not exist"),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "is not a file"),
}


@posix
@pytest.mark.parametrize("thing", NOT_A_FILE)
def test_non_regular_file_is_refused(folder, thing):
    make, error = NOT_A_FILE[thing]
    path = folder / IMAGES
    path.unlink()
    make(path)
    with pytest.raises(FileNotFoundError, match=f"^{path} {error}: a data folder, .*FASTOPTIM_DATA, must hold"):
        load_mnist(folder=folder)


@posix
def test_links_are_followed(folder, tmp_path):
    (tmp_path / "links").mkdir()
    for name in mnist.FILES:
        (tmp_path / "links" / name).symlink_to(folder / name)
    assert load_mnist(folder=tmp_path / "links")[0][0].shape == (7, 784)


def test_unreadable_file(folder, monkeypatch):
    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=rf"{IMAGES} cannot be read \(Permission denied\): .*FASTOPTIM_DATA"):
        load_mnist(folder=folder)


@posix
def test_huge_file_is_not_read_whole(folder):
    with (folder / IMAGES).open("wb") as stream:
        stream.truncate(1 << 40)
    tracemalloc.start()
    with pytest.raises(ValueError, match="is damaged or another file"):
        load_mnist(folder=folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * mnist._LARGEST


@pytest.mark.parametrize("made", [False, True])
def test_environment_names_a_non_folder(tmp_path, monkeypatch, made):
    if made:
        (tmp_path / "data").touch()
    monkeypatch.setenv("FASTOPTIM_DATA", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(str(tmp_path / 'data'))} is not a folder: a data folder"):
        load_mnist()


def test_empty_environment_variable_is_ignored(folder, cache, monkeypatch):
    cache.parent.mkdir()
    folder.rename(cache)
    monkeypatch.setenv("FASTOPTIM_DATA", "")
    assert load_mnist()[0][0].shape == (7, 784)


def test_read_idx(arrays):
    comp = read_idx(gzip.compress(idx(arrays[IMAGES])), (7, 28, 28))
    np.testing.assert_array_equal(comp, arrays[IMAGES])


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


NOT_GZIP, NOT_IDX = "not a whole gzip file", "not an IDX file"


@pytest.mark.parametrize(
    ("error", "packed"),
    [
        pytest.param(NOT_GZIP, gzip.compress(GOOD)[:-9], id="truncated"),
        pytest.param(NOT_GZIP, gzip.compress(GOOD)[:5], id="truncated header"),
        pytest.param(NOT_GZIP, gzip.compress(GOOD)[:-5] + b"\0" * 5, id="wrong sum"),
        pytest.param(NOT_GZIP, gzip.compress(GOOD)[:10] + b"\xff" * 20, id="wrong deflate block"),
        pytest.param(NOT_GZIP, b"<html></html>", id="HTML"),
        pytest.param(NOT_IDX, b"", id="empty"),
        pytest.param(NOT_IDX, gzip.compress(b"\1" + GOOD[1:]), id="wrong magic"),
        pytest.param(NOT_IDX, gzip.compress(GOOD.replace(b"\x08\x02", b"\x09\x02")), id="signed bytes"),
        pytest.param(NOT_IDX, gzip.compress(GOOD[:-1]), id="too short"),
        pytest.param(NOT_IDX, gzip.compress(GOOD + b"\0"), id="too long"),
        pytest.param(NOT_IDX, gzip.compress(idx(np.zeros((3, 2), np.uint8))), id="wrong counts"),
        pytest.param(NOT_IDX, gzip.compress(idx(np.zeros(6, np.uint8))), id="too few axes"),
    ],
)
def test_read_idx_of_other_data(packed, error):
    with pytest.raises(ValueError, match=f"^the file is {error}.*: replace it$"):
        read_idx(packed, (2, 3), "the file")


def test_read_idx_does_not_decompress_a_bomb():
    bomb = gzip.compress(GOOD + bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="not an IDX file"):
        read_idx(bomb, (2, 3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_download_skips_bad_mirrors_and_fills_the_cache(folder, cache, serve, monkeypatch, tmp_path):
    mirrors = "http://127.0.0.1:9/", serve(folder, "page"), serve(tmp_path), serve(folder, "half"), serve(folder)
    monkeypatch.setattr(mnist, "MIRRORS", mirrors)
    assert load_mnist()[0][0].shape == (7, 784)
    assert {path.name for path in cache.iterdir()} == set(mnist.FILES)
    monkeypatch.setattr(mnist, "MIRRORS", ())
    assert load_mnist()[0][0].shape == (7, 784)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_download_shows_a_bar_on_a_terminal(folder, serve, monkeypatch, is_terminal):
    # Its messages go to what standard error is when it is imported.
    pytest.importorskip("pooch")
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(mnist, "MIRRORS", (serve(folder),))
    load_mnist()
    assert [name in stream.getvalue() for name in mnist.FILES] == [is_terminal] * 4
    assert ("%|" in stream.getvalue()) == is_terminal


@posix
@pytest.mark.parametrize("thing", ["half a file", "nothing", "link to nothing"])
def test_damaged_cache_is_repaired(folder, cache, serve, monkeypatch, thing):
    monkeypatch.setattr(mnist, "MIRRORS", (serve(folder),))
    cache.mkdir(parents=True)
    if thing == "half a file":
        (cache / IMAGES).write_bytes(b"half a fi")
    else:
        NOT_A_FILE[thing][0](cache / IMAGES)
    assert load_mnist()[0][0].shape == (7, 784)


BAD_SERVERS = {
    "page": "does not match the known hash",
    "half": "IncompleteRead",
    "half_of_unknown_length": "does not match the known hash",
    "silence": "http.* is unreachable or too slow",
    "silence_after_half": "http.* is unreachable or too slow",
    "forbidden": "403",
}


@pytest.mark.parametrize("behavior", BAD_SERVERS)
def test_bad_server_is_given_up_within_seconds(folder, cache, serve, monkeypatch, behavior):
    monkeypatch.setattr(mnist, "MIRRORS", (serve(folder, behavior), serve(folder, behavior)))
    monkeypatch.setattr(mnist, "TIMEOUT_S", (0.5, 0.5))
    start = time.monotonic()
    with pytest.raises(
        MnistUnavailableError, match=rf"downloaded \(.*{BAD_SERVERS[behavior]}.*\): set FASTOPTIM"
    ) as error:
        load_mnist()
    assert "\n" not in str(error.value)
    assert not any(cache.glob("*"))
    assert time.monotonic() - start < 5


def test_unreachable_mirrors_are_named(cache, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/", "http://127.0.0.1:10/"))
    reason = "http://127.0.0.1:9/ is unreachable or too slow; http://127.0.0.1:10/ is unreachable or too slow"
    with pytest.raises(MnistUnavailableError, match=rf"\({reason}\): set FASTOPTIM_DATA"):
        load_mnist()
    assert not any(cache.glob("*"))


def test_timeouts_reach_requests(monkeypatch):
    asked = []

    def get(url, timeout, **_):
        asked.append((url, timeout))
        raise requests.ConnectTimeout

    monkeypatch.setattr(requests, "get", get)
    monkeypatch.setattr(mnist, "MIRRORS", ("a/", "b/"))
    with pytest.raises(MnistUnavailableError):
        load_mnist()
    assert asked == [("a/" + IMAGES, (1.0, 4.0)), ("b/" + IMAGES, (1.0, 4.0))]


@posix
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_unwritable_cache(folder, serve, monkeypatch, error):
    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(mnist, "MIRRORS", (serve(folder),))
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(MnistUnavailableError, match=f"{error.strerror}.*: set FASTOPTIM_DATA to a folder with"):
        load_mnist()


@posix
def test_cache_folder_cannot_be_created(folder, cache, serve, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (serve(folder),))
    cache.parent.touch()
    with pytest.raises(MnistUnavailableError, match=r"(Errno 20|Errno 17|File exists).*: set FASTOPTIM_DATA"):
        load_mnist()


def test_user_without_home(monkeypatch, tmp_path):
    monkeypatch.setattr(mnist, "user_cache_path", lambda name: Path("~/.cache") / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MnistUnavailableError, match="without HOME: set FASTOPTIM_DATA"):
        load_mnist()
    assert not any(tmp_path.iterdir())


DOWNLOAD = """
import json, sys
from fastoptim import mnist
files, mnist.MIRRORS = json.loads(sys.argv[1])
mnist.FILES = {name: (sha256, tuple(shape)) for name, (sha256, shape) in files.items()}
(x, _), _ = mnist.load_mnist(normalize=False)
print(x.sum())
"""


@posix
def test_concurrent_downloads(folder, serve, arrays, tmp_path):
    job = json.dumps([mnist.FILES, [serve(folder)]])
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "home")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DOWNLOAD, job], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, int(out or 0)) == (0, arrays[IMAGES].sum()), err
    assert {path.name for path in (tmp_path / "home" / "fastoptim").iterdir()} == set(mnist.FILES)


@pytest.mark.parametrize("name", ["pooch", "requests", "tqdm"])
def test_without_pooch(folder, cache, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"needs {name}: pip install 'fastoptim\[compare\]', or set FASTOPTIM_DATA"):
        load_mnist()
    cache.parent.mkdir()
    folder.rename(cache)
    assert load_mnist()[0][0].shape == (7, 784)


@pytest.mark.skipif(not REAL_MNIST, reason="FASTOPTIM_DATA does not name a folder with MNIST")
def test_real_mnist(monkeypatch):
    monkeypatch.setenv("FASTOPTIM_DATA", REAL_MNIST)
    (x_train, t_train), (x_test, t_test) = load_mnist()
    assert x_train.shape == (60_000, 784)
    assert x_test.shape == (10_000, 784)
    assert (x_train.min(), x_train.max()) == (0.0, 1.0)
    assert t_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert t_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(t_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
