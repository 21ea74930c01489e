PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
# Tests of one file share what they made, so a file stays in one process; more threads than cores slow all of them. The
# commands that tests start find our modules compiled.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

WAITING := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)# processes for tests that mostly wait for those they start

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow test-longest test-full test-gpu test-oldest golden lint format bench docs stream serve watch sample evaluate wikiart notebooks clean

help:  ## print this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# a CPU-only torch where there is no GPU and an index that has it is configured
$(BIN)/torch.txt: | $(BIN)/python
	@$(BIN)/python deploy/choose_torch.py > $@.part && mv $@.part $@

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c $(BIN)/torch.txt -e

# Compiled on all cores at once: else the first tests do it, each process for itself. A few modules need a newer Python.
$(BIN)/.installed: pyproject.toml | $(BIN)/torch.txt
	$(INSTALL) '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib diffusion_art || true
	@touch $@

$(BIN)/.trains: pyproject.toml | $(BIN)/torch.txt
	@echo "1. installing what training, painting and serving need into $(VENV), once (torch is the largest part);"
	@echo "2. then the command itself. A training says where to look, and after 20 steps how long it takes here."
	$(INSTALL) '.[train,serve]'
	@touch $@

# what runs a model needs less than what tests the code; where all is installed, that is enough
RUNS := $(if $(wildcard $(BIN)/.installed),$(BIN)/.installed,$(BIN)/.trains)

install: $(BIN)/.installed  ## make .venv and install everything but trackio and gcsfs into it

train: $(RUNS)  ## train the quickstart, or ARGS="+experiment=wikiart ..."
	$(BIN)/python -m diffusion_art.train $(or $(ARGS),+experiment=quickstart)

test: install  ## the default test suite, minutes on two cores
	$(PYTEST) -m "not slow and not gpu and not network" $(ARGS)

test-slow: install  ## the slow tests that CI runs
	$(PYTEST) -n $(WAITING) -m "slow and not longest and not gpu and not network" $(ARGS)

test-longest: install  ## the slow tests that CI has no room for
	$(PYTEST) -m "longest and not gpu and not network" $(ARGS)

test-full: install  ## also the slow tests
	$(PYTEST) -m "not gpu and not network" $(ARGS)

test-oldest:  ## the default suite with the lowest versions that pyproject.toml takes, in .venv-oldest
	test -x .venv-oldest/bin/uv || { $(PYTHON) -m venv .venv-oldest && .venv-oldest/bin/python -m pip install --quiet uv; }
	.venv-oldest/bin/uv pip compile --quiet pyproject.toml --extra dev --resolution lowest-direct \
		--python .venv-oldest/bin/python --output-file .venv-oldest/floors.txt
	PIP_CONSTRAINT=$(CURDIR)/.venv-oldest/floors.txt $(MAKE) test VENV=.venv-oldest/env

golden: install  ## write the golden trace of tests/golden anew, on purpose
	$(BIN)/python -m tests.golden.trace

test-gpu: install  ## what only a GPU can show, under three minutes on one
	$(BIN)/python -m pytest -m gpu -rs tests/gpu $(ARGS)

lint: install  ## ruff, import floors, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: install  ## let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## run every benchmark and write benchmarks/results/
	for script in $(filter-out benchmarks/record.py benchmarks/quality.py benchmarks/trainings.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit 1; done
	$(BIN)/python benchmarks/quality.py short=true

docs: install  ## build the site into site/, with warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet $(ARGS)

stream: $(RUNS)  ## serve shards, those of the quickstart or ARGS="data.path=..."
	$(BIN)/python -m diffusion_art.stream $(or $(ARGS),data.path=data/painter-64px)

serve: $(RUNS)  ## serve the quickstart model with a page at http://127.0.0.1:8000, or ARGS="run=..."
	$(BIN)/python -m diffusion_art.serve $(or $(ARGS),run=logs/quickstart)

watch: $(RUNS)  ## show all runs under logs/ at http://127.0.0.1:8050, or ARGS="logs=..."
	$(BIN)/python -m diffusion_art.watch $(ARGS)

sample: $(RUNS)  ## paint with the quickstart model, or ARGS="run=... 'prompts=[...]'"
	$(BIN)/python -m diffusion_art.sample $(or $(ARGS),run=logs/quickstart)

evaluate: $(RUNS)  ## measure caption following of the quickstart, or ARGS="run=..."
	$(BIN)/python -m diffusion_art.evaluate $(or $(ARGS),run=logs/quickstart)

wikiart: $(RUNS)  ## WikiArt into a served model, stage by stage, with an estimate first, or ARGS="until=estimate"
	$(BIN)/python -m diffusion_art.end_to_end $(ARGS)

notebooks: install  ## open the notebooks
	$(BIN)/python -m pip install --quiet jupyterlab && $(BIN)/jupyter lab notebooks

clean:  ## remove the environment and caches, never data or runs
	rm -rf $(VENV) .venv-oldest build dist site .pytest_cache .ruff_cache .import_linter_cache .hypothesis
