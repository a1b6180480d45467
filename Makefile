# `make up` runs the whole system on this machine, `make test` checks everything; each sets itself up.
# `make check` leaves out what needs a server in Java or a browser. ARGS="…" is handed to `dimint up` or to pytest.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
MINUTES ?= 10
# for two cores: the tests of processes start up to a dozen each, but wait for them and for servers most of the time
WORKERS ?= 3

.PHONY: up test check lint types pytest chaos bench screenshots clean
.DEFAULT_GOAL := up

# of what a test asks for, `make check` leaves out servers in Java and browsers
check: export FOUNDATION_ONLY = true
check: override ARGS += -rfE

up: .venv/installed
	@exec $(BIN)/dimint up $(ARGS)

# files in their order: the long ones of processes come first, the short ones fill up the end
test check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/installed-dev
	$(BIN)/mypy

pytest: .venv/installed-dev
	$(BIN)/pytest $(ARGS)

chaos: .venv/installed-dev
	DIMINT_CHAOS_MINUTES=$(MINUTES) $(BIN)/pytest -s tests/integration/test_chaos.py

bench: .venv/installed-dev
	$(BIN)/python -m benchmarks $(ARGS)

# pictures of the pages with 1 to 1000 simulated hosts, into build/screenshots; needs Chromium
screenshots: .venv/installed-dev
	$(BIN)/python -m tests.support.screenshots build/screenshots $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache/bytecode

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; name one with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "the venv module is missing; on Debian: apt install python3-venv" >&2; exit 1; }

.venv/installed: .venv/bin/python pyproject.toml setup.py
	@echo "installing into .venv …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml setup.py
	@echo "installing into .venv, with the tools for tests …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/installed
