# `make up` runs the service, `make test` is the definition of clean. Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: test up demo notebooks check format test-slow test-faults lock audit sbom fuzz wheels mlflow-ui check-deploy

# The suite's processes share the cores already: threads of BLAS would only wait.
test: export OPENBLAS_NUM_THREADS ?= 1
test: check
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

up: .venv/installed
	$(BIN)/pointsman up

demo: .venv/installed
	$(BIN)/pointsman demo

notebooks: .venv/installed-notebooks
	$(BIN)/jupyter lab notebooks

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

# One after the other: what is killed and measured here wants the machine for itself.
test-faults: .venv/installed-dev
	$(BIN)/python -m pytest -m faults tests/faults

# The service and, for callers, the client alone.
wheels: .venv/installed
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --wheel-dir dist . ./pointsman_client

# MLflow's own page over our store. It needs many more packages than the library, so it has an
# environment of its own, of the same version.
MLFLOW = $(shell sed -n 's/^mlflow-skinny==\([^ ]*\).*/\1/p' requirements.lock)
mlflow-ui: export MLFLOW_DISABLE_TELEMETRY ?= true
mlflow-ui: export DO_NOT_TRACK ?= true
mlflow-ui: export MLFLOW_SERVER_ENABLE_JOB_EXECUTION ?= false
mlflow-ui: .venv-mlflow/installed
	@data="$${POINTSMAN_DATA:-data}/mlflow"; store="$${MLFLOW_TRACKING_URI:-sqlite:///$$data/mlflow.db}"; \
	case "$$store" in http*) echo "the runs are at $$store"; exit;; esac; \
	exec .venv-mlflow/bin/mlflow ui --host 127.0.0.1 --port "$${MLFLOW_PORT:-5000}" --workers 1 \
		--backend-store-uri "$$store" --artifacts-destination "$$data/artifacts"

# Tools for the files in deploy/: too large for the lock that everybody installs.
check-deploy: .venv-deploy/installed .venv/installed-dev
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_deploy.py

.venv-deploy/installed: deploy/tools.txt
	$(PYTHON) -m venv .venv-deploy
	.venv-deploy/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

.venv-mlflow/installed: requirements.lock
	$(PYTHON) -m venv .venv-mlflow
	.venv-mlflow/bin/python -m pip install --quiet --disable-pip-version-check \
		mlflow==$(MLFLOW) "sqlalchemy<2.1"
	touch $@

# A requirements-style lock with hashes; it names no index, so it works wherever packages come from.
LOCK = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate
lock: .venv/installed-dev
	$(PIP) uv
	$(LOCK) --extra build pyproject.toml -o requirements.lock
	$(LOCK) --extra build --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

# What the locks hold, against a database of known vulnerabilities, and as a CycloneDX document. Both
# tools bring many packages, so they have an environment of their own.
AUDIT = .venv-audit/bin
audit: .venv-audit/installed
	@for lock in requirements.lock requirements-dev.lock; do \
		$(AUDIT)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r $$lock || { \
		echo "$$lock: not clean, or the database can't be reached: see docs/operating/dependencies.md" >&2; exit 1; }; \
	done

sbom: .venv-audit/installed
	@mkdir -p dist
	PYTHONWARNINGS=ignore $(AUDIT)/cyclonedx-py requirements --pyproject pyproject.toml \
		--output-reproducible --validate -o dist/sbom.json requirements.lock

.venv-audit/installed:
	$(PYTHON) -m venv .venv-audit
	$(AUDIT)/python -m pip install --quiet --disable-pip-version-check pip-audit cyclonedx-bom
	touch $@

# Parsers and properties with FUZZ times the examples that the suite gives each.
FUZZ ?= 20
fuzz: .venv/installed-dev
	POINTSMAN_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzzing

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: requirements.lock pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

.venv/installed-dev: requirements-dev.lock .venv/installed
	$(PIP) --require-hashes -r requirements-dev.lock
	touch $@

# No lock covers Jupyter, which nothing of ours depends on; what the lock has installed stays.
.venv/installed-notebooks: .venv/installed
	$(PIP) --no-build-isolation -e ".[notebooks]"
	touch $@
