"""What the documents say runs, and the tests that they name exist."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fastoptim as fo

ROOT = Path(__file__).parent.parent


PAGES = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/libraries.md"))


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGES, re.DOTALL))
def test_the_pages_run_as_they_are_written(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = rng.random((500, 784), np.float32), rng.integers(0, 10, 500)
    monkeypatch.setattr(fo, "load_mnist", lambda: (images, images))
    exec(block, {})


@pytest.mark.parametrize("document", ["docs/guarantees.md", "docs/inputs.md"])
def test_named_tests_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)?(?:::)?(test_\w+)?`", text)
    assert len(named) > 20
    for file, test in named:
        source = (ROOT / "tests" / (file or "test_errors.py")).read_text(encoding="utf-8")
        assert f"def {test or 'test_'}" in source, (file, test)


def test_constraints_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    bounded = [*project["dependencies"], *extras["compare"], *(name for name in extras["test"] if ">=" in name)]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert lines == sorted(bound.split(",")[0].replace(">=", "==") for bound in bounded)


def test_citation_names_this_version():
    assert f"\nversion: {fo.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
