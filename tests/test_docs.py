"""What the documents say runs, and the tests that they name exist."""

import ast
import doctest
import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import schedules
from fastoptim.family import FAMILY

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


READMES = sorted(ROOT.glob("README*.md"))


@pytest.mark.parametrize("page", READMES, ids=lambda path: path.stem)
def test_blocks_of_the_readme_run_alone_and_print_what_stands_beside(page, capsys):
    shown = []
    for _, block in code(page, "python"):
        exec(compile(block, page, "exec"), {})
        shown += re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    assert len(shown) > 1
    assert capsys.readouterr().out.splitlines() == shown


def test_both_readmes_show_the_same_edits_and_commands():
    ours, chinese = ([re.sub("  +#.*", "", block) for _, block in code(page, "diff|sh")] for page in READMES)
    assert [block.strip() for block in ours] == [block.strip() for block in chinese]


CHINESE = {READMES[1]: READMES[0]} | {page: DOCS / page.name for page in sorted((DOCS / "zh").glob("*.md"))}
"""The English page of each Chinese one."""


@pytest.mark.parametrize("page", CHINESE, ids=lambda path: path.stem)
def test_chinese_pages_have_the_code_of_the_english_ones(page):
    english, chinese = (
        [ast.dump(ast.parse(re.sub('""".*?"""', "...", block))) for _, block in code(path, "python")]
        for path in (CHINESE[page], page)
    )
    assert set(english) <= set(chinese)


SITE, FILES = "https://fastoptim.readthedocs.io/en/latest/", "https://github.com/fastoptim/fastoptim/blob/main/"
RAW = "https://raw.githubusercontent.com/fastoptim/fastoptim/main/"


@pytest.mark.parametrize("page", READMES, ids=lambda path: path.stem)
def test_addresses_of_the_readme_are_absolute_and_lead_to_pages(page):
    text = page.read_text(encoding="utf-8")
    addresses = re.findall(r"\]\(\s*([^)]*)\)|src=\"(.*?)\"", text)
    assert len(addresses) > 20
    for address in ("".join(found) for found in addresses):
        if address.startswith(SITE):
            name = address.removeprefix(SITE).removesuffix(".html")
            assert name == "gallery/index" or (DOCS / f"{name}.md").exists(), address
        elif address.startswith((FILES, RAW)):
            assert (ROOT / address.removeprefix(FILES).removeprefix(RAW)).exists(), address
        elif address.startswith("#"):
            headings = [line.lstrip("# ").lower() for line in text.splitlines() if line.startswith("## ")]
            assert address[1:].replace("-", " ") in headings, address
        else:
            assert address.startswith("https://"), address


def run_blocks(page):
    """Run the blocks of a page in their order, and return the names that they define."""
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
    return names


LIBRARIES = {"torch": "torch", "optax": "optax", "keras": "keras", "scikit-learn": "sklearn", "scipy": "scipy"}
"""The module of each page of docs/coming-from."""

BLOCKS = [path for path in PAGES if path.stem not in LIBRARIES and code(path, "python|pycon")]


@pytest.mark.usefixtures("small_mnist")
@pytest.mark.parametrize("page", BLOCKS, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_blocks_of_a_page_run_in_their_order(page):
    if page.stem == "mpi":
        pytest.importorskip("mpi4py")
    run_blocks(page)


def equivalents(page):
    """Yield both cells of each row of the tables that compare a library with this one."""
    for header, rows in re.findall(r"^(\|.*\|)\n\|[-|]+\|\n((?:\|.*\|\n)+)", page.read_text("utf-8"), re.MULTILINE):
        if header.endswith("| fastoptim |"):
            yield from (row.strip("|").split(" | ") for row in rows.splitlines())


OURS = """
import numpy as np
from scipy.optimize import Bounds
import fastoptim as fo
from fastoptim import schedules

params, grads = [{"W1": np.ones((2, 3)), "b1": np.ones(3), "x": np.ones(3)} for _ in range(2)]
opt, loss, schedule = fo.Adam(ema=0.9), 1.0, schedules.ReduceOnPlateau(0.1)
opt.update(params, grads)
net, x, t = fo.MultiLayerNet(64, [100], 10), np.ones((2, 64)), np.ones(2, int)
f, g, x0 = lambda x: np.sin(x).sum(), np.cos, np.zeros(3)
"""

THEIRS = {
    "torch": """
params, loss = list(model.parameters()), 1.0
for p in params:
    p.grad = torch.ones_like(p)
""",
    "scikit-learn": """
from sklearn.neural_network import MLPClassifier
import warnings
warnings.simplefilter("ignore")
model = MLPClassifier(max_iter=1).fit(x[:200], t[:200])
""",
    "scipy": """
from scipy.optimize import Bounds, minimize
f, g, x0 = lambda x: np.sin(x).sum(), np.cos, np.zeros(3)
""",
}
"""What the left cells use beside the names of the page; it runs before each row."""


@pytest.mark.parametrize("name", LIBRARIES)
def test_lines_beside_those_of_another_library_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(OURS, names)
    cells = [ours for _, ours in equivalents(DOCS / f"coming-from/{name}.md")]
    assert len(cells) > 5
    for line in re.findall(r"`(.+?)`", " ".join(cells)):
        exec(line, names)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Of Keras.
@pytest.mark.parametrize("name", LIBRARIES)
def test_pages_about_other_libraries_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip(LIBRARIES[name])
    monkeypatch.chdir(tmp_path)
    page = DOCS / f"coming-from/{name}.md"
    names = run_blocks(page)
    for theirs, _ in equivalents(page):
        exec(THEIRS.get(name, ""), names)
        for line in re.findall(r"`(.+?)`", theirs):
            exec(line, names)


def test_tables_of_optimizers_show_their_state_and_bytes():
    pages = "".join(path.read_text("utf-8") for path in (DOCS / "optimizers").glob("*.md"))
    rows = re.findall(r"^\| \[`(\w+)`\]\(#?\w*\) \| (.*?) \| (.*?) \|", pages, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == sorted(FAMILY)
    for name, state, n_bytes in rows:
        optimizer = getattr(fo, name)
        slots = [*optimizer.slots, *optimizer.optional_slots]
        assert re.findall(r"`(\w+)`", state) == slots, name
        # Each number is read and written, but the gradient only read; no kernel updates rules of whole arrays.
        expected = "–" if optimizer.array_slots is not fo.Optimizer.array_slots else str(12 + 8 * len(optimizer.slots))
        assert re.match(r"–|\w*", n_bytes)[0] == expected, name
        assert ("a pass for sums" in n_bytes) == bool(optimizer.measure), name


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
    bounded = [*project["dependencies"], *extras["compare"], *extras["bfloat16"], *extras["completion"]]
    bounded += [name for name in extras["test"] if ">=" in name]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert lines == sorted(bound.split(",")[0].replace(">=", "==") for bound in bounded)


def test_citation_names_this_version():
    assert f"\nversion: {fo.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
