# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files that run side by side.
WORKERS ?= 2
STAMP := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-container lock lint bench serve clean

help: ## Show these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-15s %s\n", $$1, $$2}'

demo: $(STAMP) ## Start a service, stream 1,797 digits through it, show it learn (ARGS=--once stops it at the end)
	$(BIN)/everlearn demo $(ARGS)

# The faults that tests inject are a small C library, and torch.compile writes C++.
define need_compilers
@command -v cc >/dev/null && command -v g++ >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
  apt-get update -qq && apt-get install -qq -y g++; } || command -v cc >/dev/null || { \
  echo "a C compiler is missing: the faults that tests inject need it (Debian: apt-get install g++)"; exit 1; }
endef

# The dashboard's queries are put to a Prometheus where there is one.
define need_prometheus
@command -v promtool >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus >/dev/null; } || true
endef

test: lint ## Run what CI runs: lint, then every test but the long ones (ARGS goes to pytest)
	$(need_compilers)
	$(need_prometheus)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long and not container" -n $(WORKERS) --dist loadfile $(ARGS)

test-long: $(STAMP) ## Run the long tests: the same attacks with larger numbers
	$(need_compilers)
	$(BIN)/python -m pytest -m long $(ARGS)

# Where no Docker engine runs, buildah builds the same Dockerfile, on a base that mmdebstrap makes.
define need_builder
@docker info >/dev/null 2>&1 || command -v buildah >/dev/null && command -v mmdebstrap >/dev/null || { [ "$$(id -u)" = 0 ] && \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends buildah mmdebstrap; }
endef

test-container: $(STAMP) ## Build the image, run it behind the gateway, stop and kill it under load
	$(need_builder)
	$(BIN)/python -m pytest -m container -s tests/container $(ARGS)

lock: $(STAMP) ## Remake the lock files of the image
	$(BIN)/python -m pip install --quiet pip-tools==7.6.2
	$(BIN)/python docker/lock.py

lint: $(STAMP) ## Check style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The load generator of the benchmarks.
define need_wrk
@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends wrk >/dev/null; } || { \
  echo "wrk is missing: the benchmarks load servers with it (Debian: apt-get install wrk)"; exit 1; }
endef

bench: $(STAMP) ## Measure every row of benchmarks/RESULTS.md, two hours (ARGS="swaps growth" for some of them)
	$(need_wrk)
	$(BIN)/python -m benchmarks $(ARGS)

serve: $(STAMP) ## Serve ./everlearn.toml (ARGS="--port 9000 --workers 2")
	$(BIN)/everlearn serve $(ARGS)

clean: ## Remove what the targets made; never a data directory
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -f demo-report.json learning-curve.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A marker of its own, so that an installation that was cut off is made again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "everlearn needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -qq -y python3-venv; } || { \
	  echo "python3-venv is missing; install it (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
