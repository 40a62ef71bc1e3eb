# Each verb is enough by itself in a fresh clone: it makes .venv and installs what it needs.
PYTHON ?= python3
TORCH  ?= 2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# torch's own index has builds for the CPU alone; everywhere else Linux gets several gigabytes for CUDA.
CPU    := --retries 1 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu
BUILD  := $(TORCH)$(if $(filter Linux,$(shell uname -s)),+cpu)

.PHONY: help demo test torture check style types layers format bench clean
help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | awk -F: '{printf "make %-8s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(PIP) -e '.[test,lint]'
	@touch $@

# Where no build of torch can be had, what needs it is left out, and says so.
$(VENV)/.torch: $(VENV)/.installed
	@$(BIN)/python -c 'import torch' 2>/dev/null || { echo "installing the CPU build of torch $(TORCH)"; \
		$(PIP) $(CPU) 'torch==$(BUILD)' || echo "no CPU build of torch for $$($(BIN)/python --version) here"; }
	@touch $@

demo: $(VENV)/.torch  ## a 4-rank job, steered and merged, in half a minute
	@$(BIN)/tlogs demo

test: $(VENV)/.tools $(VENV)/.torch  ## the whole suite, in parallel
	$(BIN)/python -m pytest -n auto

torture: $(VENV)/.tools  ## everything that can go wrong, for TORTURE_S=120 seconds, SEED= to repeat it
	@$(BIN)/python tests/torture/torture.py --seconds $(or $(TORTURE_S),120) $(if $(SEED),--seed $(SEED))

check: style types layers  ## format, lint, types, import contracts

style: $(VENV)/.tools
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(VENV)/.tools
	$(BIN)/mypy

layers: $(VENV)/.tools
	$(BIN)/lint-imports

format: $(VENV)/.tools  ## put the format right
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.tools  ## the tables behind the figures, in less than five minutes
	@for name in machine call agent ingest broadcast read idle size; do $(BIN)/python tests/bench/$$name.py && echo || exit 1; done

clean:  ## remove what the other verbs made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
