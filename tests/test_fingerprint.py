"""The fingerprint of a rule changes with everything that its compiled code depends on, and only with that."""

import sys
import textwrap
from collections import namedtuple
from types import ModuleType

import numba
import numpy as np
import pytest

from fastoptim.kernels.fingerprint import fingerprint

RULE = """
    import math
    import constants_of_mine

    SCALE = 2.0

    def helper(x):
        return x + 1

    def rule(p, g):
        return p - SCALE * helper(g) * constants_of_mine.RATE * math.sqrt(3)
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("SCALE = 2.0", "SCALE = 3.0", False),
        ("x + 1", "x + 2", False),
        ("x + 1", "x - 1", False),
        ("p - SCALE", "p + SCALE", False),
        ("sqrt", "cbrt", False),
        ("(p, g)", "(g, p)", False),
        ("RATE = 1", "RATE = 2", False),
        ("SCALE = 2.0", "UNUSED = 1\nSCALE = 2.0", True),
        ("def rule", "# A comment.\n\ndef rule", True),
    ],
)
def test_fingerprint_changes_with_each_edit_that_matters(old, new, same, monkeypatch):
    def of(edit):
        module = ModuleType("constants_of_mine")
        exec(edit("RATE = 1"), vars(module))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        names = {}
        exec(edit(textwrap.dedent(RULE)), names)
        return fingerprint(names["rule"])

    before, after = of(str), of(lambda text: text.replace(old, new))
    assert before == of(str)
    assert (before == after) is same


def test_similar_functions_have_different_fingerprints(monkeypatch):
    def of(text, **names):
        names.update(np=np, njit=numba.njit, vectorize=numba.vectorize)
        exec(textwrap.dedent(text), names)
        return fingerprint(names["rule"])

    Pair = namedtuple("Pair", "a b")
    Riap = namedtuple("Pair", "b a")
    rule = "def rule(p, g): return p - C[0] * g"
    assert of(rule, C=Pair(1, 2)) != of(rule, C=Riap(1, 2))
    assert of(rule, C=((1, 2), 5)) != of(rule, C=(1, 2, 5))
    assert of(rule, C=np.ones((2, 2))) != of(rule, C=np.ones((2, 2), order="F"))
    two = "def h0(x): return x\ndef h1(x): return -x\nh2 = {}\ndef rule(p, g): return h0(p) + h1(g) + h2(g)"
    assert of(two.format("h0")) != of(two.format("h1"))
    fast = "@njit(fastmath={})\ndef h(x): return x + 1\ndef rule(p, g): return p - h(g)"
    assert of(fast.format(True)) != of(fast.format(False))

    # A module may have the name of one in the standard library without belonging to it.
    module = ModuleType("code")
    module.__file__ = "/somewhere/code.py"
    of_module = []
    for module.C in (1, 2):
        monkeypatch.setitem(sys.modules, "code", module)
        of_module.append(of("import code\ndef rule(p, g): return p - code.C * g"))
    assert of_module[0] != of_module[1]


@pytest.mark.parametrize(
    "text",
    [
        "@vectorize\ndef h(x): return x + 1\ndef rule(p, g): return h(p)",
        "class E: C = 2.0\ndef rule(p, g): return p - E.C * g",
        "table = {1: 2}\ndef rule(p, g): return p - table[1] * g",
    ],
)
def test_function_with_an_unknown_value_has_no_fingerprint(text):
    names = {"vectorize": numba.vectorize}
    exec(text, names)
    assert fingerprint(names["rule"]) is None


def test_a_module_to_which_several_functions_refer():
    """Each refers to other names of it, one through another module."""
    inner, outer = ModuleType("inner_of_mine"), ModuleType("outer_of_mine")
    outer.inner, inner.ONE, inner.TWO, inner.THREE = inner, 1.0, 2.0, 3.0
    names = {"inner": inner, "outer": outer}
    functions = """
        def a(x): return x * inner.ONE
        def b(x): return x * inner.TWO
        def c(x): return x * outer.inner.THREE
        def d(x): return x * outer.inner.ONE
        def rule(p, g): return p - a(g) - b(g) - c(g) - d(g)
    """
    exec(textwrap.dedent(functions), names)
    found = {fingerprint(names["rule"])}
    for name in ("ONE", "TWO", "THREE"):
        setattr(inner, name, 5.0)
        found.add(fingerprint(names["rule"]))
    assert len(found) == 4


def test_function_of_a_module_has_no_fingerprint():
    """Numba can compile a call of it only by an overload, whose code is somewhere else."""
    module = ModuleType("module_of_mine")
    names = {"module": module}
    exec("def f(x): pass", vars(module))
    exec("def rule(p, g): return p - module.f(g)", names)
    assert fingerprint(names["rule"]) is None


def test_each_option_of_a_compiled_helper_counts():
    def of(decorator):
        names = {"numba": numba, "types": numba.types}
        exec(f"@{decorator}\ndef h(x): return x + 1\ndef rule(p, g): return p - h(g)", names)
        return fingerprint(names["rule"])

    options = [
        "numba.njit",
        "numba.njit(fastmath=True)",
        "numba.njit(fastmath={'nnan', 'ninf', 'nsz'})",
        "numba.njit(locals={'x': types.float32})",
        "numba.njit(locals={'x': types.float64})",
        "numba.njit('float32(float32)')",
        "numba.njit('float64(float32)')",
        "numba.njit(['float32(float32)', 'float64(float64)'])",
        "numba.njit(inline=lambda *_: True)",
        "numba.njit(inline=lambda *_: False)",
    ]
    found = [of(option) for option in options]
    assert found == [of(option) for option in options]
    assert len({*found} - {None}) == len(options)
    assert of("numba.njit(pipeline_class=type('Mine', (numba.core.compiler.Compiler,), {}))") is None


def test_calls_of_a_compiled_helper_do_not_count():
    """Numba adds the types of each call to a helper that was made without signatures."""
    names = {"numba": numba}
    exec("@numba.njit\ndef h(x): return x + 1\ndef rule(p, g): return p - h(g)", names)
    before = fingerprint(names["rule"])
    names["h"](1.0)
    assert fingerprint(names["rule"]) == before


def test_modules_that_import_each_other():
    a, b = ModuleType("a_of_mine"), ModuleType("b_of_mine")
    for module in (a, b):
        module.__file__ = f"/somewhere/{module.__name__}.py"
    a.b, b.a, b.C = b, a, 3.0
    names = {"a": a}
    exec("def rule(p, g): return p - a.b.a.b.C * g", names)
    before = fingerprint(names["rule"])
    b.C = 4.0
    assert before != fingerprint(names["rule"])
