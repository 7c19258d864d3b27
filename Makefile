# Everything needs Python 3.11 or newer and make; the rest is set up in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export TF_CPP_MIN_LOG_LEVEL ?= 2
export ORT_DISABLE_TELEMETRY ?= 1

.DEFAULT_GOAL := help
LOWEST := .venv-lowest
LOWEST_PIP := $(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt
TEST_TOOLS := grpcio httpx hypothesis jsonschema pytest pytest-xdist
# What lower versions would break first: every block, export with its proof, serving.
CORE_TESTS := tests/test_every_block.py tests/export/test_pipeline.py \
	tests/export/test_whole_models.py tests/export/passes/opset/test_least.py \
	tests/serving/test_model.py tests/runtime/test_graph_facts.py tests/serving/rest/test_endpoints.py \
	tests/serving/grpc/test_servicer.py tests/serving/inference/test_batch_plan.py tests/contract/test_tree_validation.py

.PHONY: help setup demo test test-all test-lowest test-runtimes test-plain-cpu test-newer test-tritonclient release-check lint format bench conformance clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/ready  ## make .venv from constraints.txt

.venv/ready: pyproject.toml constraints.txt
	@echo "installing TensorFlow and friends into .venv, some minutes (2.5 GB)"
	$(PYTHON) -m venv .venv
	$(PIP) setuptools
	$(PIP) --no-build-isolation -e '.[tensorflow,serving,dev]'
	@touch $@

demo: setup  ## train, export, prove and serve models that name Python functions
	$(BIN)/keras-blocks demo

test: setup  ## the tests, without the slow proofs
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-all: setup  ## the tests, slow proofs included
	$(BIN)/python -m pytest -q -n 2

test-lowest: $(LOWEST)/ready  ## the core tests with the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest -q -n 2 -k "not application and not families" $(CORE_TESTS)

$(LOWEST)/ready: pyproject.toml constraints-lowest.txt
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST_PIP) setuptools
	$(LOWEST_PIP) --no-build-isolation -e '.[tensorflow,serving]' $(TEST_TOOLS)
	@touch $@

test-runtimes: setup  ## exported files under older releases of onnxruntime
	PYTHON="$(PYTHON)" .ci/runtimes

test-plain-cpu: setup  ## what TensorFlow computes otherwise on processors without AVX-512
	TF_ENABLE_ONEDNN_OPTS=0 $(BIN)/python -m pytest -q -n 2 -m "not slow" tests/units tests/export/lowerings/ops/nn tests/export/files/int8

test-newer:  ## the core tests on Python 3.13 or 3.12, where the machine has one
	.ci/newer-python

test-tritonclient:  ## Triton's own clients against the server, in .venv-tritonclient
	PYTHON=$(PYTHON) .ci/tritonclient

release-check: setup  ## build wheel and sdist, and install each extra on its own
	PYTHON=$(PYTHON) .ci/release-check

lint: setup  ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## the benchmarks; tables and plots go to benchmarks/results
	$(BIN)/python benchmarks/blocks.py
	$(BIN)/python benchmarks/trees.py
	$(BIN)/python benchmarks/export_speed.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/serving.py

conformance: setup  ## every layer case of Keras's own tests, exported and compared
	$(BIN)/python benchmarks/conformance.py --markdown docs/conformance.md

clean:  ## remove what was set up and built
	rm -rf .venv .venv-lowest .runtimes build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
