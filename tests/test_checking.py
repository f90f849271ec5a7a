"""`check_rule` passes rules that are the same compiled and in NumPy, and says what is wrong with others."""

import math
import re

import numba
import numpy as np
import pytest

import fastoptim as fo
from fastoptim import checking
from fastoptim.family import FAMILY


@pytest.mark.parametrize("name", FAMILY)
def test_built_in_rules_pass(name):
    fo.check_rule(getattr(fo, name))


def test_rules_of_all_kinds_pass():
    class Rounded(fo.Optimizer):
        slots = ("m",)

        def scalars(self):
            return (0.9999,)

        @staticmethod
        def rule(p, g, m, beta):
            m = beta * m + (1 - beta) * g
            return p - m, m

    def branches(p, g, m, lr):
        if g > 0:
            m = max(m, g)
        return p - lr * m, m

    def powers(p, g, lr):
        return p - lr * np.exp(g) * abs(g) ** 0.3

    # In float32, 1 - beta differs a lot from what it is in float64.
    fo.check_rule(Rounded)
    fo.check_rule(branches, ["m"])
    fo.check_rule(numba.njit(branches), ("m",))
    fo.check_rule(powers)
    fo.check_rule(fo.Momentum(clip_norm=1.0, cautious=True, ema=0.9, weight_decay=0.1))


@pytest.mark.parametrize(
    ("slots", "text", "problem"),
    [
        ((), "p - lr * np.average(g)", r"float32: p differs in \d+ of 2000 cases, such as p=.*, g=.*, lr=0\.5: .* in "
         r"NumPy, .* compiled; for this element alone NumPy agrees: a rule cannot sum or average elements"),
        (("m",), "p, m + np.random.random()", r"float64: m differs in \d+ of 2000 cases.* compiled\n"),
        ((), "math.exp(g)", "it can be compiled, but as NumPy code it raises OverflowError: math range error"),
        ((), "round(p)", "it can be compiled, but as NumPy code it raises TypeError: type ndarray doesn't"),
        ((), "np.heaviside(p, lr)", r"it cannot be compiled: Use of unsupported NumPy function 'numpy\.heaviside'"),
        ((), "p, g", "it cannot be compiled: it returns 2 values, expected 1"),
        (("m",), "p", "it cannot be compiled: it returns 1 value, expected 2"),
        (("lr",), "p, m", r"rule takes \(p, g, m, lr\), expected \(p, g, lr\) and then the scalars"),
    ],
)  # fmt: skip
def test_message_says_what_is_wrong_and_shows_a_rule(slots, text, problem):
    names = {"np": np, "math": math}
    exec(f"def rule({', '.join(['p', 'g', *('m' for _ in slots), 'lr'])}): return {text}", names)
    with pytest.raises(AssertionError) as error:
        fo.check_rule(names["rule"], slots)
    message = str(error.value)
    assert message.startswith("the rule rule (<string>:1) fails the check:\n- ")
    assert re.search(problem, message), message
    has = f"the slots {slots}" if slots else "no slots"
    assert f"With {has} it looks like this:\n    def rule({', '.join(['p', 'g', *slots])}, " in message
    assert message.endswith(f"        return {', '.join(['p', *slots])}")


@pytest.mark.parametrize("values", [(0.1, 0.2), (), 0.1, ("text",)])
def test_scalars_that_do_not_fit(values):
    class Rule(fo.Optimizer):
        def scalars(self):
            return values

        @staticmethod
        def rule(p, g, lr):
            return p - lr * g

    with pytest.raises(AssertionError, match=r"after its state, 1 number, but it returned"):
        fo.check_rule(Rule)


def test_scalars_are_among_the_cases():
    class Rule(fo.Optimizer):
        def scalars(self):
            return (7.0 * self.iter,)

        @staticmethod
        def rule(p, g, lr):
            return p - (lr == 7) * np.average(g)

    opt = Rule()
    with pytest.raises(AssertionError, match=r"lr=7: .* compiled; for this element alone"):
        fo.check_rule(opt)
    assert opt.iter == 0


def test_ulps(monkeypatch):
    def rule(p, g):
        return p - g

    def shifted(*args):
        return [np.nextafter(run(*args)[0], np.float32(0))]

    run = checking._run_text
    monkeypatch.setattr(checking, "_run_text", shifted)
    fo.check_rule(rule, ulps=1)
    with pytest.raises(AssertionError, match="float32: p differs"):
        fo.check_rule(rule, ulps=0.5)


@pytest.mark.parametrize("wrong", [3, "rule", dict, np.sqrt])
def test_what_is_no_rule(wrong):
    with pytest.raises(TypeError, match="check_rule takes a function or an optimizer"):
        fo.check_rule(wrong)
    with pytest.raises(TypeError, match=r"such as \('m',\)"):
        fo.check_rule(lambda p, g, m: (p - g, m), "m")


def test_nothing_to_compare_with(monkeypatch):
    monkeypatch.setattr(checking, "DISABLED", True)
    with pytest.raises(RuntimeError, match="NUMBA_DISABLE_JIT"):
        fo.check_rule(lambda p, g: p - g)


def test_subnormal_numbers_are_left_alone_afterwards():
    def rule(p, g):
        return p / 0 if g == 1 else math.exp(g)

    with pytest.raises(AssertionError, match="OverflowError"):
        fo.check_rule(rule)
    assert np.full(9, 1e-310).sum() / 2 != 0
