# olla: make help says what there is.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PORT   ?= 40114

# Clients obey proxy variables; everything here talks to this machine.
unexport http_proxy https_proxy all_proxy

.DEFAULT_GOAL := help
.PHONY: help run test check format bench docker clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "olla needs Python 3.11 or later; say make PYTHON=/path/to/it"; exit 1; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing olla"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing olla with what its tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(VENV)/.run $@

run: $(VENV)/.run ## Run the router: over simulated nodes, or CONFIG=path (PORT=n)
ifdef CONFIG
	@$(BIN)/olla serve --config $(CONFIG) $(if $(filter command line,$(origin PORT)),--port $(PORT))
else
	@$(BIN)/olla demo --port $(PORT)
endif

test: $(VENV)/.dev ## Run all tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev ## Format, lint, types, imports, the repository's own rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest tests/tidy tests/docs

format: $(VENV)/.dev ## Format the code and mend what can be mended
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: $(VENV)/.run ## Measure what a request and a chunk cost (QUICK=1: one short round)
	@$(BIN)/python -m benchmarks.proxy $(if $(QUICK),--quick)

docker: ## Build the container image
	docker build --tag olla .

clean: ## Remove what was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
