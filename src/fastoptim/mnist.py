"""MNIST: read from disk or downloaded, and accepted only with the published SHA-256 checksums."""

import gzip
import hashlib
import math
import os
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from fastoptim._messages import one_line, short_errors
from fastoptim._optional import imported_for
from fastoptim.arguments import checked_path, true_or_false
from fastoptim.progress import progress_bar

__all__ = ["FILES", "MIRRORS", "MnistUnavailableError", "load_mnist", "read_idx"]

Split: TypeAlias = tuple[NDArray[Any], NDArray[Any]]


class MnistUnavailableError(OSError):
    """MNIST is not on this machine and could not be downloaded."""


# SHA-256 and shape of each file, in the order of the returned arrays.
FILES: dict[str, tuple[str, tuple[int, ...]]] = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        (60_000, 28, 28),
    ),
    "train-labels-idx1-ubyte.gz": ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", (60_000,)),
    "t10k-images-idx3-ubyte.gz": ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", (10_000, 28, 28)),
    "t10k-labels-idx1-ubyte.gz": ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", (10_000,)),
}

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

# Seconds to wait for a connection and for each read. requests tries all addresses of a mirror, often eight or more, so
# a firewall that drops packets costs a multiple of the first number.
TIMEOUT_S = (1.0, 4.0)

_WAY_OUT = "set FASTOPTIM_DATA to a folder with the four .gz files"

_LARGEST = 16 << 20  # bytes; the largest of the four files has 9.9 MB


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> tuple[Split, Split]:
    """Return the 60,000 training and 10,000 test images of MNIST with their labels.

    The four compressed files are read from ``folder``, else from the folder named by the environment variable
    ``FASTOPTIM_DATA``, else from the user's cache folder, into which missing or damaged files are downloaded.

    Parameters
    ----------
    normalize : bool
        Return pixels as float32 in [0, 1], that is ``pixel / 255``; otherwise as uint8 in [0, 255].
    flatten : bool
        Return images of shape (N, 784); otherwise (N, 1, 28, 28).
    one_hot_label : bool
        Return labels as float64 one-hot rows of shape (N, 10); otherwise as uint8 digits of shape (N,).
    folder : path, optional
        The only folder to look in.

    Returns
    -------
    (x_train, t_train), (x_test, t_test) : tuple of pairs of arrays
        New, writable arrays.

    Raises
    ------
    OSError
        If a file in ``folder`` or ``FASTOPTIM_DATA`` cannot be read; `FileNotFoundError` if it does not exist.
    TypeError
        If an option is not True or False, or ``folder`` is not a path.
    ValueError
        If a file in such a folder does not have the published checksum.
    MnistUnavailableError
        If no folder is given and the files are neither in the cache nor downloadable into it; an `OSError`.
    ImportError
        If a file has to be downloaded and pooch is not installed: ``pip install 'fastoptim[compare]'``.

    References
    ----------
    Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", 1998.

    Examples
    --------
    >>> (x_train, t_train), (x_test, t_test) = load_mnist()  # doctest: +SKIP
    >>> x_train.shape, x_train.dtype, t_train[:5]  # doctest: +SKIP
    ((60000, 784), dtype('float32'), array([5, 0, 4, 1, 9], dtype=uint8))
    """
    given: Any = normalize
    hint = f"; folder={given!r} names a folder" if isinstance(given, str | os.PathLike) else ""
    true_or_false("normalize", given, hint)
    true_or_false("flatten", flatten)
    true_or_false("one_hot_label", one_hot_label)
    with short_errors():
        x_train, t_train, x_test, t_test = _find(folder)

    def images(pixels: NDArray[np.uint8]) -> NDArray[Any]:
        shaped = pixels.reshape(len(pixels), -1) if flatten else pixels[:, np.newaxis]
        return np.divide(shaped, np.float32(255), dtype=np.float32) if normalize else shaped

    def labels(digits: NDArray[np.uint8]) -> NDArray[Any]:
        return np.eye(10)[digits] if one_hot_label else digits

    return (images(x_train), labels(t_train)), (images(x_test), labels(t_test))


