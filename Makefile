# olla: make help lists the targets.

VENV := .venv
BIN  := $(VENV)/bin

# The first Python that runs and is new enough: one on the path may be old, or a broken shim.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    && echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help run test test-compiled compiled check format bench bench-guard bench-access bench-bodies bench-routing soak fuzz dist lock docker clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "olla needs Python 3.11 or later; run make PYTHON=/path/to/python"; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv --clear $(VENV) \
	  || { rm -rf $(VENV); echo "on Debian and Ubuntu: apt install python3-venv"; exit 1; }

# Not order-only: a new environment has nothing installed.
$(VENV)/.run: pyproject.toml $(BIN)/python
	@echo "installing olla"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(BIN)/python
	@echo "installing olla with its test dependencies"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(VENV)/.run $@

$(VENV)/.bench: pyproject.toml $(BIN)/python
	@echo "installing olla with its benchmark dependencies"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	@echo "installing the fuzzing dependencies"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,fuzz]'
	@touch $@

run: $(VENV)/.run ## Run the router with simulated nodes, or with CONFIG=path (PORT=n)
	@$(BIN)/olla $(if $(CONFIG),serve --config "$(CONFIG)",demo) $(if $(PORT),--port $(PORT))

test: $(VENV)/.dev ## Run all tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile
	@echo "running the tests of a whole router again, without the fast path"
	@OLLA_TEST_FAST_PATH=off $(BIN)/python -m pytest -n 2 --dist loadfile \
	  tests/faults tests/clients tests/gateways tests/access_control

check: $(VENV)/.dev ## Check format, lint, types, imports and the repository's rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest tests/tidy tests/docs

format: $(VENV)/.dev ## Format the code and apply automatic fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

# The wheel that pip builds with a C compiler, installed into a separate folder: the checkout stays
# uncompiled, so that edits take effect.
build/compiled/.made: $(VENV)/.dev setup.py pyproject.toml $(shell find olla -name '*.py')
	@echo "compiling the modules on the request path (about a minute)"
	@rm -rf build
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --wheel-dir build/wheel .
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target build/compiled build/wheel/*.whl
	@find build/compiled/olla -name '*.so' | grep -q . \
	  || { echo "nothing was compiled; install a C compiler and Python headers (apt install gcc python3-dev)"; exit 1; }
	@touch $@

compiled: build/compiled/.made ## Compile the modules on the request path into build/compiled

test-compiled: build/compiled/.made ## Run the tests of routing and relaying with compiled code
	@PYTHONPATH=build/compiled $(BIN)/python -m pytest -n 2 --dist loadfile \
	  -o pythonpath="build/compiled ." tests/wire tests/faults tests/clients tests/gateways tests/access_control tests/access \
	  tests/machines tests/conformance tests/proxy tests/admission tests/fleet tests/routing \
	  tests/telemetry tests/dialects tests/simulation

bench: build/compiled/.made $(VENV)/.bench ## Compare the cost of a request and of a chunk (QUICK=1: two minutes)
	@$(BIN)/python -m benchmarks.proxy $(if $(QUICK),--quick,--docs docs)

bench-access: build/compiled/.made $(VENV)/.bench ## Compare the cost of keys, limits and usage
	@$(BIN)/python -m benchmarks.access

bench-guard: build/compiled/.made ## Count instructions per request; fail if over 3 % more (WRITE=1: save)
	@$(BIN)/python -m benchmarks.guard $(if $(WRITE),--write)

bench-bodies: $(VENV)/.dev ## Measure the stalls and memory of large bodies (QUICK=1; BEFORE=file to compare)
	@$(BIN)/python -m benchmarks.bodies $(if $(QUICK),--quick,--docs docs) \
	  $(if $(BEFORE),--before "$(BEFORE)")

bench-routing: $(VENV)/.bench ## Compare routing policies (QUICK=1: half a minute; TRACES=folder)
	@$(BIN)/python -m benchmarks.routing.cost
	@$(BIN)/python -m benchmarks.routing $(if $(QUICK),--quick,--docs docs) \
	  $(if $(TRACES),--traces "$(TRACES)")

soak: $(VENV)/.dev ## Inject faults under load for ten minutes (QUICK=1: one; SEED=n)
	@$(BIN)/python -m benchmarks.soak $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/.fuzz ## Fuzz the parsers against reference parsers (SECONDS=n each; SEED=n)
	@$(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

dist: $(VENV)/.dev ## Build sdist and wheel, and test each in a clean environment
	@$(BIN)/python packaging/try_dist.py

# Exact versions with hashes for all platforms: the image installs them, and builds are repeatable.
LOCK := $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
lock: $(VENV)/.dev ## Update the lock files (packaging/*.lock; UPGRADE=1: newest versions)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOCK) $(if $(UPGRADE),--upgrade) --extra all --output-file packaging/run.lock
	@$(LOCK) $(if $(UPGRADE),--upgrade) --extra all --extra build --output-file packaging/build.lock

docker: ## Build the container image
	docker build --tag olla .

clean: ## Remove all build products
	rm -rf $(VENV) build dist *.egg-info .*_cache .hypothesis
