"""The notebooks run from the first cell to the last, and are kept without outputs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"

SHORT = {"compare": 'data, iterations = "digits", 110', "custom_rule": "iterations = 60"}
"""What replaces the cell of parameters."""

EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""
"""It runs in a process of its own: Jupyter's libraries warn, and warnings are errors here."""


def cells(path):
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_is_kept_without_outputs(name):
    for cell in cells(FOLDER / f"{name}.ipynb"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_every_notebook_is_run():
    assert sorted(SHORT) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a notebook with other parameters, and returns the outputs of each cell of code."""

    def run(name):
        notebook = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))
        (parameters,) = (cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ()))
        parameters["source"] = SHORT[name]
        path = tmp_path / f"{name}.ipynb"
        path.write_text(json.dumps(notebook), "utf-8")
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            monkeypatch.setenv(variable, str(tmp_path / "jupyter"))
        command = [sys.executable, "-c", EXECUTE, path]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert process.returncode == 0, process.stderr[-3000:]
        return [cell["outputs"] for cell in cells(path)]

    return run


def shown(outputs, kind):
    return ["".join(output["data"][kind]) for output in outputs if kind in output.get("data", {})]


def test_compare(run):
    _, _, trained, losses, optimizer, network, by_hand, other, _ = run("compare")
    assert len(shown(trained, "image/png")) == 1
    (table,) = shown(trained, "text/html")
    assert table.count("<tr>") == 6
    assert "RMSprop" in table
    assert "RMSprop" in shown(losses, "text/plain")[0]
    assert "SGD" in shown(optimizer, "text/html")[0]
    assert "softmax" in shown(network, "text/html")[0]
    assert "0.3" in shown(by_hand, "text/plain")[0]
    assert "Nesterov" in shown(other, "text/html")[0]


def test_custom_rule(run):
    _, _, _, _, mistake, step, picture, ends, state = run("custom_rule")
    assert "a rule cannot sum or average elements" in "".join(mistake[0]["text"])
    assert "SignMomentum" in shown(step, "text/html")[0]
    assert len(shown(picture, "image/png")) == 1
    assert "falling" in shown(ends, "text/plain")[0]
    assert shown(state, "text/html")[0].startswith("<div>FlatDict: 1 arrays, 2 elements")