def _find(folder: str | os.PathLike[str] | None) -> list[NDArray[np.uint8]]:
    if folder is None:
        folder = os.environ.get("FASTOPTIM_DATA") or None
    if folder is not None:
        return _read(checked_path("folder", folder))
    cache = user_cache_path("fastoptim")
    if not cache.is_absolute():
        raise MnistUnavailableError(f"{cache} cannot be located without HOME: {_WAY_OUT}")
    # A file that is missing, damaged or unreadable is downloaded again.
    with suppress(OSError, ValueError):
        return _read(cache)
    _download(cache)
    return _read(cache)


def _read(folder: Path) -> list[NDArray[np.uint8]]:
    arrays = []
    for name, (sha256, shape) in FILES.items():
        path = folder / name
        packed = _packed(path)
        if hashlib.sha256(packed).hexdigest() != sha256:
            raise ValueError(f"{path} is damaged or another file (its SHA-256 is not {sha256}): replace it")
        arrays.append(read_idx(packed, shape, path))
    return arrays


def _packed(path: Path) -> bytes:
    """Return the content of a file, up to the size that one of the four files can have."""
    needed = f"a data folder, given or named by FASTOPTIM_DATA, must hold {', '.join(FILES)}"
    try:
        # Opening a pipe would wait for its writer.
        if path.is_file():
            with path.open("rb") as stream:
                return stream.read(_LARGEST)
    except OSError as error:
        raise type(error)(f"{path} cannot be read ({error.strerror}): {needed}") from None
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder: {needed}")
    raise FileNotFoundError(f"{path} {'is not a file' if path.exists() else 'does not exist'}: {needed}")


def read_idx(packed: bytes, shape: tuple[int, ...], origin: object = "the data") -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in a gzip-compressed IDX file.

    An IDX file begins with two zero bytes, the type (8: unsigned byte) and the number of axes, then the length of
    each axis as a big-endian 32-bit number; the elements follow in C order. No more is decompressed than an array of
    `shape` needs.

    Parameters
    ----------
    packed : bytes
        The compressed file.
    shape : tuple of int
        The expected shape.
    origin : object
        The name of the file in errors.

    Returns
    -------
    ndarray of uint8
        A new, writable array of `shape`.

    Raises
    ------
    ValueError
        If `packed` is not a complete gzip file, or its header or length does not fit `shape`.

    Examples
    --------
    >>> read_idx(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1])), (3,))
    array([7, 2, 1], dtype=uint8)
    """
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    size = len(header) + math.prod(shape)
    try:
        with gzip.open(BytesIO(packed)) as stream:
            # One more byte than expected is enough to detect a longer file.
            content = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{origin} is not a whole gzip file ({error}): replace it") from error
    if not content.startswith(header) or len(content) != size:
        raise ValueError(f"{origin} is not an IDX file of unsigned bytes of shape {shape}: replace it")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()


def _download(cache: Path) -> None:
    with imported_for("downloading MNIST", f"'fastoptim[compare]', or {_WAY_OUT}"):
        import pooch
        import requests
        import tqdm  # noqa: F401

    reasons = []
    for mirror in MIRRORS:
        try:
            for name, (sha256, _) in FILES.items():
                # A file with the right checksum is kept. A download is moved into place when it is complete.
                # pooch sets the bar's total when it knows it.
                with progress_bar(total=1, desc=name, unit="B", unit_scale=True) as bar:
                    fetch = pooch.HTTPDownloader(timeout=TIMEOUT_S, progressbar=bar)
                    pooch.retrieve(mirror + name, f"sha256:{sha256}", name, cache, downloader=fetch)
            return
        except (requests.ConnectionError, requests.Timeout):
            reasons.append(f"{mirror} is unreachable or too slow")
        except (OSError, ValueError) as error:
            # The hashes would take more room than a message has.
            reasons.append(one_line(error).partition(": expected")[0])
    reason = "; ".join(dict.fromkeys(reasons))
    raise MnistUnavailableError(f"MNIST is not in {cache} and could not be downloaded ({reason}): {_WAY_OUT}")
