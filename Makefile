# Needs a Python >= 3.11 with pip and venv; everything else is installed into $(VENV).
#
#   make demo    install, then compare methods on the built-in demo tasks
#   make check   tests, lint, types, import layers
#   make bench   speed and memory beside PEFT and AdapterHub's library (hours); BENCH_ARGS=--quick to see it work
#   make slow    the tests that take more than a few seconds
#
# PYTHON=... picks the interpreter, VENV=... the environment, PYTEST_ARGS=... what pytest is given,
# BENCH_ARGS=... what `python -m benchmarks run` is given.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
TORCH ?= torch==2.13.0
PYTEST_ARGS ?= -n 2
PYTHON ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.PHONY: help demo test lint fmt types layers check slow bench docs clean

help:
	@sed -n 's/^#   //p' Makefile

# ---------------------------------------------------------------- set-up, redone only when pyproject.toml changes
$(BIN)/python:
	@found=; \
	for candidate in $(PYTHON) $(if $(PYTHON),,python3 python3.13 python3.12 python3.11 python3.14 python); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        found=$$candidate; break; \
	    fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "unipetl needs Python 3.11 or newer with its venv module (on Debian: python3-venv)." >&2; \
	    echo "Tried: $(if $(PYTHON),$(PYTHON),python3 ($$(python3 --version 2>/dev/null || echo 'not working')) and python3.11 to python3.14). Name another one with: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	fi; \
	echo "Creating $(VENV) with $$found ($$("$$found" --version))"; \
	"$$found" -m venv $(VENV)

# torch first and pinned: the rest then builds on the version that the tests were run with.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet '$(TORCH)'
	$(PIP) install --quiet -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(PIP) install --quiet -e '.[dev]'
	@touch $@

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.installed
	$(PIP) install --quiet -e '.[docs]'
	@touch $@

# ---------------------------------------------------------------- what people run
demo: $(VENV)/.installed
	$(BIN)/unipetl compare --demo --quick

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

bench: $(VENV)/.installed-dev
	$(BIN)/nox -s bench -- $(BENCH_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

layers: $(VENV)/.installed-dev
	$(BIN)/lint-imports --no-logo

check: test lint types layers

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf dist build docs/_build .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
