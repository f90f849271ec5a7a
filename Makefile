# Every target sets up what it needs in .venv, on a machine that has Python 3.11 or newer, and make.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m

.PHONY: help compare test test-lowest fuzz red soak wheel bench bench-quick bench-report targets against bench-check bench-peers parity docs docs-quick clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 13

compare: $(VENV)/.compare ## train the five networks of the notes; picture, losses and table in comparison/
	$(RUN) fastoptim compare --overwrite $(ARGS)

test: $(VENV)/.test ## lint; run all tests on all cores, and those of the optimizers and the network once more without compilation
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) pytest -n auto --dist worksteal $(ARGS)
	NUMBA_DISABLE_JIT=1 $(RUN) pytest -n auto -q tests/test_optimizers.py tests/test_network.py

parity: $(VENV)/.test ## install torch, optax, Keras, timm, schedulefree, prodigyopt; compare every rule; write docs/libraries.md
	$(RUN) pip install --quiet torch==2.13.0 torchvision==0.28.0
	$(RUN) pip install --quiet --editable '.[test,parity]'
	$(RUN) pytest tests/test_parity.py $(ARGS)
	$(VENV)/bin/python tools/libraries.py

test-lowest: ## run all tests with the lowest versions that pyproject.toml allows, in .venv-lowest; PYTHON=python3.11
	$(MAKE) VENV=.venv-lowest PIP_CONSTRAINT=constraints.txt .venv-lowest/.test
	.venv-lowest/bin/python -m pytest -n auto --dist worksteal $(ARGS)

soak: $(VENV)/.test ## kill processes that save checkpoints, 200 times, and ranks of MPI, 50 times: each file must be whole
	$(VENV)/bin/python tests/soak_checkpoints.py 200
	$(RUN) pip install --quiet --editable '.[mpi]'
	$(VENV)/bin/python tests/soak_mpi.py 50

fuzz: $(VENV)/.test ## compare the library with the oracle in EXAMPLES=200000 random sequences of updates (45 minutes)
	$(VENV)/bin/python tools/fuzz.py --examples $(or $(EXAMPLES),200000) $(ARGS)

red: $(VENV)/.test ## attack the library: caches of other versions and processors, forged checkpoints, kills (hours)
	$(VENV)/bin/python tools/red.py $(ARGS)

wheel: $(VENV)/.test ## build the wheel, try it and check its types where nothing else is installed
	rm -rf build dist
	$(RUN) build --wheel --outdir dist
	$(PYTHON) tools/try_wheel.py dist

bench: $(VENV)/.bench ## measure against every peer that is installed (25 minutes); targets, bench/report.md, charts
	$(RUN) bench.targets --measure --judge $(ARGS); code=$$?; $(RUN) bench.report && exit $$code

bench-quick: $(VENV)/.bench ## measure what the targets ask for (5 minutes); print the figures beside the targets
	$(RUN) bench.targets --measure --quick $(ARGS)

bench-report: $(VENV)/.bench ## write bench/report.md and the charts of what make bench has measured, even if it was interrupted
	$(RUN) bench.report $(ARGS)

targets: $(VENV)/.bench ## judge the last measurement: exit code 1 if it misses a target
	$(RUN) bench.targets --judge $(ARGS)

against: $(VENV)/.bench ## time updates in turns with those of a commit, REV=edaf04f, and the first update
	$(VENV)/bin/python tools/against.py $(REV) $(ARGS)

bench-check: $(VENV)/.bench ## run each benchmark once, with timing off
	$(RUN) pytest bench -q --benchmark-disable -n auto $(ARGS)

bench-peers: $(VENV)/.bench ## install torch, jax and optax, to be measured against
	$(RUN) pip install --quiet torch==2.13.0
	$(RUN) pip install --quiet --editable '.[bench,peers]'

docs: $(VENV)/.docs ## run the gallery and build docs/_build/html; a warning or a dead link is an error
	GALLERY=$(or $(GALLERY),1) $(RUN) sphinx -W --keep-going -n -d docs/_build/doctrees docs docs/_build/html $(ARGS)

docs-quick: ## the same without running the scripts of the gallery
	$(MAKE) docs GALLERY=0

clean: ## delete all that was built, compiled or installed
	rm -rf $(VENV) .venv-lowest build dist comparison docs/_build docs/gallery docs/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +

# One environment; a stamp for each extra says that it is installed as pyproject.toml has it now.
$(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(RUN) pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
