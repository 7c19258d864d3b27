# Everything needs Python 3.11 or newer and make; the rest is set up in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export TF_CPP_MIN_LOG_LEVEL ?= 2
export ORT_DISABLE_TELEMETRY ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format bench conformance clean

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
	$(BIN)/python benchmarks/serving.py

conformance: setup  ## every layer case of Keras's own tests, exported and compared
	$(BIN)/python benchmarks/conformance.py --markdown docs/conformance.md

clean:  ## remove what was set up and built
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
