# One command each, set-up included: `make demo` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
.NOTPARALLEL:

RECENT := import sys; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11 python3.10; do \
	"$$p" -c '$(RECENT)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ima-yolo-installed
# Options of the demo or of pytest, for example `make test ARGS="-k losses"`.
ARGS ?=
# Tests at a time; each takes one core and up to 2 GB.
JOBS ?= 2

.PHONY: help setup demo test lint types format lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup: $(STAMP) ## create .venv and install everything at the locked versions

demo: $(STAMP) ## draw a data set, train, distil, export and run: a few minutes on a CPU
	$(BIN)/ima-yolo demo $(ARGS)

test: lint types ## every check: ruff, codespell, mypy, pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(STAMP) ## style and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(STAMP) ## static types
	$(BIN)/mypy

format: $(STAMP) ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## resolve requirements.lock anew for every supported Python (keeps pins that still fit)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-python-downloads --no-header \
		--no-annotate --extra dev --output-file requirements.lock pyproject.toml

clean: ## remove .venv, builds and caches
	rm -rf .venv build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements.lock
	@"$(PYTHON)" -c '$(RECENT)' 2>/dev/null || { echo "make: Python 3.10 or later is needed, and \
	'$(or $(PYTHON),python3)' is not: name one with 'make $(MAKECMDGOALS) PYTHON=/path/to/python3'" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "make: '$(PYTHON)' cannot make a virtual \
	environment: install it first (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
	$(BIN)/python -m pip install --no-input --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@# A server without a screen often lacks libGL, which the plain OpenCV needs; the headless build does not.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(BIN)/python -m pip install --no-input --no-deps \
		"opencv-python-headless==$$($(BIN)/python -c 'from importlib.metadata import version as v; print(v("opencv-python"))')"
	@touch "$@"
