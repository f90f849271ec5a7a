"""What the documents say runs, and the tests that they name exist."""

import doctest
import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import schedules

ROOT = Path(__file__).parent.parent


DOCS = ROOT / "docs"
BUILT = {"_build", "gallery", "generated"}
"""The folders of docs/ that Sphinx writes."""

PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.relative_to(DOCS).parts[0] not in BUILT]


def code(path, language):
    """Return the blocks of code of a page, each with an empty line for each line of the page before it."""
    text = path.read_text(encoding="utf-8")
    blocks = re.finditer(rf"^```({language})\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(found[1], "\n" * text.count("\n", 0, found.start(2)) + found[2]) for found in blocks]


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """Images like those of MNIST, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = rng.random((500, 784), np.float32), rng.integers(0, 10, 500)
    monkeypatch.setattr(fo, "load_mnist", lambda: (images, images))


@pytest.mark.usefixtures("small_mnist")
@pytest.mark.parametrize("block", [block for _, block in code(ROOT / "README.md", "python")])
def test_blocks_of_the_readme_run_alone(block):
    exec(block, {})


@pytest.mark.usefixtures("small_mnist")
@pytest.mark.parametrize("page", [path for path in PAGES if code(path, "python|pycon")], ids=lambda path: path.stem)
def test_blocks_of_a_page_run_in_their_order(page):
    names = {"__name__": page.stem}
    for language, block in code(page, "python|pycon"):
        if language == "python":
            exec(compile(block, page, "exec"), names)
            continue
        example = doctest.DocTestParser().get_doctest(block, names, page.name, str(page), 0)
        output = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(example, out=output.append, clear_globs=False)
        names.update(example.globs)
        assert not runner.failures, "".join(output)


def test_the_api_page_has_every_public_name():
    listed = re.findall(r"^   ([A-Za-z_]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    modules = {name for name in dir(fo) if inspect.ismodule(getattr(fo, name))}
    public = {*dir(fo), *schedules.__all__} - modules - {"__version__"}
    assert sorted(listed) == sorted(public)


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
