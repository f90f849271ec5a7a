"""Custom rules run like built-in ones, from a module or a notebook cell, and are compiled anew after an edit."""

import importlib.util
import inspect
import textwrap

import numba
import numpy as np
import pytest
from numba.core.caching import NullCache
from numpy.testing import assert_array_equal

import fastoptim as fo
import script
from fastoptim.kernels import fuse
from fastoptim.kernels.fingerprint import fingerprint

SIGN_MOMENTUM = """
    import numpy as np
    import fastoptim as fo

    class SignMomentum(fo.Optimizer):
        slots = ("m",)
        def __init__(self, lr=1e-3, beta=0.9):
            super().__init__()
            self.lr, self.beta = lr, beta
        def scalars(self):
            return self.lr, self.beta
        @staticmethod
        def rule(p, g, m, lr, beta):
            m = beta * m + (1 - beta) * g
            return p - lr * np.sign(m), m
"""


def from_text(source):
    """Run source without a file, as a notebook cell does, and return its globals."""
    names = {}
    exec(textwrap.dedent(source), names)
    return names


def from_module(source, folder, name="rules_of_mine"):
    path = folder / f"{name}.py"
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


def random(dtype, seed, size=1000):
    return np.random.default_rng(seed).standard_normal(size).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", ["cell", "module"])
def test_compiled_rule_equals_its_text_on_arrays(place, dtype, tmp_path):
    names = from_text(SIGN_MOMENTUM) if place == "cell" else from_module(SIGN_MOMENTUM, tmp_path)
    opt = names["SignMomentum"](lr=0.01)
    ref, m = random(dtype, 0), np.zeros(1000, dtype)
    comp = {"w": ref.copy()}
    assert opt.m is None
    for step in range(20):
        g = random(dtype, step)
        opt.update(comp, {"w": g})
        ref, m = opt.rule(ref, g, m, dtype(0.01), dtype(0.9))
        assert ref.dtype == m.dtype == dtype
        assert_array_equal(comp["w"], ref)
        assert_array_equal(opt.m["w"], m)


@pytest.mark.parametrize(
    "text",
    [
        "p - lr * (1 - g) / 3",
        "p + g**2 - 0.1 * lr",
        "np.where(g > 0, p, 2 * p)",
        "np.maximum(p, 0) + HALF * g",
        "p**0.5",
    ],
)
def test_numbers_in_a_float32_rule_are_weak(text):
    names = from_text(f"""
        import numpy as np
        import fastoptim as fo

        HALF = 0.3

        class Rule(fo.Optimizer):
            def scalars(self):
                return (0.1,)
            @staticmethod
            def rule(p, g, lr):
                return {text}
    """)
    p, g = abs(random(np.float32, 1)), random(np.float32, 2)
    ref = names["Rule"].rule(p, g, np.float32(0.1))
    assert ref.dtype == np.float32
    names["Rule"]().update({"w": p}, {"w": g})
    if text == "p**0.5":
        # NumPy and the C library may round powers differently.
        np.testing.assert_array_max_ulp(p, ref, 1)
    else:
        assert_array_equal(p, ref)


def test_rule_with_three_slots_and_a_branch():
    names = from_text("""
        import fastoptim as fo

        class Three(fo.Optimizer):
            slots = ("a", "b", "c")
            def scalars(self):
                return (float(self.iter),)
            @staticmethod
            def rule(p, g, a, b, c, t):
                if g > 0:
                    a = a + g
                else:
                    b = b - g
                c = c + t
                return p + a * b, a, b, c
    """)
    opt, g = names["Three"](), random(np.float64, 3)
    params = {"w": np.zeros(1000)}
    for _ in range(2):
        opt.update(params, {"w": g})
    a, b = np.where(g > 0, 2 * g, 0), np.where(g > 0, 0, -2 * g)
    assert_array_equal(opt.a["w"], a)
    assert_array_equal(opt.b["w"], b)
    assert_array_equal(opt.c["w"], np.full(1000, 3.0))


