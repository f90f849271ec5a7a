"""Install the wheel of a folder into an empty environment, and use and type-check it from another folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ONE_UPDATE = """
import numpy, fastoptim
params = {"w": numpy.ones(3)}
fastoptim.SGD(lr=0.5).update(params, {"w": numpy.ones(3)})
assert params["w"].tolist() == [0.5, 0.5, 0.5], params
print("one update:", params)
"""


def main(folder: str) -> None:
    (wheel,) = Path(folder).resolve().glob("*.whl")
    with tempfile.TemporaryDirectory() as place:
        environment = Path(place) / "venv"
        venv.create(environment, with_pip=True)
        bin_ = environment / ("Scripts" if sys.platform == "win32" else "bin")

        def run(*command: str) -> None:
            print("$", *command, flush=True)
            subprocess.run([bin_ / command[0], *command[1:]], cwd=place, check=True)

        run("python", "-m", "pip", "install", "--quiet", str(wheel))
        run("python", "-W", "error", "-c", ONE_UPDATE)
        run("python", "-m", "pip", "install", "--quiet", f"{wheel}[compare]", "mypy")
        run("fastoptim", "compare", "--iterations", "20", "--output", "comparison")
        run("python", "-m", "mypy", "--config-file", str(Path("pyproject.toml").resolve()), "--package", "fastoptim")


if __name__ == "__main__":
    main(*sys.argv[1:])
