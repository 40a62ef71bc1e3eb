# Each verb is enough by itself in a fresh clone: it makes .venv and installs what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help test check style types layers format bench clean
help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(VENV)/.tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e '.[test,lint]'
	@touch $@

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

test: $(VENV)/.tools  ## the whole suite, in parallel
	$(BIN)/python -m pytest -n auto

clean:  ## remove what the other verbs made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
