"""A library that fails loses its own figure only, and what is measured is in the file at once."""

import numpy as np
import pytest

from .cases import Update
from .conftest import Record, measured
from .peers import check
from .results import Results
from .timing import Contestant, Failed, Pacing, blaming, nothing, race

FEW = Pacing(seconds=0, min_rounds=2, block=1e-5, lead=0, pause=0)


def fail():
    raise RuntimeError("no")


def start(names):
    for name in names:
        with blaming(name):
            if name == "cannot start":
                fail()
    return race({name: Contestant(fail if name == "cannot run" else nothing) for name in names}, FEW)


def test_those_that_work_race_without_those_that_fail():
    found = measured(start, ["a", "cannot start", "b", "cannot run"])
    assert [len(found[name]) for name in "ab"] == [2, 2]
    assert all(isinstance(found[f"cannot {what}"], Failed) for what in ("start", "run"))
    assert str(found["cannot run"]) == "cannot run: RuntimeError: no"


def test_an_error_of_no_library_is_that_of_all():
    found = measured(lambda _: fail(), ["a", "b"])
    assert all(isinstance(error, RuntimeError) for error in found.values())


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_a_library_with_other_results_fails(value):
    params = {"W": np.ones(3, np.float32)}
    result = {"W": np.full(3, value, np.float32)}
    with pytest.raises(Failed, match="other: AssertionError: W differs"):
        check(Update("SGD", 3), {"other": Contestant(nothing, lambda: result)}, params, params)


def test_each_line_is_in_the_file_at_once(pytestconfig, tmp_path):
    path = tmp_path / "all.jsonl"
    record = Record(path)
    record.start(pytestconfig)
    record.add(group="g", case="c", library="a", samples=[3.0, 1.0, 2.0], extra={"k": 1})
    record.add(group="g", case="c", library="b", error="b: no")
    results = Results.load(path)
    assert results.get("g", "c")["a"].median == 2
    assert results.get("g", "c")["a"].extra == {"k": 1}
    assert results.failures == ["g, c, b: no"]
    assert not results.ended
    record.add(ended=True)
    assert Results.load(path).ended
    assert Results.load(path).machine["node"] == ""
