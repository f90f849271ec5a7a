"""Each optimizer has its line in the table, its class, its rule, its oracle and its documentation."""

import inspect
import re
from pathlib import Path

import pytest

import fastoptim as fo
import naive
import script
from fastoptim import optimizers
from fastoptim.cli import main
from fastoptim.family import FAMILY, NOTES_FIVE
from fastoptim.kernels import adam_rules, matrix, rules
from fastoptim.optimizers.base import AdamLike, BuiltIn
from test_rules import CASES

PAGES = [
    (Path(__file__).parent.parent / page).read_text(encoding="utf-8")
    for page in ("CHANGELOG.md", "README.md", "README.zh-CN.md")
]


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_each_class_has_a_line_and_each_line_a_class():
    own = {cls for cls in subclasses(fo.Optimizer) if cls.__module__.startswith(optimizers.__name__)}
    own -= {BuiltIn, AdamLike}
    assert {cls.__name__ for cls in own} == set(FAMILY) == set(optimizers.__all__)
    assert {getattr(fo, name) for name in FAMILY} == own


def test_each_class_has_an_oracle():
    assert FAMILY.keys() == naive.RULES.keys() | {cls.__name__ for cls, *_ in CASES}


def test_each_rule_is_that_of_a_class():
    classes = [getattr(fo, name) for name in FAMILY]
    used = {cls.rule for cls in classes} | {rule for cls in classes for rule in cls.variants.values()}
    assert used == {getattr(page, name) for page in (rules, adam_rules) for name in page.__all__} | {matrix.adafactor}
    assert all(re.search(r"\(\d{4}\)", rule.__doc__) for rule in used)


@pytest.mark.parametrize("name", FAMILY)
def test_each_class_is_documented(name):
    cls = getattr(fo, name)
    text = inspect.getdoc(cls)
    assert all(f"\n{title}\n---" in text for title in ("Parameters", "References", "Examples"))
    assert ".. math::" in text
    described = {word for line in re.findall(r"^([\w, ]+) : ", text, re.MULTILINE) for word in line.split(", ")}
    slots = *cls.slots, *cls.optional_slots
    assert described == {*inspect.signature(cls).parameters, *slots, *cls.running, *cls.shared} - {"options"}
    assert "\n**options\n" in text
    assert all(f"`{name}`" in page for page in PAGES)


def test_markers_tell_the_curves_apart():
    assert len({member.marker for member in FAMILY.values()}) == len(FAMILY)


def test_the_help_lists_them(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"any of {', '.join(FAMILY)} (default: {','.join(NOTES_FIVE)})" in text


def test_the_table_needs_neither_numpy_nor_numba(tmp_path):
    source = """
        import sys
        from fastoptim.family import FAMILY
        assert not {"numpy", "numba", "fastoptim.optimizers"} & sys.modules.keys()
    """
    script.run(source, tmp_path)


def test_names_of_the_package():
    names = {}
    exec("from fastoptim import *", names)
    assert {*FAMILY, "Optimizer", "flatten", "load", "num_threads"} <= names.keys()
    # The textbook's scripts have these from elsewhere.
    helpers = {"MultiLayerNet", "MultiLayerNetExtend", "load_mnist", "smooth_curve"}
    assert not helpers & names.keys()
    assert set(dir(fo)) == {*fo.__all__, *helpers}
    assert all(getattr(fo, name) is not None for name in dir(fo))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("adam", "Adam"),
        ("Adagrad", "AdaGrad"),
        ("rmsprop", "RMSprop"),
        ("load_mnits", "load_mnist"),
        ("Torch", "torch"),
    ],
)
def test_a_misspelt_name_is_answered_by_the_nearest(wrong, right):
    with pytest.raises(
        AttributeError, match=f"^module 'fastoptim' has no attribute '{wrong}'; did you mean '{right}'\\?$"
    ):
        getattr(fo, wrong)


def test_a_name_that_resembles_no_other():
    with pytest.raises(AttributeError, match=r"no attribute 'zebra'$"):
        fo.zebra  # noqa: B018
