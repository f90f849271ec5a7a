"""The files of releases, from a file of made-up times."""

import json

import pytest

from . import history
from .cases import NOTES, Update
from .peers import OURS
from .results import Results
from .targets import TARGETS

CASE = Update("Adam", NOTES).id


@pytest.fixture
def measured(tmp_path):
    head = {
        "machine": {"versions": {"fastoptim": "0.10.0"}, "threads": 2, "cpu": {}, "processor": "x"},
        "commit": {},
        "when": "2020-02-02T20:20:20",
    }
    lines = [
        {"group": "update", "case": CASE, "library": library, "samples": [seconds], "extra": {}, "others": 0}
        for library, seconds in ((OURS, 1e-6), ("NumPy", 12.345e-6))
    ]
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (head, *lines)), encoding="utf-8")
    return path


def end(path):
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"ended": True, "others": 0}) + "\n")


def test_each_headline_is_a_target():
    assert {what for names in history.HEADLINES.values() for what in names} <= {target.what for target in TARGETS}


def test_a_release_is_added_once(measured, tmp_path):
    end(measured)
    for version in ("0.9.0", "0.11.0"):
        (tmp_path / f"{version}.json").write_text(json.dumps({"version": version, "figures": {}}), encoding="utf-8")
    history.main(measured, tmp_path)
    versions = [release["version"] for release in history.releases(tmp_path)]
    assert versions == ["0.9.0", "0.10.0", "0.11.0"]
    assert history.releases(tmp_path)[1]["figures"] == {"ten arrays, flat dict: faster than NumPy": 12.3}
    with pytest.raises(SystemExit, match=r"0\.10\.0\.json exists"):
        history.main(measured, tmp_path)


def test_an_interrupted_run_is_no_release(measured, tmp_path):
    with pytest.raises(SystemExit, match="interrupted"):
        history.main(measured, tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_the_chart_has_a_point_for_each_release_and_one_for_this_measurement(measured):
    figure = history.draw(Results.load(measured))
    n_points = len(history.releases()) + 1
    assert all(len(line.get_xdata()) == n_points for axes in figure.axes for line in axes.get_lines())