def test_rule_without_init_and_without_super():
    class Bare(fo.Optimizer):
        slots = ("n",)

        def scalars(self):
            return ()

        @staticmethod
        def rule(p, g, n):
            return p - g, n + 1

    class Forgetful(Bare):
        def __init__(self):
            self.lr = 1

    for opt in (Bare(), Forgetful()):
        params = {"w": np.ones(3)}
        opt.update(params, {"w": np.ones(3)})
        assert opt.iter == 1
        assert_array_equal(params["w"], np.zeros(3))
        assert_array_equal(opt.n["w"], np.ones(3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p - lr * g, g", "it returns 2 values, expected 1: the parameter and its state$"),
        ("p - undefined_name", "NameError: name 'undefined_name' is not defined$"),
        ("'text'", r"it returns unicode_type, expected numbers; is a return missing\?$"),
        ("None", r"it returns none, expected numbers; is a return missing\?$"),
        ("[p][0] if lr else int('x')", "No implementation of function"),
        ("p.real_part", "Unknown attribute 'real_part' of type float64$"),
        ("calls_itself(p)", "Invalid use of none"),
    ],
)
def test_error_names_a_rule_that_cannot_be_compiled(text, message):
    names = from_text(f"""
        import fastoptim as fo

        def calls_itself(x):
            return calls_itself(x - 1) if x > 0 else x

        class Rule(fo.Optimizer):
            def scalars(self):
                return (0.1,)
            @staticmethod
            def rule(p, g, lr):
                return {text}
    """)
    params = {"w": np.ones(3)}
    opt = names["Rule"]()
    message = rf"^the rule Rule\.rule \(<string>:\d+\) cannot be compiled for float64: {message}"
    with pytest.raises(TypeError, match=message):
        opt.update(params, {"w": np.ones(3)})
    assert opt.iter == 0
    assert_array_equal(params["w"], np.ones(3))


@pytest.mark.parametrize("scalars", [(), (0.1, 0.2), ("0.1",), (None,), 0.1])
def test_scalars_that_do_not_fit_the_rule_are_an_error(scalars):
    class Rule(fo.Optimizer):
        def scalars(self):
            return scalars

        @staticmethod
        def rule(p, g, lr):
            return p - lr * g

    params = {"w": np.ones(3)}
    opt = Rule()
    with pytest.raises(TypeError, match=r"after its state, 1 number, but it returned"):
        opt.update(params, {"w": np.ones(3)})
    assert opt.iter == 0
    assert_array_equal(params["w"], np.ones(3))


def test_class_without_a_rule_is_an_error():
    with pytest.raises(TypeError, match=r"has no rule: define rule\(p, g, \.\.\.\) in its class"):
        type("Rule", (fo.Optimizer,), {"scalars": lambda _: ()})().update({"w": np.ones(3)}, {"w": np.ones(3)})


def test_transforms_that_are_no_tuple_or_take_what_no_attribute_gives_are_errors():
    def halved(g, share):
        return g * share

    with pytest.raises(TypeError, match=r"Rule\.before must be a tuple of functions: \(halved,\)"):
        type("Rule", (fo.SGD,), {"before": halved})
    opt = type("Rule", (fo.SGD,), {"before": (halved,)})()
    with pytest.raises(TypeError, match="halved takes 'share', which is no attribute of Rule"):
        opt.update({"w": np.ones(3)}, {"w": np.ones(3)})


def test_schedule_of_a_plain_attribute_must_return_a_number():
    class Rule(fo.Optimizer):
        lr = 0.1

        def scalars(self):
            return (self.lr,)

        @staticmethod
        def rule(p, g, lr):
            return p - lr * g

    opt = Rule()
    opt.lr = lambda step: 0.1 if step == 0 else None
    with pytest.raises(TypeError, match="lr must be a number, not None"):
        opt.update({"w": np.ones(3)}, {"w": np.ones(3)})


