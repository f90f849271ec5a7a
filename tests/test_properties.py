"""Hypothesis draws what nobody would write down: the oracle runs beside the library, step by step.

With CI set in the environment Hypothesis itself takes its "ci" profile, which repeats the same examples every time.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastoptim as fo
import naive
from naive import assert_step, draw

HYPER = {
    "lr": (1e-4, 2),
    "momentum": (0.05, 0.99),
    "decay_rate": (0.05, 0.999),
    "beta1": (0.05, 0.99),
    "beta2": (0.5, 0.999),
}
# Along one axis: the distance of neighbours in elements, negative if it runs backwards, and how many elements precede.
STRIDES = st.tuples(st.sampled_from([1, 1, 2, -1, -3]), st.integers(0, 2))


@st.composite
def layouts(draw_from, ndim):
    """An order of the axes in memory, and the strides along each."""
    return draw_from(st.permutations(range(ndim))), draw_from(st.tuples(*[STRIDES] * ndim))


def lay(a, layout):
    """The same values in memory of this layout."""
    axes, strides = layout
    shape = [abs(step) * n + before for n, (step, before) in zip(a.shape, strides, strict=True)]
    view = np.full([shape[axis] for axis in axes], 7, a.dtype).transpose(np.argsort(axes))
    view = view[(*[slice(before, None, abs(step)) for step, before in strides], ...)]
    view = view[(*[slice(None, None, -1 if step < 0 else 1) for step, _ in strides], ...)]
    view[...] = a
    return view


@st.composite
def entries(draw_from):
    """One key's value and gradient, as a function of a random generator."""
    kind = draw_from(st.sampled_from(["array"] * 5 + ["float", "float32", "float64"]))
    if kind != "array":
        cast = {"float": float, "float32": np.float32, "float64": np.float64}[kind]
        return lambda rng: (cast(draw(rng)), cast(draw(rng)))
    shape = draw_from(st.lists(st.integers(0, 5), max_size=3))
    p_dtype = draw_from(st.sampled_from([np.float32, np.float64]))
    g_dtype = draw_from(st.sampled_from([p_dtype, p_dtype, np.float16, np.float32, np.float64]))
    p_layout, g_layout = (draw_from(layouts(len(shape))) for _ in range(2))
    return lambda rng: (lay(draw(rng, shape, p_dtype), p_layout), lay(draw(rng, shape, g_dtype), g_layout))


@st.composite
def stories(draw_from, keys):
    """The entries of a dict, and what happens before each of some steps."""
    made = draw_from(st.dictionaries(keys, entries(), max_size=6))
    steps = draw_from(
        st.lists(
            st.fixed_dictionaries(
                {
                    "seed": st.integers(0, 2**32 - 1),
                    "hyper": st.fixed_dictionaries({}, optional={k: st.floats(*ends) for k, ends in HYPER.items()}),
                    "rebind": st.sets(st.sampled_from(list(made))) if made else st.just(set()),
                    "leave out": st.sets(st.sampled_from(list(made)), max_size=2) if made else st.just(set()),
                    "surplus": st.booleans(),
                    "threads": st.integers(1, 4),
                }
            ),
            min_size=1,
            max_size=4,
        )
    )
    return made, steps


@pytest.mark.parametrize("name", naive.RULES)
@settings(deadline=None, max_examples=60)
@given(story=stories(st.text(max_size=3) | st.integers(-1, 3)))
def test_any_dict(name, story):
    entries, steps = story
    opts = ref_opt, comp_opt = getattr(naive, name)(), getattr(fo, name)()
    worlds = [{key: make(np.random.default_rng(i))[0] for i, (key, make) in enumerate(entries.items())} for _ in opts]
    for count, step in enumerate(steps):
        for opt, world in zip(opts, worlds, strict=True):
            rng = np.random.default_rng(step["seed"])
            world.update({key: entries[key](rng)[0] for key in entries if key in step["rebind"]})
            for key, value in step["hyper"].items():
                if hasattr(opt, key):
                    setattr(opt, key, value)
        # The first step meets every key, for later ones could not be new.
        gone = step["leave out"] if count else set()
        ref, comp = ({key: world[key] for key in world if key not in gone} for world in worlds)
        grads = {
            key: make(np.random.default_rng([step["seed"], i]))[1] for i, (key, make) in enumerate(entries.items())
        }
        if step["surplus"]:
            grads["surplus"] = None
        with fo.num_threads(step["threads"]):
            # Where a step of any size cancels with its parameter, its four roundings count up to twice as much.
            assert_step(ref_opt, comp_opt, ref, comp, grads, grads, ulps=8)
        for world, params in zip(worlds, (ref, comp), strict=True):
            world.update(params)


@pytest.mark.parametrize("name", naive.RULES)
@settings(deadline=None, max_examples=30)
@given(
    shapes=st.lists(st.lists(st.integers(0, 6), max_size=3), min_size=1, max_size=6),
    dtype=st.sampled_from([np.float32, np.float64]),
    flat=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**32 - 1),
)
def test_flat_dicts(name, shapes, dtype, flat, seed):
    """Views over one buffer, views over two, and one of each."""
    rng = np.random.default_rng(seed)
    params, *steps = ({f"p{i}": draw(rng, shape, dtype) for i, shape in enumerate(shapes)} for _ in range(4))
    comp = fo.flatten(params) if flat[0] else {key: a.copy() for key, a in params.items()}
    ref_opt, comp_opt = getattr(naive, name)(), getattr(fo, name)()
    for grads in steps:
        assert_step(ref_opt, comp_opt, params, comp, grads, fo.flatten(grads) if flat[1] else grads)
