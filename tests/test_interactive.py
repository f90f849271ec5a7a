"""The comparison from Python, and what it shows in each language."""

import inspect
import io
import sys
from dataclasses import fields

import numpy as np
import pytest
from matplotlib.figure import Figure

import fastoptim as fo
from fastoptim.cli import main
from fastoptim.comparison import curves, interactive, pictures
from fastoptim.comparison.digits import load_data
from fastoptim.comparison.languages import LANGUAGES
from fastoptim.comparison.training import Comparison, Settings
from fastoptim.tables import Table

SMALL = {"hidden": [8], "batch_size": 16, "optimizers": ["sgd", "Adam"]}


def test_it_is_the_comparison_of_the_command_line():
    result = fo.compare("digits", iterations=130, seed=3, threads=2, progress=False, **SMALL)
    ref = Comparison(load_data("digits"), Settings(iterations=130, seed=3, **SMALL))
    ref.train()
    assert list(result.losses) == ["SGD", "Adam"]
    for run in ref.runs:
        assert result.losses[run.name].dtype == np.float64
        np.testing.assert_array_equal(result.losses[run.name], run.losses)
    table = str(result.table())
    assert repr(result) == table
    assert [line.split()[0] for line in table.splitlines()] == ["optimizer", "SGD", "Adam"]
    html = result._repr_html_()
    assert html.count("<tr>") == 3
    assert f"{np.mean(ref.runs[1].losses[-100:]):.4f}</td>" in html
    figure = result.plot()
    assert isinstance(figure, Figure)
    assert [line.get_label() for line in figure.axes[0].lines] == ["SGD", "Adam"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_defaults_are_those_of_the_settings():
    parameters = inspect.signature(fo.compare).parameters
    assert [(field.name, field.default) for field in fields(Settings)] == [
        (name, parameter.default) for name, parameter in parameters.items() if name not in ("data", "progress")
    ]


def test_errors_come_before_the_data_is_loaded(monkeypatch):
    monkeypatch.setenv("FASTOPTIM_DATA", "no/such/folder")
    with pytest.raises(ValueError, match=r"optimizers must be some of SGD, .*, got Zebra"):
        fo.compare(optimizers=["Zebra"])
    with pytest.raises(ValueError, match="lang must be one of 'en', 'zh', not 'fr'"):
        fo.compare(lang="fr")


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, is_shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        fo.compare("digits", iterations=5, **SMALL)
        assert ("0%|" in stream.getvalue()) == is_shown


def test_an_interruption_keeps_what_was_computed(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(interactive.LossBar, "show", interrupt)
    result = fo.compare("digits", iterations=300, threads=1, **SMALL)
    assert [len(losses) for losses in result.losses.values()] == [20, 0]
    assert capsys.readouterr().err == f"{LANGUAGES['en'].interrupted}\n"
    monkeypatch.setattr(Comparison, "_train_turn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fo.compare("digits", iterations=300, threads=1, **SMALL)


def test_chinese(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "chinese_font", lambda: "Some Font")
    figure = curves.plot_losses({"SGD": [1.0, 0.5]}, "手写数字", "zh")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("迭代次数", "损失", "手写数字")
    assert {text.get_fontfamily()[0] for text in (axes.xaxis.label, axes.yaxis.label, axes.title)} == {"Some Font"}

    monkeypatch.setattr(Comparison, "write_picture", lambda *_: None)
    options = "--data digits --hidden 8 --iterations 3 --optimizers SGD,ScheduleFreeAdamW --lang zh --output"
    assert main(["compare", *options.split(), str(tmp_path)]) == 0
    out = capsys.readouterr().out
    names, first = out.splitlines()[:2]
    assert names.split() == ["迭代", "SGD", "ScheduleFreeAdamW"]
    titles, sgd, longest = out.splitlines()[2:5]
    assert titles.split() == ["优化器", "迭代次数", "损失（最后", "3", "次）", "测试准确率", "耗时（秒）"]
    assert out.splitlines()[5:] == [f"已写入 {tmp_path / name}" for name in ("losses.csv", "losses.png")]
    # A terminal takes two columns for a Chinese character, so the lines end in the same one.
    assert len(sgd) == len(longest) == len(titles.encode("gbk"))
    assert len(first) == len(names.encode("gbk"))


def test_chinese_without_a_font(monkeypatch, capsys):
    monkeypatch.setattr(pictures.fontManager, "ttflist", [])
    monkeypatch.setattr(pictures, "find_spec", lambda _: None)
    monkeypatch.setattr(pictures, "findSystemFonts", list)
    monkeypatch.setattr(pictures, "chinese_font", pictures.chinese_font.__wrapped__)
    result = fo.compare("digits", iterations=2, lang="zh", **SMALL)
    assert capsys.readouterr().out == f"{LANGUAGES['zh'].no_font}\n"
    (axes,) = result.plot().axes
    assert (axes.get_xlabel(), axes.get_title()) == ("iterations", "")
    assert "损失" in str(result.table())


def test_a_font_is_found():
    if pictures.chinese_font() is None:
        pytest.skip("no font with Chinese characters is installed")
    figure = curves.plot_losses({"SGD": [1.0, 0.5]}, "手写数字", "zh")
    # A character that the font does not have would be a warning, which is an error.
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_html_is_escaped():
    assert '<td style="padding:0.15em 0.8em;text-align:left">&lt;b&gt;</td>' in Table(["key"], [["<b>"]])._repr_html_()
