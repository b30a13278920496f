# Everything that a developer types. `make` alone lists the targets.
#
#   make install PYTHON=python3.12
#   make install PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"      (PyTorch without CUDA)

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
PYTEST_FLAGS ?=

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

# One thread a process: small models are slower on several.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.DEFAULT_GOAL := help
.PHONY: help install install-dev quickstart test lint format clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## Make .venv with latentplan, its command line and what the tests need

install-dev: $(VENV)/.installed-dev  ## The same, and what `make lint` and pre-commit need

quickstart: install  ## Train, reinforce and evaluate ATP-Latent and its baselines, and write the report
	$(BIN)/latentplan quickstart

test: install  ## Run the tests, with their coverage of src
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --cov --cov-report=term $(PYTEST_FLAGS)

lint: install-dev  ## Check style, formatting, types and the direction of imports; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: install-dev  ## Format the code, and correct what can be corrected by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## Remove .venv and every cache; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov dist build
	find src tests benchmarks -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("latentplan needs Python 3.11 to 3.13: make install PYTHON=python3.12" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@
