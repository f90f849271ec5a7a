"""Alter checkpoints at random, give them the right checksum, and load them: each loads or is refused in one short line.

``python tests/mutations.py 100000`` alters 100,000 times. The mutations know the structure: they replace, delete,
repeat and exchange nodes of the header and of the metadata in it, and now and then single bytes.
"""

import copy
import hashlib
import json
import random
import sys
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np

import fastoptim as fo
from states import mixed, small, trained

MEMORY = 32 << 20
"""Bytes that may be allocated beside four times the size of the file."""

NAMES = ["", "W", "\x1b[2J", "a\nb", "\ud800", "\u202e", "x" * 1000, "params", "__metadata__", "float16", "(3)f4,"]
NUMBERS = [0, 1, -1, 2, 7, 0.5, -0.0, 1e308, float("nan"), float("inf"), 10**4200, 1 << 31, 1 << 32, 1 << 62, 1 << 63]
SCALARS = ["bool", "float16", "float32", "int8", "uint32", "uint64", "object"]
PLAIN = [*NAMES, *NUMBERS, None, True, False, [], {}]


def seeds(folder):
    """Return for each of some checkpoints its bytes, and functions that make params and an object to load it into."""
    opt, params = small()
    kinds = [
        (opt, params, lambda: copy.deepcopy(params), lambda: copy.deepcopy(opt)),
        (trained(fo.Adam, others := mixed(1), 2), others, lambda: copy.deepcopy(others), fo.Adam),
        (fo.SGD(lr=0.5), None, lambda: None, fo.SGD),
    ]
    result = []
    for saved, its_params, new_params, new in kinds:
        saved.save(folder / "seed", its_params)
        result.append(((folder / "seed").read_bytes(), new_params, new))
    networks = (
        lambda **decay: fo.MultiLayerNet(4, [5, 3], 2, seed=0, **decay),
        lambda **decay: fo.MultiLayerNetExtend(4, [5, 3], 2, use_batchnorm=True, seed=0, **decay),
    )
    for new in networks:
        new(weight_decay_lambda=0.1).save(folder / "seed")
        result.append(((folder / "seed").read_bytes(), lambda: None, new))
    return result


def random_value(rng, root):
    """Return a value to put anywhere: plain, a number of NumPy, nested, long, or another node of the same tree."""
    kind = rng.randrange(6)
    if kind == 0:
        return {f"numpy.{rng.choice(SCALARS)}": rng.choice(PLAIN)}
    if kind == 1:
        return [rng.choice(PLAIN) for _ in range(rng.choice([1, 2, 3, 70]))]
    if kind == 2:
        return [rng.choice([0, [], {}, "ab", 1.5])] * rng.choice([10, 100, 1000])
    if kind == 3:
        # Depth, which JSON and recursive functions may not stand.
        value = rng.choice(PLAIN)
        for _ in range(rng.choice([1, 5, 300])):
            value = [value]
        return value
    # The only node of a tree may just have been taken out of it.
    others = nodes(root)
    return copy.deepcopy(rng.choice(others)[2]) if kind == 4 and others else rng.choice(PLAIN)


def nodes(root):
    """Return every place in a tree: the container, the key and the value."""
    found, waiting = [], [root]
    while waiting:
        container = waiting.pop()
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            found.append((container, key, value))
            if isinstance(value, dict | list):
                waiting.append(value)
    return found


def alter(rng, root):
    """Alter one node of a tree in place, unless it has none."""
    if not root:
        return
    container, key, value = rng.choice(nodes(root))
    kind = rng.randrange(8)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, list):
        container[key:key] = [copy.deepcopy(value)] * rng.choice([1, 2, 50])
    elif kind == 1:
        container[rng.choice(NAMES) if rng.random() < 0.5 else str(key) + rng.choice(NAMES)] = value
    elif kind == 2 and isinstance(container, dict):
        # The value moves to the end under another name.
        container[str(random_value(rng, root))] = container.pop(key)
    elif kind == 3:
        other, place, moved = rng.choice(nodes(root))
        container[key], other[place] = copy.deepcopy(moved), copy.deepcopy(value)
    elif kind == 4 and type(value) in (int, float):
        # A number that was multiplied some thirty times is too large for a float.
        rounded = float(value) if abs(value) < 1 << 60 else value
        container[key] = rng.choice([value + 1, value - 1, -value, rounded, value * (1 << 32), str(value)])
    elif kind == 4 and isinstance(value, list):
        rng.shuffle(value)
    elif kind == 5 and type(value) is int:
        container[key] = {f"numpy.{rng.choice(SCALARS)}": value}
    else:
        # A copy, because lists among the plain values would otherwise come to hold themselves.
        container[key] = copy.deepcopy(random_value(rng, root))