def test_rule_that_is_not_a_static_method_is_an_error():
    class Rule(fo.Optimizer):
        def scalars(self):
            return (0.1,)

        def rule(self, p, g, lr):
            return p - lr * g

    with pytest.raises(
        TypeError, match=r"^the rule \(test_rule_that_is_not_a_static_method_is_an_error\.<locals>\.Rule\.rule\) must"
    ):
        Rule().update({"w": np.ones(3)}, {"w": np.ones(3)})


@pytest.mark.parametrize(("slots", "arguments"), [((), "p"), (("m",), "p, g"), (("m", "n"), "p, g, m")])
def test_rule_with_too_few_arguments_is_an_error(slots, arguments):
    names = {}
    exec(f"def rule({arguments}): return p", names)
    own = {"slots": slots, "rule": staticmethod(names["rule"])}
    expected = ", ".join(["p", "g", *slots])
    with pytest.raises(TypeError, match=rf"rule takes \({arguments}\), expected \({expected}\) and then"):
        type("Rule", (fo.Optimizer,), own)().update({"w": np.ones(3)}, {"w": np.ones(3)})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rule_that_is_already_compiled_by_numba(dtype):
    class Rule(fo.Optimizer):
        def scalars(self):
            return (0.25,)

        @staticmethod
        @numba.njit
        def rule(p, g, lr):
            return p - lr * (1 - g)

    p, g = random(dtype, 0), random(dtype, 1)
    params = {"w": p.copy()}
    Rule().update(params, {"w": g})
    assert_array_equal(params["w"], p - dtype(0.25) * (1 - g))


def test_rule_replaced_between_updates():
    class Rule(fo.Optimizer):
        def scalars(self):
            return ()

        @staticmethod
        def rule(p, g):
            return p + g

    params, grads, opt = {"w": np.ones(3)}, {"w": np.ones(3)}, Rule()
    opt.update(params, grads)
    Rule.rule = staticmethod(lambda p, g: p - 2 * g)
    opt.update(params, grads)
    assert_array_equal(params["w"], np.zeros(3))


@pytest.mark.parametrize("dtypes", [(np.float64, np.float64), (np.float32, np.float64), (np.float16, np.float16)])
@pytest.mark.parametrize(
    ("slots", "body"),
    [
        ((), "g += 0.5 * p\nreturn p - lr * g"),
        (("v",), "old = v\nv *= 0.5\nv -= lr * g\np += v - 0.5 * old\nreturn p, v"),
        (("m", "n"), "m = m + g\nn = n + 1\nreturn p - lr * g, n, m"),
        (("n",), "if g > 0:\n    n = n + 1\nreturn p - lr * n, n"),
        (("m",), "m = max(m, abs(g))\nreturn p - lr * m, m"),
    ],
)
def test_kernel_and_fallback_give_the_same_results(slots, body, dtypes):
    """The dtypes decide whether a kernel or the fallback runs, so the results must agree; gradients are not changed."""
    lines = "\n                ".join(body.splitlines())
    names = from_text(f"""
        import fastoptim as fo

        class Rule(fo.Optimizer):
            slots = {slots}
            def scalars(self):
                return (0.25,)
            @staticmethod
            def rule({", ".join(["p", "g", *slots, "lr"])}):
                {lines}
    """)
    # Small multiples of a quarter: every dtype represents them and all results exactly.
    rng = np.random.default_rng(5)
    start, gradient = (rng.integers(-4, 5, 20) / 4 for _ in range(2))
    results = []
    for p_dtype, g_dtype in ((np.float64, np.float64), dtypes):
        opt, params, grads = names["Rule"](), {"w": start.astype(p_dtype)}, {"w": gradient.astype(g_dtype)}
        for _ in range(2):
            opt.update(params, grads)
        assert_array_equal(grads["w"], gradient)
        results.append([params["w"], *(getattr(opt, name)["w"] for name in slots)])
    for ref, comp in zip(*results, strict=True):
        assert_array_equal(comp, ref)


