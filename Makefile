# Each verb is enough by itself in a fresh clone: it makes .venv and installs what it needs.
PYTHON ?= python3
TORCH  ?= 2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# torch's own index has builds for the CPU alone; everywhere else Linux gets several gigabytes for CUDA.
CPU    := --retries 1 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu
BUILD  := $(TORCH)$(if $(filter Linux,$(shell uname -s)),+cpu)

.PHONY: help demo test system coverage torture check style types layers format bench release clean
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

test: $(VENV)/.tools $(VENV)/.torch  ## the suite, in parallel; TEST_SCALE=3 waits three times as long
	$(BIN)/python -m pytest -n auto -m 'not system'

system: $(VENV)/.tools  ## the tests that need root or programs of the system (iproute2)
	$(BIN)/python -m pytest -m system

# The pure packages: what import-linter lets do no I/O has no branch that a test could not reach.
READER := */reading/merge.py,*/reading/fold.py,*/reading/filters.py,*/reading/text.py,*/reading/json_lines.py
PURE   := */tlogs/levels/*,*/outbox/ring.py,$(READER),*/worker/held_leases.py,*/worker/link.py,*/tlogs_collector/hub/*,*/tlogs_shared/*
coverage: $(VENV)/.tools  ## which lines the tests reach, subprocesses included; every branch of the pure packages
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto -m 'not system and not torch and not multiprocess' --hypothesis-profile=ci
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered --skip-empty
	$(BIN)/coverage report --show-missing --skip-covered --include='$(PURE)' --omit='*/host.py' --fail-under=100

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
	@for name in machine call agent host ingest broadcast read idle size; do $(BIN)/python tests/bench/$$name.py && echo || exit 1; done

# Nothing is uploaded. Without VERSION it builds what pyproject.toml names.
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
release: $(VENV)/.tools  ## VERSION=0.2.0: the version, the changelog, the archives, checked
	@git diff --quiet HEAD || { echo "commit or stash your changes first: a release is what is committed"; exit 2; }
	$(PIP) -e '.[release]'
	@sed -i.old 's/^version = ".*"/version = "$(VERSION)"/' pyproject.toml && rm pyproject.toml.old
	@grep -q '^## \[$(VERSION)\]' CHANGELOG.md || { awk -v cut="## [$(VERSION)] - $$(date +%F)" \
		'{ print } /^## \[Unreleased\]/ { print "\n" cut }' CHANGELOG.md > CHANGELOG.new && mv CHANGELOG.new CHANGELOG.md; }
	rm -rf dist && $(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*
	@git diff --stat
	@echo "then: git commit -am 'Release $(VERSION)' && git tag v$(VERSION), and upload dist/ when you mean it"

clean:  ## remove what the other verbs made
	rm -rf $(VENV) dist .coverage* .mypy_cache .ruff_cache .import_linter_cache .hypothesis
