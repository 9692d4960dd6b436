# make train   train a small reasoner with PASS and compare it with GRPO (about ten minutes on a CPU)
# make test    every check: linter, types, layering, tests
# make test-verl   the tests of verl's engine, in an environment of its own
# make bench   what shaping costs

VENV ?= .venv
VERL ?= .venv-verl
PYTHON ?= python3
BIN = $(VENV)/bin
ARGS ?=

export OMP_NUM_THREADS = 1
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: train test test-verl lint types bench clean

train: $(VENV)/.train
	$(BIN)/stepcredit train $(ARGS)

test: $(VENV)/.dev lint types
	$(BIN)/pytest -n 2 --dist worksteal

test-verl: $(VERL)/.ready
	$(VERL)/bin/pytest tests/engines/verl

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

# verl wants another transformers than the newest TRL, hence another environment
$(VERL)/.ready: requirements-verl.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VERL)
	$(VERL)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VERL)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-verl.txt
	$(VERL)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) $(VERL)
