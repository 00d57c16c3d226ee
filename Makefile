# Needs make, a POSIX shell and Python 3.11 or later. Everything is made inside the checkout: the environment in .venv,
# pip's cache in .cache (name another with PIP_CACHE_DIR), outputs in build.

# the first of these that runs and is new enough (a name on PATH may be a shim that does not)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python3.13 python3.12; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && command -v $$p && break; done)
PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip
export PIP_CACHE_DIR
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
PY := $(VENV)/bin/python

# A stamp is named after what was installed: these dependencies, in this place. A new time on pyproject.toml (a branch
# switch) costs nothing and needs no network; a real change, or a moved checkout, installs again.
KEY := $(firstword $(shell (pwd; cat pyproject.toml) | cksum))
INSTALLED := $(VENV)/.installed-$(KEY)
DEV_INSTALLED := $(VENV)/.dev-installed-$(KEY)

# a Chromium for `make test-browser`
QCONVERT_BROWSER ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

DEMO := digits_cnn
DEMO_DATA := calibration_data/$(DEMO)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-browser test-mlflow test-backend fuzz lint types unit format clean distclean

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: $(DEV_INSTALLED)  ## make .venv with qconvert and the tools for working on it

demo: $(INSTALLED)  ## quantize a sample model and set it against the original
	@mkdir -p build
	$(VENV)/bin/qconvert quantize sample_models/$(DEMO).onnx --calib $(DEMO_DATA)/calib.npz \
		--eval $(DEMO_DATA)/eval.npz --labels $(DEMO_DATA)/labels.npy -o build/$(DEMO).int8.onnx --force

test: lint types  ## lint, types, then every test
	$(PY) -m pytest -n auto --dist worksteal

test-browser: $(DEV_INSTALLED)  ## the HTML report in a Chromium that is installed already
	@test -n "$(QCONVERT_BROWSER)" || { \
		echo "no Chromium found; name one with: make test-browser QCONVERT_BROWSER=/path/to/chromium" >&2; exit 1; }
	$(PY) -m pip install --quiet --editable '.[browser]'
	QCONVERT_BROWSER="$(QCONVERT_BROWSER)" $(PY) -m pytest tests/browser

test-mlflow: $(DEV_INSTALLED)  ## --track mlflow with a real MLflow, which is installed first
	$(PY) -m pip install --quiet --editable '.[mlflow]'
	QCONVERT_MLFLOW=1 $(PY) -m pytest tests/mlflow_store

test-backend: $(DEV_INSTALLED)  ## all of the ONNX project's own test cases; `make test` takes two of a kind
	QCONVERT_BACKEND=all $(PY) -m pytest -n auto --dist worksteal tests/end_to_end/test_onnx_backend.py

FUZZ := --seconds 300 --seed $(shell date +%s)
fuzz: $(DEV_INSTALLED)  ## damaged files of every kind, for five minutes; FUZZ="--seed 1 --seconds 60" for others
	$(PY) tests/fuzz $(FUZZ)

lint: $(DEV_INSTALLED)  ## check style and formatting; change nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(DEV_INSTALLED)  ## check types, strictly
	$(PY) -m mypy

unit: $(DEV_INSTALLED)  ## the fast tests: neither conformance nor end_to_end nor slow
	$(PY) -m pytest -n auto --dist worksteal -m "not slow" --ignore=tests/end_to_end --ignore=tests/conformance

format: $(DEV_INSTALLED)  ## mend style and formatting in place
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## remove outputs and the tools' caches; keep .venv
	rm -rf build dist qconvert.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find qconvert tests sample_models -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## remove .venv and pip's cache too
	rm -rf $(VENV) .cache

$(PY):
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "qconvert needs Python 3.11 or later; name one with: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(INSTALLED): | $(PY)
	@rm -f $(VENV)/.installed-* $(VENV)/.dev-installed-*
	$(PY) -m pip install --quiet --editable .
	@touch $@

$(DEV_INSTALLED): | $(PY)
	@rm -f $(VENV)/.installed-* $(VENV)/.dev-installed-*
	$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@ $(INSTALLED)
