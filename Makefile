# The ways to run and check this project. Needs a Python from 3.11 to 3.14, and make; `make help` lists what there is.

PYTHONS ?= python3.12 python3.13 python3.11 python3.14 python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Each takes whole files. Their order is random; what is printed as "--randomly-seed" repeats it, in ARGS.
TEST_WORKERS ?= auto
# One stamp for what `make up` runs, one for that and the development tools.
RUNTIME := .venv/.installed-runtime
TOOLS := .venv/.installed-tools
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" --no-emit-index-url --no-emit-find-links $(UPGRADE) pyproject.toml

# Packages are installed without bytecode: Python writes that of the modules which are used, unless it is told not to.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up test check torture fmt lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

up: $(RUNTIME) ## Run the whole stack on this machine, until Ctrl-C (PORT, DATA_DIR and others from the environment or .env)
	@exec $(BIN)/python -m local

# pytest ends with 5 when nothing was selected, as one of the two calls may by ARGS.
test: $(TOOLS) ## Run the tests on all cores, with real servers (ARGS="-k name" for some; "-n 0" without workers)
	@$(PYTEST) -m "not torture and not serial" --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS) || [ $$? -eq 5 ]
	@$(PYTEST) -m "serial and not torture" $(ARGS) || [ $$? -eq 5 ]

torture: $(TOOLS) ## Run the long tests that kill processes (ROUNDS=20 for the full suite)
	@exec $(PYTEST) -m torture $(ARGS)

check: $(TOOLS) ## Lint, formatting, types, and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(TOOLS) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Lock the dependencies anew, which takes uv (UPGRADE=--upgrade for the latest versions)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	$(LOCK) --all-extras --output-file requirements.lock
	$(LOCK) --extra dashboard --constraint requirements.lock --output-file requirements.txt
	$(LOCK) --extra dashboard --extra local --constraint requirements.lock --output-file requirements-local.txt

clean: ## Remove the virtual environment and all caches; data stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): requirements-local.txt
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
		for python in $(PYTHONS) none; do \
			"$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
				2>/dev/null && break; \
		done; \
		if [ "$$python" = none ]; then \
			echo "No Python from 3.11 to 3.14 with venv was found (on Debian it is in python3-venv)." >&2; \
			echo "Name one: make PYTHONS=/path/to/python" >&2; \
			exit 1; \
		fi; \
		printf '%s' "Virtual environment with $$("$$python" --version) ... "; \
		"$$python" -m venv --clear .venv && $(BIN)/python -m pip -qq uninstall --yes setuptools || exit 1; \
		echo ready; \
	fi
	@$(BIN)/python -m local.installation "Packages (the first time about a minute)" $< --no-compile
	@touch $@

$(TOOLS): requirements.lock $(RUNTIME)
	@$(BIN)/python -m local.installation "Development tools" $<
	@touch $@