def mutated(rng, data):
    """Return an altered file with the right checksum."""
    length = int.from_bytes(data[:8], "little")
    text, body = data[8 : 8 + length], data[8 + length : -32]
    if rng.random() < 0.85:
        header = json.loads(text)
        about = json.loads(header["__metadata__"]["fastoptim"])
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            alter(rng, about if rng.random() < 0.6 else header)
        if isinstance(outer := header.get("__metadata__"), dict) and rng.random() < 0.95:
            outer["fastoptim"] = json.dumps(about)
        text = json.dumps(header).encode()
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        part = bytearray(text if rng.random() < 0.7 else body)
        if part:
            place = rng.randrange(len(part))
            part[place : place + rng.choice([0, 1, 1, 5])] = rng.choice([b"", b"\0", b"\xff", b"9", b"[", b'"', b"{},"])
            text, body = (bytes(part), body) if rng.random() < 0.7 else (text, bytes(part))
    if rng.random() < 0.05:
        body = rng.choice([b"", body[: rng.randrange(len(body) + 1)], body + bytes(rng.randrange(100))])
    size = (
        len(text) if rng.random() < 0.97 else rng.choice([0, 1, len(text) - 1, len(text) + 8, 1 << 40, (1 << 64) - 1])
    )
    data = size.to_bytes(8, "little") + text + body
    return data + hashlib.sha256(data).digest()


def use(result, params):
    """Use what was loaded, as a valid object can be used."""
    repr(result)
    if isinstance(result, fo.MultiLayerNet):
        result.predict(np.ones((1, result.input_size)))
    elif params is not None:
        result.update(params, copy.deepcopy(params))
    result.state_dict(params) if params is not None else result.state_dict()


def check(load, size, params):
    """Load an altered file; return whether it was accepted. Raise any error that a load may not raise."""
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.thread_time()
    try:
        result = load()
    except (OSError, ValueError) as error:
        # A traceback shows the cause, too.
        for message in (str(error), str(error.__cause__ or "none")):
            assert 0 < len(message) <= 300, f"{len(message)} characters: {message[:400]!r}"
            assert message.isprintable(), f"a message that is not printable: {message!r}"
        result = None
    seconds, peak = time.thread_time() - start, tracemalloc.get_traced_memory()[1] - before
    assert peak <= 4 * size + MEMORY, f"{peak:,} bytes for a file of {size:,}"
    assert seconds < 2, f"{seconds:.2f} s for a file of {size:,} bytes"
    if result is not None:
        use(result, params)
    return result is not None


def main(count, seed=0):
    """Alter ``count`` files and load each in two ways; return how many times one was accepted."""
    accepted = 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        # An update after loading may overflow; a file may hold any numbers.
        np.seterr(all="ignore")
        folder = Path(folder)
        path, originals = folder / "altered", seeds(folder)
        tracemalloc.start()
        try:
            for number in range(count):
                rng = random.Random(f"{seed} {number}")
                data, new_params, new = rng.choice(originals)
                data = mutated(rng, data)
                path.write_bytes(data)
                params, other_params, own = new_params(), new_params(), new()
                is_network = isinstance(own, fo.MultiLayerNet)

                def load_into(own=own, params=params, is_network=is_network):
                    own.load(path) if is_network else own.load(path, params)
                    return own

                try:
                    accepted += check(load_into, len(data), params)
                    accepted += check(lambda: fo.load(path, other_params), len(data), other_params)  # noqa: B023
                except BaseException:
                    print(f"mutation {number} of seed {seed}", file=sys.stderr)
                    raise
        finally:
            tracemalloc.stop()
    print(f"{count} altered checkpoints, loaded in two ways each: {accepted} accepted, the others refused in one line")
    return accepted


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(int, sys.argv[2:]))
