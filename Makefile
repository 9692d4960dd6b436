# make train   train a small reasoner with PASS and compare it with GRPO (about ten minutes on a CPU)
# make test    every check: linter, types, layering, tests
# make bench   what shaping costs

VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
ARGS ?=

export OMP_NUM_THREADS = 1
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: train test lint types bench clean

train: $(VENV)/.train
	$(BIN)/stepcredit train $(ARGS)

test: $(VENV)/.dev lint types
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/shaping.py

# torch first and alone: a resolver that chooses it for another package's sake may take a CUDA build
$(VENV)/.python: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	touch $@

$(VENV)/.train: $(VENV)/.python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train]"
	touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.train

clean:
	rm -rf $(VENV)
