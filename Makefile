# `make help` lists what can be made. PYTHON chooses the interpreter: make PYTHON=python3.12 test
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help demo table attack-table leaderboard test test-lowest check docs lock clean
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock

help: ## List what can be made
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST)

demo: .venv/ready ## Harden the built-in model; the evidence is runs/demo/report.html
	$(BIN)/safegen demo

table: .venv/ready ## Compare all defenses on the built-in model; the table is runs/table/table.md
	$(BIN)/safegen evaluate --preset lab --out runs/table

attack-table: .venv/ready ## Attack all defenses on the built-in model; the table is runs/attacks/table.md
	$(BIN)/safegen attack --preset lab --patches runs/table --out runs/attacks

leaderboard: table attack-table ## Show both tables on one page, runs/leaderboard.html
	$(BIN)/safegen leaderboard runs/table runs/attacks --out runs/leaderboard.html

# Two processes of one thread each: the tests' models are so small that a second thread gains nothing.
test: .venv/ready-dev ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# PYTHON must be the oldest supported, whose wheels the lowest versions have.
test-lowest: ## Run the tests with the lowest versions that pyproject.toml declares
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/python -m pip install --quiet uv
	build/lowest/bin/uv pip install --quiet --python build/lowest/bin/python \
		--resolution lowest-direct -e '.[dev]'
	build/lowest/bin/python -m pytest

check: .venv/ready-dev ## Lint, check the formatting and the types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/ready-dev ## Build the documentation's site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# What `dev` brings is pinned, and not the extras fid and lpips: they bring torchvision, of which
# each build of torch needs its own.
# Markers go, since a constraint binds only what is required anyway; the GPU libraries go, since
# each build of torch names its own.
lock: ## Pin the newest versions of all dependencies in requirements.lock
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet uv
	build/lock/bin/uv pip compile --quiet --extra dev pyproject.toml \
		| sed -E -e "/^(nvidia|cuda|triton)| == 'emscripten'/d" -e 's/ *;.*//' > build/lock/requirements
	mv build/lock/requirements requirements.lock

clean: ## Remove the environment, the caches and build leftovers; runs/ stays
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps are there only while no installation is under way, so an interrupted one starts afresh.
.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit( \
		"safegen needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv --clear .venv
	$(INSTALL) -e .
	touch $@

.venv/ready-dev: .venv/ready
	rm .venv/ready
	$(INSTALL) -e '.[dev]'
	touch .venv/ready $@
