# `make up` runs the service, `make test` is the definition of clean. Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: test up demo check format test-slow lock

test: check
	$(BIN)/python -m pytest

up: .venv/installed
	$(BIN)/pointsman up

demo: .venv/installed
	$(BIN)/pointsman demo

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

# A requirements-style lock with hashes; it names no index, so it works wherever packages come from.
LOCK = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate
lock: .venv/installed-dev
	$(PIP) uv
	$(LOCK) --extra build pyproject.toml -o requirements.lock
	$(LOCK) --extra build --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: requirements.lock pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

.venv/installed-dev: requirements-dev.lock .venv/installed
	$(PIP) --require-hashes -r requirements-dev.lock
	touch $@
