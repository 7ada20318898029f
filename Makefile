# Everything runs through .venv, which each target makes or completes first.
# All paths are relative to this folder, so its own path may hold spaces.
#
#   PYTHON=python3.12 make demo   another interpreter (.venv is made anew with it)
#   TEST_WORKERS=1 make test      the tests one after the other
#   DISK_GB=3 make install        the space to ask for, where pip's index serves a smaller PyTorch

PYTHON ?=
DISK_GB ?=
VENV_PYTHON := .venv/bin/python
# An environment that works is kept, whatever python3 is today, unless PYTHON names another.
BOOT_PYTHON = $(or $(PYTHON),$(shell $(VENV_PYTHON) -c '' 2>/dev/null && echo $(VENV_PYTHON) || echo python3))
# Files of tests side by side, a core each; four of them need about 12 GB.
TEST_WORKERS ?= $(shell $(VENV_PYTHON) -c 'import os; print(min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))' 2>/dev/null || echo 1)
PYTEST = $(VENV_PYTHON) -m pytest -n "$(TEST_WORKERS)" --dist loadfile

export NO_ALBUMENTATIONS_UPDATE := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-all lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: ## .venv with the pinned packages, Detectron2 and this project
	@"$(BOOT_PYTHON)" -c "" >/dev/null 2>&1 || { echo "error: $(BOOT_PYTHON) does not start; install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv) or name one with PYTHON=" >&2; exit 2; }
	@"$(BOOT_PYTHON)" tools/make_environment.py $(if $(DISK_GB),--disk-gb "$(DISK_GB)")

demo: install ## train on the sample, evaluate, annotate a clip: output/demo
	@$(VENV_PYTHON) tools/demo.py --output output/demo

test: install ## the fast and the slow tests (about nine minutes on two cores)
	@$(PYTEST) -m "not soak and not gpu"

test-fast: install ## the fast tests alone (about two minutes)
	@$(PYTEST) -m "not slow and not soak and not gpu"

test-all: install ## all tests; those that need a GPU are skipped without one
	@$(PYTEST)

lint: install ## format, lint and types: check only
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m mypy

format: install ## rewrite the files as `make lint` wants them
	@$(VENV_PYTHON) -m ruff format .
	@$(VENV_PYTHON) -m ruff check --fix .

clean: ## remove .venv, caches and build products; output/ and datasets/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './datasets/*' -not -path './output/*' -prune -exec rm -rf {} +
