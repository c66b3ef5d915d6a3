# Each target sets up all it needs in .venv; Python 3.11+ is enough. Another one, beside it:
#   make test PYTHON=python3.12 VENV=.venv-3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast slow parity lint format bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       install, then train a tiny policy from nothing on this machine"
	@echo "make test       install, then the checks of every change: lint, format, tests"
	@echo "make test-fast  a few minutes of them, one kind each: for another Python or another jax"
	@echo "make slow       install, then the tests that make test leaves out because they take long"
	@echo "make parity     install PyTorch as well, then compare every model family with transformers"
	@echo "make lint       lint and format checks alone"
	@echo "make format     rewrite files in the project's format"
	@echo "make bench      install, then the speed benchmarks"
	@echo "make clean      remove the environment and all caches; runs/ stays"

demo: $(VENV)/installed-run
	$(BIN)/jaxrl-reason demo

# Files of tests stay whole: the tests of one share what is costly to make.
test: lint
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist loadfile --no-loadscope-reorder

# One of each kind that a new version of a package breaks; the second of `.ci/run`.
FAST := tests/test_imports.py tests/test_docs.py tests/test_config.py tests/test_plan.py tests/test_sharding.py \
	tests/test_checkpoint.py tests/test_sft.py tests/test_prm_training.py tests/algos/test_update.py \
	tests/ops/test_liveness.py tests/rollout/test_sampler.py tests/methods/test_iop.py

test-fast: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist loadfile --no-loadscope-reorder $(FAST)

slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -m slow -n auto --dist loadfile --no-loadscope-reorder

# Warnings of PyTorch and XLA are not ours.
parity: $(VENV)/installed-parity
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python -m pytest -q -s -W default tests/parity/live.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-run
	@for name in alignment verifier sandbox similarity; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON): not found. Install Python 3.11 or later, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$("$(PYTHON)" --version), but 3.11 or later is needed. Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) lacks venv or ensurepip. On Debian and Ubuntu: apt install python3-venv; or name another Python: make PYTHON=..." >&2; exit 1; }
	@rm -rf $(VENV)
	"$(PYTHON)" -m venv $(VENV)

# pip's own output appears only where it fails.
$(VENV)/installed-run: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) with test tools (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/installed-run

$(VENV)/installed-parity: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) with PyTorch (many minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,parity]'
	@touch $@ $(VENV)/installed-test $(VENV)/installed-run
