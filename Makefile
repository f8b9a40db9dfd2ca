# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files that run side by side.
WORKERS ?= 2
STAMP := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint bench serve clean

help: ## Show these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

demo: $(STAMP) ## Start a service, stream 1,797 digits through it, show it learn (ARGS=--once stops it at the end)
	$(BIN)/everlearn demo $(ARGS)

test: lint ## Run what CI runs: lint, then every test but the long ones (ARGS goes to pytest)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" -n $(WORKERS) --dist loadfile $(ARGS)

test-long: $(STAMP) ## Run the long tests: the same attacks with larger numbers
	$(BIN)/python -m pytest -m long $(ARGS)

lint: $(STAMP) ## Check style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Measure the figures of the README
	$(BIN)/python -m benchmarks.interference $(ARGS)

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
