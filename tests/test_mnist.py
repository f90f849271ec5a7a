import functools
import gzip
import hashlib
import http.server
import os
import struct
import sys
import threading
import time
import tracemalloc

import numpy as np
import pooch
import pytest

from fastoptim import mnist
from fastoptim.mnist import MnistUnavailableError, load_mnist, read_idx

REAL_MNIST = os.environ.get("FASTOPTIM_DATA")

# A few images of the true size, in place of 70,000.
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
SHAPES = dict(zip(mnist.FILES, [(7, 28, 28), (7,), (3, 28, 28), (3,)], strict=True))


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def publish(monkeypatch, folder, arrays):
    """Write the files and make their sums the published ones."""
    files = {}
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        packed = gzip.compress(idx(array))
        (folder / name).write_bytes(packed)
        files[name] = mnist._File(hashlib.sha256(packed).hexdigest(), array.shape)
    monkeypatch.setattr(mnist, "FILES", files)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(256 if len(shape) == 3 else 10, size=shape, dtype=np.uint8) for name, shape in SHAPES.items()
    }


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, no FASTOPTIM_DATA and no mirror."""
    monkeypatch.delenv("FASTOPTIM_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(mnist, "MIRRORS", ())
    return tmp_path / "cache" / "fastoptim"


@pytest.fixture
def folder(tmp_path, monkeypatch, arrays):
    publish(monkeypatch, tmp_path / "mnist", arrays)
    return tmp_path / "mnist"


@pytest.fixture
def serve():
    """A function that serves a folder, or an HTML page in place of every file, and returns the address."""
    servers = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(b"<html>Please log in</html>")

        def log_message(self, *args):
            pass

    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    def start(folder=None):
        handler = functools.partial(Files, directory=str(folder)) if folder else Page
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
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


def test_folder_of_the_environment(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTOPTIM_DATA", str(folder))
    assert load_mnist()[0][0].shape == (7, 784)
    with pytest.raises(FileNotFoundError):
        load_mnist(folder=tmp_path / "given")
    with pytest.raises(FileNotFoundError):
        load_mnist(folder=folder / IMAGES)


def test_folder_that_is_wrong_is_an_error_even_if_the_cache_is_right(folder, cache, monkeypatch, tmp_path):
    cache.parent.mkdir()
    folder.rename(cache)
    assert load_mnist()[0][0].shape == (7, 784)
    monkeypatch.setenv("FASTOPTIM_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"{IMAGES} does not exist: .*FASTOPTIM_DATA, must hold {IMAGES}, "):
        load_mnist()


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "HTML", "empty"])
def test_damaged_file(folder, damage):
    whole = (folder / LABELS).read_bytes()
    flipped = bytes([*whole[:20], whole[20] ^ 1, *whole[21:]])
    damaged = {"truncated": whole[:-1], "flipped bit": flipped, "HTML": b"<html>", "empty": b""}
    (folder / LABELS).write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=f"{LABELS} is damaged or another file .*: replace it"):
        load_mnist(folder=folder)


@pytest.mark.parametrize("name", [LABELS, "t10k-labels-idx1-ubyte.gz"])
def test_label_that_is_no_digit(folder, arrays, monkeypatch, name):
    arrays[name][2] = 10
    publish(monkeypatch, folder, arrays)
    with pytest.raises(ValueError, match="label 10: expected digits from 0 to 9"):
        load_mnist(folder=folder)


def test_read_idx(arrays):
    comp = read_idx(gzip.compress(idx(arrays[IMAGES])), (7, 28, 28))
    np.testing.assert_array_equal(comp, arrays[IMAGES])


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


NOT_GZIP, NOT_IDX = "not a whole gzip file", "not an IDX file"


@pytest.mark.parametrize(
    ("complaint", "packed"),
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
def test_read_idx_of_something_else(packed, complaint):
    with pytest.raises(ValueError, match=f"^the file is {complaint}.*: replace it$"):
        read_idx(packed, (2, 3), "the file")


def test_read_idx_does_not_unpack_a_bomb():
    bomb = gzip.compress(GOOD + bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="not an IDX file"):
        read_idx(bomb, (2, 3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_download_passes_over_a_bad_mirror_and_fills_the_cache(folder, cache, serve, monkeypatch, tmp_path):
    mirrors = "http://127.0.0.1:9/", serve(), serve(tmp_path), serve(folder)
    monkeypatch.setattr(mnist, "MIRRORS", mirrors)
    assert load_mnist()[0][0].shape == (7, 784)
    assert {path.name for path in cache.iterdir()} == set(mnist.FILES)
    monkeypatch.setattr(mnist, "MIRRORS", ())
    assert load_mnist()[0][0].shape == (7, 784)


def test_damaged_cache_is_mended(folder, cache, serve, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (serve(folder),))
    cache.mkdir(parents=True)
    (cache / IMAGES).write_bytes(b"half a fi")
    assert load_mnist()[0][0].shape == (7, 784)


@pytest.mark.parametrize(("html", "reason"), [(False, "no mirror answered"), (True, "hash")])
def test_not_to_be_had(cache, serve, monkeypatch, html, reason):
    monkeypatch.setattr(mnist, "MIRRORS", (serve(),) if html else ("http://127.0.0.1:9/",))
    complaint = f"could not be downloaded .*{reason}.*: set FASTOPTIM_DATA"
    with pytest.raises(MnistUnavailableError, match=complaint) as error:
        load_mnist()
    assert "\n" not in str(error.value)
    assert not any(cache.glob("*"))


def test_network_that_swallows_everything_costs_seconds(monkeypatch):
    released = threading.Event()

    class Silent:
        def __init__(self, timeout):
            pass

        def __call__(self, *_args, **_kwargs):
            released.wait(20)
            return False

    monkeypatch.setattr(pooch, "HTTPDownloader", Silent)
    monkeypatch.setattr(mnist, "MIRRORS", ("a", "b", "c"))
    monkeypatch.setattr(mnist, "PATIENCE", 0.2)
    start = time.monotonic()
    with pytest.raises(MnistUnavailableError, match=r"no mirror answered within 0.2 s"):
        load_mnist()
    released.set()
    assert time.monotonic() - start < 5


def test_without_pooch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install fastoptim\[compare\]"):
        load_mnist()


@pytest.mark.skipif(not REAL_MNIST, reason="FASTOPTIM_DATA does not name the folder of MNIST")
def test_real_mnist(monkeypatch):
    monkeypatch.setenv("FASTOPTIM_DATA", REAL_MNIST)
    (x_train, t_train), (x_test, t_test) = load_mnist()
    assert x_train.shape == (60_000, 784)
    assert x_test.shape == (10_000, 784)
    assert (x_train.min(), x_train.max()) == (0.0, 1.0)
    assert t_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert t_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(t_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
