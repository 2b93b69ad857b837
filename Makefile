# Every target sets up what it needs by itself: Python 3.11 or newer and make are enough.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
WHEEL := build/wheel

# Penstock is many processes, and its tests start hundreds: each would compile all it imports anew
# (6 instead of 2 CPU seconds for one that knows Dagster).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up test test-trip engines engines-stop engines-wipe test-engines test-outage faults soak mutants check format docs bench lock proto clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Penstock needs Python 3.11 or newer; say which: make PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(READY)

demo: $(READY) ## Start everything, send real events, find, ask and replay them (ONCE=1: then stop)
	@$(BIN)/penstock demo $(if $(ONCE),--once) $(if $(SETTINGS),--settings $(SETTINGS))

up: $(READY) ## Start everything and leave it running
	@$(BIN)/penstock up

test: check ## Check, then run every test, the trip from door to replay on the built wheel included
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -q --ignore tests/trip
	@$(MAKE) --no-print-directory test-trip

test-trip: $(WHEEL)/ready ## Test the whole trip as people install it: the wheel, without the source
	@cd $(WHEEL) && venv/bin/python -m pytest -n 2 --dist loadgroup -q tests/trip

# A file that the wheel forgot cannot hide behind the checkout: only tests are beside it.
.PHONY: $(WHEEL)/ready
$(WHEEL)/ready: $(READY)
	@rm -rf $(WHEEL) && mkdir -p $(WHEEL)
	@$(BIN)/uv build --quiet --wheel --out-dir $(WHEEL) .
	@$(BIN)/uv venv --quiet --python $(BIN)/python $(WHEEL)/venv
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(WHEEL)/venv/bin/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(WHEEL)/venv/bin/python --no-deps $(WHEEL)/*.whl
	@cp -r tests pyproject.toml $(WHEEL)

engines: $(READY) ## Fetch and start the real engines on this machine, without Docker (ONLY="kafka s3")
	@PYTHONPATH=tests $(BIN)/python -m engines start $(ONLY)

engines-stop: $(READY) ## Stop them
	@PYTHONPATH=tests $(BIN)/python -m engines stop $(ONLY)

engines-wipe: $(READY) ## Stop them and forget all they kept
	@PYTHONPATH=tests $(BIN)/python -m engines wipe $(ONLY)

test-engines: $(READY) ## Test every promise that a real engine keeps, on the engines that run
	@PYTHONPATH=tests $(BIN)/python -m engines status
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -q -m "engines and not outage"

test-outage: $(READY) ## Stop the engines that run, one after the other and under load
	@PYTHONPATH=tests $(BIN)/python -m engines status
	@$(BIN)/python -m pytest -q -m outage

faults: $(READY) ## Kill, cut and fill, count what is lost, and write it down (ENGINES=1, ONLY="landing")
	@PYTHONPATH=tests $(BIN)/python -m evidence faults $(if $(ENGINES),--engines) $(ONLY)

soak: $(READY) ## Ten minutes of load, a fault each 5 s, 20,000 searches (SECONDS=, RATE=, SEED=, SEARCHES=)
	@PYTHONPATH=tests $(BIN)/python -m evidence soak $(if $(ENGINES),--engines) $(if $(SECONDS),--seconds $(SECONDS)) \
	  $(if $(RATE),--rate $(RATE)) $(if $(SEED),--seed $(SEED)) $(if $(SEARCHES),--searches $(SEARCHES)) $(ONLY)

mutants: $(READY) ## Put a bug in for every rule, and see a test find it (ENGINES=1, ONLY="commit")
	@PYTHONPATH=tests $(BIN)/python -m evidence mutants $(if $(ENGINES),--engines) $(ONLY)

check: $(READY) ## Lint, type-check, check the directions of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(READY) ## Put the code into shape
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

docs: $(READY) ## Renew the page of the command line
	@$(BIN)/python tests/cli_page.py

bench: $(READY) ## Measure against limits taken in the same run; writes results and page (ONLY="search tail")
	@$(BIN)/python -m benchmarks --keep $(ONLY)

lock: $(READY) ## Renew requirements.lock from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --upgrade \
	  --group dev --all-extras --no-annotate --no-header --no-emit-index-url \
	  --no-emit-find-links pyproject.toml --output-file requirements.lock

proto: $(READY) ## Generate the gRPC modules from their .proto files
	@$(BIN)/python -m ingest_api.proto.generate

clean: ## Remove the virtual environment and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
