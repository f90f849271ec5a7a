"""Imports run downhill, in the order that docs/design.md shows."""

import ast
import re
import tomllib
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def read_layers(text):
    """Return the modules on each line of the list in the section "Imports", from the top to the bottom.

    A line may say something about its modules after a colon.
    """
    section = re.search(r"^## Imports\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]
    return [re.findall(r"`([\w.]+)`", line) for line in re.findall(r"^- ([^:\n]*)", section, re.MULTILINE)]


FOLDERS = {"": "src/fastoptim", "kernels.": "kernels"} | {
    f"{path.parent.name}.": path.parent.relative_to(ROOT) for path in (ROOT / "src/fastoptim").glob("*/__init__.py")
}
FILES = {f"{prefix}{path.stem}": path for prefix, folder in FOLDERS.items() for path in (ROOT / folder).glob("*.py")}
KNOWN = {f"fastoptim.{module}".removesuffix(".__init__"): module for module in FILES}
"""The modules by the names that they are imported by."""

LAYERS = read_layers((ROOT / "docs/design.md").read_text(encoding="utf-8"))
DEPTHS = {module: depth for depth, layer in enumerate(LAYERS) for module in layer}


def imported_modules(source):
    """Yield the modules of this package that a source imports: at its top, inside functions, and for types alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names = [name if (name := f"{node.module}.{alias.name}") in KNOWN else node.module for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (KNOWN.get(name, name) for name in names if name.split(".")[0] == "fastoptim")


def test_the_list_has_each_module_once():
    assert sorted(module for layer in LAYERS for module in layer) == sorted(FILES)


def test_the_wheel_has_each_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = sorted(f"fastoptim.{prefix}".rstrip(".") for prefix in FOLDERS)
    assert project["tool"]["setuptools"]["packages"] == packages


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_module_imports_only_what_lies_below_it(module):
    for other in imported_modules(FILES[module].read_text(encoding="utf-8")):
        assert DEPTHS[other] > DEPTHS[module], f"{module} imports {other}, which docs/design.md does not show below it"


def test_no_two_folders_import_each_other():
    arrows = defaultdict(set)
    for module, path in FILES.items():
        folder = module.rpartition(".")[0]
        others = {other.rpartition(".")[0] for other in imported_modules(path.read_text(encoding="utf-8"))}
        arrows[folder] |= others - {folder, ""} if folder else set()
    TopologicalSorter(arrows).prepare()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import fastoptim", ["__init__"]),
        ("import numpy, fastoptim.optimizer", ["optimizer"]),
        ("from fastoptim import optimizer, Adam, kernels", ["optimizer", "__init__", "kernels.__init__"]),
        ("from fastoptim.update.plan import Plan", ["update.plan"]),
        ("from fastoptim.kernels import rules", ["kernels.rules"]),
        ("from fastoptim.kernels.rules import sgd, adam", ["kernels.rules"] * 2),
        ("if TYPE_CHECKING:\n    from fastoptim.update.plan import Plan", ["update.plan"]),
        ("def f():\n    from fastoptim.update import plan", ["update.plan"]),
        ("from fastoptimum import plan\nimport fastoptimum", []),
    ],
)
def test_imports_are_found_in_every_form(source, expected):
    assert list(imported_modules(source)) == expected


def test_the_list_is_read_line_by_line():
    text = "## Design\n- `a`\n\n## Imports\nText, `a`.\n\n- `b` and `c`\n- `d.e`: above `f`\n- `f`\n\n## What\n- `g`\n"
    assert read_layers(text) == [["b", "c"], ["d.e"], ["f"]]
