# Runs and checks this project. Requires make and Python 3.11 to 3.14. `make help` lists the targets.

PYTHONS ?= python3.12 python3.13 python3.11 python3.14 python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Each worker runs whole files, in random order. To repeat an order, pass the printed "--randomly-seed" in ARGS. Tests
# often wait for processes, so there are three workers more than there are cores.
TEST_WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 3)
# Stamps of the installed packages: those of `make up`, those plus the development tools, and those plus the peers.
RUNTIME := .venv/.installed-runtime
TOOLS := .venv/.installed-tools
PEERS := .venv/.installed-peers
# What builds the wheel is in an environment of its own, of 3 MB, so that `make dist` installs nothing else.
BUILDER := .venv-dist/.installed
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" --no-emit-index-url --no-emit-find-links $(UPGRADE)
LOCK := $(COMPILE) pyproject.toml

# Packages are installed without bytecode. Python writes it for the modules in use, unless this variable is set.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up test check torture bench bench-search fmt dist lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

up: $(RUNTIME) ## Run the whole stack until Ctrl-C (settings such as PORT and DATA_DIR come from the environment or .env)
	@exec $(BIN)/python -m local

# pytest exits with 5 if no test is selected, which ARGS may cause for one of the two calls.
test: $(TOOLS) ## Run the tests on all cores, with real servers (select with ARGS="-k name"; one process: ARGS="-n 0")
	@$(PYTEST) -m "not torture and not serial" --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS) || [ $$? -eq 5 ]
	@$(PYTEST) -m "serial and not torture" $(ARGS) || [ $$? -eq 5 ]

torture: $(TOOLS) ## Run the long tests, which kill processes (full suite: ROUNDS=20)
	@exec $(PYTEST) -m torture $(ARGS)

bench: $(PEERS) ## Measure on real servers, for about 15 minutes (shorter: ARGS="--rounds 1 --only end-to-end")
	@exec $(BIN)/python -m bench $(ARGS)

bench-search: $(TOOLS) ## Measure how well search answers 426 questions (words alone: EMBEDDINGS=off; ARGS="--misses")
	@exec $(BIN)/python -m bench.search $(ARGS)

check: $(TOOLS) ## Check lint, formatting, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(TOOLS) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(BUILDER) ## Build the wheel and the source distribution into dist/ (installs only what that needs)
	@rm -rf dist
	@.venv-dist/bin/python -m hatchling build

lock: ## Update the dependency lock files, using uv (latest versions: UPGRADE=--upgrade)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	$(LOCK) --extra server --extra traces --extra local --extra dev --output-file requirements.lock
	$(LOCK) --extra server --constraint requirements.lock --output-file requirements.txt
	$(LOCK) --extra server --extra traces --constraint requirements.lock --output-file requirements-traces.txt
	$(LOCK) --extra server --extra local --constraint requirements.lock --output-file requirements-local.txt
	$(LOCK) --all-extras --constraint requirements.lock --output-file requirements-bench.txt
	echo hatchling | $(COMPILE) --constraint requirements.lock --output-file requirements-dist.txt -

clean: ## Remove the virtual environment and caches; keep the data
	rm -rf .venv .venv-dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Create a virtual environment, unless it works, with the first suitable Python.
define environment
	@if ! $(1)/bin/python -c '' 2>/dev/null; then \
		for python in $(PYTHONS) none; do \
			"$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
				2>/dev/null && break; \
		done; \
		if [ "$$python" = none ]; then \
			echo "No Python 3.11 to 3.14 with venv was found (on Debian, install python3-venv)." >&2; \
			echo "To use another Python: make PYTHONS=/path/to/python" >&2; \
			exit 1; \
		fi; \
		printf '%s' "Virtual environment with $$("$$python" --version) ... "; \
		"$$python" -m venv --clear --without-pip $(1) || exit 1; \
		echo ready; \
	fi
endef

$(RUNTIME): requirements-local.txt
	$(call environment,.venv)
	@$(BIN)/python -m local.installation "Packages (the first time takes about a minute)" $< --no-compile --without-pip
	@touch $@

$(TOOLS): requirements.lock $(RUNTIME)
	@$(BIN)/python -m local.installation "Development tools" $<
	@touch $@

$(PEERS): requirements-bench.txt $(TOOLS)
	@$(BIN)/python -m local.installation "Peers for the benchmark" $<
	@touch $@

$(BUILDER): requirements-dist.txt
	$(call environment,.venv-dist)
	@.venv-dist/bin/python -m local.installation "Build tool" $< --no-compile --without-pip
	@touch $@