def test_functions_called_by_a_rule_are_compiled_with_it():
    names = from_text("""
        import fastoptim as fo
        from fastoptim.kernels.rules import adam

        def decayed(p, rate):
            return p - rate * p

        class AdamW(fo.Adam):
            def scalars(self):
                return (*super().scalars(), 0.5)
            @staticmethod
            def rule(p, g, m, v, lr_t, one_minus_beta1, one_minus_beta2, eps, decay):
                return adam(decayed(p, decay), g, m, v, lr_t, one_minus_beta1, one_minus_beta2, eps)
    """)
    for dtype in (np.float32, np.float64):
        p, g = random(dtype, 0), random(dtype, 1)
        ref, comp = {"w": p - dtype(0.5) * p}, {"w": p.copy()}
        fo.Adam().update(ref, {"w": g})
        names["AdamW"]().update(comp, {"w": g})
        assert_array_equal(comp["w"], ref["w"])


def test_cached_kernel_is_loaded_without_the_module_of_its_rule(tmp_path):
    source = f"""
        import numpy as np
        from fastoptim.kernels.fuse import fuse

        names = {{"__name__": "rules_that_are_gone"}}
        exec({textwrap.dedent(SIGN_MOMENTUM)!r}, names)
        print(fuse(names["SignMomentum"].rule, (np.float32,) * 3).cache_hits)
    """
    hits = [script.run(source, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache")) for _ in range(2)]
    assert hits == ["0", "1"]


def test_rule_without_a_fingerprint_is_not_cached():
    @numba.vectorize
    def double(x):
        return 2 * x

    def rule(p, g):
        return p - double(g)

    assert fingerprint(rule) is None
    assert isinstance(fuse.fuse(rule, (np.float64, np.float64))._cache, NullCache)


@pytest.mark.parametrize("statement", ["raise ValueError", "assert g < 0"])
def test_rule_that_raises_is_an_error(statement):
    names = from_text(f"""
        import fastoptim as fo

        class Rule(fo.Optimizer):
            def scalars(self):
                return ()
            @staticmethod
            def rule(p, g):
                if g > 0:
                    {statement}
                return p - g
    """)
    with pytest.raises(TypeError, match=r"for float64: a rule cannot raise or assert$"):
        names["Rule"]().update({"w": np.ones(3)}, {"w": np.ones(3)})


@pytest.mark.parametrize("slots", ["m", ("update",), ("iter",)])
def test_invalid_slots_are_an_error(slots):
    with pytest.raises(TypeError, match="slots"):
        type("Rule", (fo.Optimizer,), {"slots": slots})


def test_rule_without_scalars_is_an_error():
    class Rule(fo.Optimizer):
        @staticmethod
        def rule(p, g):
            return p - g

    with pytest.raises(NotImplementedError, match=r"Rule must define scalars\(\)"):
        Rule().update({"w": np.ones(3)}, {"w": np.ones(3)})


def test_slot_has_a_docstring():
    assert "None before the first update" in inspect.getdoc(fo.Adam.m)


def test_class_keywords_are_passed_to_other_bases():
    class Named:
        def __init_subclass__(cls, called, **kwargs):
            super().__init_subclass__(**kwargs)
            cls.called = called

    class Rule(fo.SGD, Named, called="mine"):
        pass

    assert Rule.called == "mine"


def test_arguments_in_another_order_than_the_slots_are_an_error():
    class Rule(fo.Optimizer):
        slots = ("m",)

        def scalars(self):
            return (0.1,)

        @staticmethod
        def rule(p, g, lr, m):
            return p - lr * g, m

    with pytest.raises(TypeError, match=r"expected \(p, g, m\) and then the scalars"):
        Rule().update({"w": np.ones(3)}, {"w": np.ones(3)})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_changed_global_is_seen_by_the_next_optimizer(dtype):
    names = from_text("""
        import fastoptim as fo

        C = 1.0

        class Rule(fo.Optimizer):
            def scalars(self):
                return ()
            @staticmethod
            def rule(p, g):
                return p - C * g
    """)
    params = {"w": np.zeros(2, dtype)}
    names["Rule"]().update(params, {"w": np.ones(2, dtype)})
    names["C"] = 2.0
    names["Rule"]().update(params, {"w": np.ones(2, dtype)})
    assert_array_equal(params["w"], [-3, -3])
