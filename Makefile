# Fresh machine: `make demo`, then `make test`. Nothing else is needed first.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
KEEP ?=
BENCH ?=
RUNS ?= 1000000
SEED ?= 1
FAULT ?=
MESSAGES ?=
STORM_SEED ?=

.PHONY: help demo chaos test test-guards check fmt soak fuzz bench guard clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.base:
	@command -v "$(PYTHON)" >/dev/null && "$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: Sluice needs Python 3.11 or 3.12 (the embedded Triton's stub stops there). Try: make PYTHON=python3.11 ..." >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.embedded: $(VENV)/.base pyproject.toml
	@echo "installing Sluice and the embedded stack into $(VENV) (about a minute, once)"
	$(PIP) -e '.[embedded]'
	@touch $@

$(VENV)/.dev: $(VENV)/.embedded pyproject.toml
	@echo "installing the test tools into $(VENV)"
	$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.embedded ## Run the main job on a real Kafka and a real Triton, then shut down (KEEP=1 leaves them up)
	@exec $(BIN)/sluice demo $(if $(KEEP),--keep)

test: $(VENV)/.dev ## Run the test suite
	$(BIN)/python -m pytest -m "not soak and not guards and not chaos"

$(VENV)/.guards: $(VENV)/.dev pyproject.toml
	@echo "installing PyTorch and TensorRT's builder into $(VENV) (6 GB, once)"
	$(PIP) -e '.[guards,train]'
	@touch $@

test-guards: $(VENV)/.guards ## Run the tests of export, compile and training; they need PyTorch
	$(BIN)/python -m pytest -m guards

chaos: $(VENV)/.dev ## Run every fault of the catalogue and write tests/chaos/RESULTS.md (FAULT=name: only that one)
	rm -rf "$${SLUICE_HOME:-.sluice}/chaos"
	@status=0; $(BIN)/python -m pytest -m chaos tests/chaos $(if $(FAULT),-k $(FAULT)) || status=1; \
	  $(if $(FAULT),,$(BIN)/python -m tests.chaos.table || status=1;) exit $$status

soak: $(VENV)/.dev ## Run the long crash tests; MESSAGES=1000000 STORM_SEED=7: only the storm, at that size
	SOAK_MESSAGES=$(MESSAGES) STORM_SEED=$(STORM_SEED) \
	  $(BIN)/python -m pytest -m soak -s $(if $(MESSAGES),tests/chaos/test_storm.py)

$(VENV)/.fuzz: $(VENV)/.dev pyproject.toml
	@echo "installing atheris into $(VENV)"
	$(PIP) -e '.[fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz ## Fuzz every target, 1,000,000 inputs in all (RUNS=50000, SEED=2); fails on a finding
	$(BIN)/python -m tests.fuzz --runs $(RUNS) --seed $(SEED)

# In a venv of its own: it wants an older pydantic. Without it the benchmark leaves it out and says so.
.sluice/bench/.quix: pyproject.toml
	@echo "installing Quix Streams, a peer of the benchmark, into .sluice/bench (about a minute, once)"
	@{ "$(PYTHON)" -m venv .sluice/bench \
	  && .sluice/bench/bin/pip install --quiet --disable-pip-version-check -e '.[bench]' \
	  && touch $@; } || echo "warning: Quix Streams could not be installed (see above); going on without it" >&2

bench: $(VENV)/.dev .sluice/bench/.quix ## Measure the worker's CPU a message beside its peers (BENCH='--messages 5000 --rounds 3')
	@exec $(BIN)/python -m loadtest.bench $(BENCH)

check: $(VENV)/.dev ## Lint, types, import rules, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate --quiet pipeline loadtest

fmt: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

guard: $(VENV)/.dev ## Train the default guard again (needs the training data; see triton_models/README.md)
	$(PIP) -e '.[train]'
	$(BIN)/python -m pipeline.guards.train

clean: ## Remove what was built and downloaded
	rm -rf $(VENV) .sluice
