import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from fastoptim.comparison.curves import plot_losses, smooth_curve
from fastoptim.family import FAMILY, NOTES_FIVE


def naive_smooth(x):
    n, w = len(x), np.kaiser(11, 2)
    at = {i: x[i] for i in range(n)}
    for k in range(1, 6):
        at[-k] = x[k]
        at[n - 1 + k] = x[n - k]
    return [sum(w[k + 5] * at[i + k] for k in range(-5, 6)) / sum(w) for i in range(n)]


@pytest.mark.parametrize("n", [11, 12, 200])
def test_smooth_curve(n):
    x = np.random.default_rng(n).normal(size=n)
    before = x.copy()
    np.testing.assert_allclose(smooth_curve(x), naive_smooth(x), rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(smooth_curve(list(x)), smooth_curve(x))


@pytest.mark.parametrize("n", [0, 1, 10])
def test_curve_shorter_than_the_window_is_unchanged(n):
    x = np.random.default_rng(0).normal(size=n)
    comp = smooth_curve(x)
    np.testing.assert_array_equal(comp, x)
    assert not np.shares_memory(comp, x)


def test_smooth_curve_of_two_dimensions():
    with pytest.raises(ValueError, match=r"one-dimensional curve, got shape \(20, 2\)"):
        smooth_curve(np.zeros((20, 2)))


def test_plot_has_the_style_of_the_notes():
    rng = np.random.default_rng(0)
    curves = {name: rng.random(250) for name in [*FAMILY, "of the user"]}
    (axes,) = plot_losses(curves, "title").axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_ylim(), axes.get_title()) == (
        "iterations",
        "loss",
        (0, 1),
        "title",
    )
    markers = {line.get_label(): line.get_marker() for line in axes.lines}
    assert {name: markers[name] for name in NOTES_FIVE} == dict(zip(NOTES_FIVE, "oxsDv", strict=True))
    assert markers["of the user"] == "."
    assert len(set(markers.values())) == len(curves)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves)
    # Matplotlib has ten colours; more curves are told apart by their markers.
    assert len({to_rgba(line.get_color()) for line in axes.lines}) == 10
    for line, losses in zip(axes.lines, curves.values(), strict=True):
        assert line.get_markevery() == 100
        np.testing.assert_array_equal(line.get_ydata(), smooth_curve(losses))


def test_plot_without_pyplot_and_display(tmp_path):
    code = (
        "import sys; from fastoptim.comparison.curves import plot_losses;"
        f"plot_losses({{'SGD': [1.0, 0.5]}}).savefig({str(tmp_path / 'a.png')!r});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=100)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.delitem(sys.modules, "fastoptim.comparison.pictures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'fastoptim\[compare\]'"):
        plot_losses({})
