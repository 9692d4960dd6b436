# make train   train a small reasoner with PASS and compare it with GRPO (about five minutes on two CPU cores)
# make test    every check: linter, types, layering, tests
# make test ROOM=credit   the tests of one room, without the linters
# make test-verl   the tests of verl's engine, in an environment of its own
# make test-wheel   builds the package, installs it in an empty environment and tries it
# make test-trl-next   the tests of TRL's engine on the newest TRL there is
# make test-environments   builds each environment of docs/versions.md and runs its engine's tests; ROWS="trl-oldest" one
# make docs   the documentation's site, in site/; a broken link or an undocumented name fails
# make evidence-quick   reruns a part of the study and checks that it agrees (under 15 minutes)
# make bench   what shaping costs; ARGS=--check fails where a bar is missed

VENV ?= .venv
VERL ?= .venv-verl
WHEEL ?= .venv-wheel
TRL_NEXT ?= .venv-trl-next
ENVIRONMENTS ?= .venv-environments
ROWS ?=
PYTHON ?= python3
BIN = $(VENV)/bin
ARGS ?=

export OMP_NUM_THREADS = 1
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: train evidence-quick test test-verl test-wheel test-trl-next test-environments lint types docs bench clean

train: $(VENV)/.train
	$(BIN)/stepcredit train $(ARGS)

evidence-quick: $(VENV)/.study
	rm -f runs/quick.sqlite
	mkdir -p runs
	$(BIN)/stepcredit study run quick --store runs/quick.sqlite
	$(BIN)/stepcredit study check runs/quick.sqlite evidence/study.sqlite

ifdef ROOM
test: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist worksteal $(or $(wildcard tests/$(ROOM) src/stepcredit/$(ROOM)),$(error there is no room $(ROOM)))
else
test: $(VENV)/.dev lint types
	$(BIN)/pytest -n 2 --dist worksteal
endif

test-verl: $(VERL)/.ready
	$(VERL)/bin/pytest tests/engines/verl

test-wheel: $(VENV)/.dev
	rm -rf $(WHEEL)
	$(BIN)/python -m build --outdir $(WHEEL)/dist . > /dev/null
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(WHEEL)/venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(WHEEL)/dist/*.whl
	$(WHEEL)/venv/bin/python tools/installed.py README.md

test-trl-next: $(TRL_NEXT)/.ready
	-$(TRL_NEXT)/bin/python tools/trl_next.py
	$(TRL_NEXT)/bin/pytest tests/engines/trl

test-environments: $(VENV)/.dev
	mkdir -p $(ENVIRONMENTS)
	$(BIN)/python tools/environments.py $(ENVIRONMENTS) $(ROWS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python tools/check_docs.py site

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/shaping.py $(ARGS)

# torch first and alone: a resolver that chooses it for another package's sake may take a CUDA build
$(VENV)/.python: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	touch $@

$(VENV)/.train: $(VENV)/.python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train]"
	touch $@

$(VENV)/.study: $(VENV)/.python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[study]"
	touch $@ $(VENV)/.train

$(VENV)/.dev: $(VENV)/.python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.train $(VENV)/.study

# verl wants another transformers than the newest TRL, hence another environment
$(VERL)/.ready: requirements-verl.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VERL)
	$(VERL)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VERL)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-verl.txt
	$(VERL)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# the newest TRL, beside the tested versions of all else but what it needs newer
$(TRL_NEXT)/.ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(TRL_NEXT)
	$(TRL_NEXT)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(TRL_NEXT)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	$(TRL_NEXT)/bin/pip install --quiet --disable-pip-version-check --upgrade trl
	touch $@

clean:
	rm -rf $(VENV) $(VERL) $(WHEEL) $(TRL_NEXT) $(ENVIRONMENTS)
