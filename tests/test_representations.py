"""What a terminal and a notebook show of networks, optimizers and flat dicts: no pages of numbers."""

import re

import numpy as np
import pytest

import fastoptim as fo
from fastoptim.tables import size_of


def rows(html):
    """Return the cells of all rows of a representation in HTML."""
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall("<tr>(.*?)</tr>", html)]


def test_flat_dict():
    flat = fo.flatten({"W": np.ones((2, 300), np.float32), "<b>": np.zeros(3, np.float32)})
    assert repr(flat) == "FlatDict({'W': float32 (2, 300), '<b>': float32 (3,)})"
    html = flat._repr_html_()
    assert html.startswith("<div>FlatDict: 2 arrays, 603 elements, 2412 bytes</div>")
    assert rows(html) == [
        ["key", "shape", "dtype", "elements", "size"],
        ["W", "(2, 300)", "float32", "600", "2400 bytes"],
        ["&lt;b&gt;", "(3,)", "float32", "3", "12 bytes"],
    ]


def test_many_keys_are_shortened():
    flat = fo.flatten({i: np.zeros(1) for i in range(1000)})
    assert len(repr(flat)) < 1200
    keys = [row[0] for row in rows(flat._repr_html_())]
    assert keys == ["key", *map(str, range(20)), "⋮", *map(str, range(980, 1000))]
    assert "1,000 elements" in flat._repr_html_()


def test_optimizer():
    opt = fo.Adam(lr=fo.schedules.constant(0.5), clip_norm=1.0)
    html = opt._repr_html_()
    assert "Adam, no state yet" in html
    assert ["lr", "0.5, of a schedule"] in rows(html)
    assert ["clip_norm", "1.0"] in rows(html)
    opt.update({"a": np.ones(3), "b": np.ones((2, 2))}, {"a": np.ones(3), "b": np.ones((2, 2))})
    html = opt._repr_html_()
    assert "Adam, state of 112 bytes" in html
    assert ["iter", "1"] in rows(html)
    assert rows(html)[-2:] == [[slot, "float64", "2", "7", "56 bytes"] for slot in "mv"]
    assert "no state<" in fo.SGD()._repr_html_()


@pytest.mark.parametrize("options", [{}, {"use_batchnorm": True}])
def test_network(options):
    network = (fo.MultiLayerNetExtend if options else fo.MultiLayerNet)(4, [3] * 10, 2, **options)
    titles, first, *_, last = rows(network._repr_html_())
    assert titles == ["layer", "activation", "inputs", "outputs", "parameters"]
    assert first == ["1", "relu", "4", "3", "21" if options else "15"]
    assert last == ["11", "softmax", "3", "2", "8"]
    total = sum(int(row[-1]) for row in rows(network._repr_html_())[1:])
    assert total == network.params.flat.size
    assert f"{total:,} parameters" in network._repr_html_()


@pytest.mark.parametrize(
    ("n_bytes", "expected"),
    [(0, "0 bytes"), (9_999, "9999 bytes"), (10_000, "9.8 KiB"), (350_000, "342 KiB"), (2**34, "16.0 GiB")],
)
def test_sizes(n_bytes, expected):
    assert size_of(n_bytes) == expected
