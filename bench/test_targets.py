"""The command `python -m bench.targets`, on files of made-up times."""

import json
import os
import sys

import pytest

from . import targets
from .cases import irregular_updates
from .peers import CEILING, OURS
from .targets import main

ALL = list(irregular_updates())


@pytest.fixture
def command(monkeypatch, tmp_path):
    monkeypatch.setattr(targets, "FOLDER", tmp_path)

    def command(*options):
        monkeypatch.setattr(sys, "argv", ["targets", *options])
        return main()

    return command


def write(path, ratios, age=0):
    """Write a measurement in which NumPy takes these multiples of our time."""
    head = {"machine": {"versions": {}, "threads": 2}, "commit": {}, "when": "2020-02-02T20:20:20"}
    lines = [
        {"group": case.group, "case": case.id, "library": library, "samples": [seconds], "extra": {}, "others": 0}
        for case, ratio in ratios.items()
        for library, seconds in ((OURS, 1e-6), ("NumPy", 1e-6 * ratio))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in (head, *lines)), encoding="utf-8")
    os.utime(path, (1e9 - age, 1e9 - age))


def against(path, ratio, gradient=0.01):
    name = "gradient 784-100-100-100-100-10 batch 1 density 0.19, one thread"
    cases = {"Adam 10 flat, one thread": ratio, name: gradient}
    cases = {case: {"this": 1e-6 * ratio, "other": 1e-6} for case, ratio in cases.items()}
    path.write_text(json.dumps({"commit": "new", "rev": "old", "cases": cases}), encoding="utf-8")


def test_only_judge_makes_a_miss_an_error(command, tmp_path):
    write(tmp_path / "quick.jsonl", dict.fromkeys(ALL, 0.01))
    assert command() == 0
    assert command("--judge") == 1
    write(tmp_path / "quick.jsonl", dict.fromkeys(ALL, 100))
    assert command("--judge") == 0


def test_the_last_measurement_is_judged(command, tmp_path):
    write(tmp_path / "quick.jsonl", dict.fromkeys(ALL, 0.01), age=5)
    write(tmp_path / "all.jsonl", dict.fromkeys(ALL, 100))
    assert command("--judge") == 0
    assert command("--judge", "--quick") == 1


def test_nothing_measured_is_an_error(command, capsys):
    with pytest.raises(SystemExit):
        command("--judge")
    assert "make bench-quick" in capsys.readouterr().err


def test_an_interrupted_run_is_reported_as_such(command, tmp_path, capsys):
    path = tmp_path / "quick.jsonl"
    write(path, dict.fromkeys(ALL, 100))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"group": "strided", "case": "half a li')
    command()
    assert "interrupted" in capsys.readouterr().out


def test_a_library_that_fails_is_named(command, tmp_path, capsys):
    path = tmp_path / "quick.jsonl"
    write(path, dict.fromkeys(ALL, 100))
    with path.open("a", encoding="utf-8") as file:
        for line in ({"group": "network", "case": "loss", "library": "x", "error": "x: no"}, {"ended": True}):
            file.write(json.dumps(line | {"others": 0}) + "\n")
    command()
    out = capsys.readouterr().out
    assert "failed: network, loss, x: no" in out
    assert "interrupted" not in out


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_each_irregular_case_is_judged(case, command, tmp_path):
    write(tmp_path / "quick.jsonl", {**dict.fromkeys(ALL, 100), case: 0.01})
    assert command("--judge") == 1


def test_a_network_that_is_slower_than_before_misses(command, tmp_path):
    write(tmp_path / "quick.jsonl", dict.fromkeys(ALL, 100))
    against(tmp_path / "against.json", 1, gradient=0.99)
    assert command("--judge") == 0
    against(tmp_path / "against.json", 1, gradient=1.01)
    assert command("--judge") == 1


def test_a_network_is_limited_by_its_products(command, tmp_path, capsys):
    path, case = tmp_path / "quick.jsonl", "gradient 784-100-100-100-100-10 batch 1 density 0.19 1 thread"
    write(path, dict.fromkeys(ALL, 100))
    line = {"group": "network", "case": case, "library": CEILING, "samples": [0.4e-6], "extra": {}, "others": 0}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    against(tmp_path / "against.json", 1, gradient=0.5)
    command()
    row = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("both, batch 1,"))
    assert row.split(": ")[1].split()[4:8] == ["2×", "1×", "1.2×", "2.5×"]


def test_ratios_to_another_commit_are_upper_bounds(command, tmp_path):
    write(tmp_path / "quick.jsonl", dict.fromkeys(ALL, 100))
    against(tmp_path / "against.json", 1.02)
    assert command("--judge") == 0
    against(tmp_path / "against.json", 1.04)
    assert command("--judge") == 1
