PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
PYTEST := $(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test fast lint types golden science bench docs

help: ## what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: .venv/.ready ## install sonant and what it needs into .venv

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("sonant needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## the whole way once: make a world, train on it, score, write demo/report.html
	$(BIN)/sonant demo demo

test: setup ## every test but the golden and the long scientific ones
	$(PYTEST) -m 'not golden and not science'

fast: setup ## the tests to run at every edit
	$(PYTEST) -m 'not slow and not golden and not science'

lint: setup ## style, imports, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy --strict
	$(BIN)/mypy

golden: setup ## whole runs against recorded figures (REGOLD=1 records them anew)
	$(BIN)/pytest -m golden

science: setup ## the world meets its demands (about half an hour on two cores)
	$(BIN)/sonant world build/world-check --check

bench: setup ## speed, as ratios within one run
	$(BIN)/python benchmarks/pack.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/kmeans.py
	$(BIN)/python benchmarks/step.py

docs: setup ## write docs/commands.md from the commands' own help
	$(BIN)/python docs/commands.py
