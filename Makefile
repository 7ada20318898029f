# Everything runs in .venv. Each target creates or completes it first.
# All paths are relative to this folder, so the folder's own path may contain spaces.
#
#   PYTHON=python3.12 make demo   use another interpreter (creates .venv again with it)
#   TEST_WORKERS=1 make test      run the tests one after the other
#   DISK_GB=3 make install        require less free disk space, for a smaller PyTorch build

PYTHON ?=
DISK_GB ?=
VENV_PYTHON := .venv/bin/python
# Keep a working environment, whatever python3 is today, unless PYTHON names another interpreter.
BOOT_PYTHON = $(or $(PYTHON),$(shell $(VENV_PYTHON) -c '' 2>/dev/null && echo $(VENV_PYTHON) || echo python3))
# Test processes, one per core. Four of them need about 12 GB.
TEST_WORKERS ?= $(shell $(VENV_PYTHON) -c 'import os; print(min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))' 2>/dev/null || echo 1)
PYTEST = $(VENV_PYTHON) -m pytest -n "$(TEST_WORKERS)" --dist loadfile --no-loadscope-reorder

export NO_ALBUMENTATIONS_UPDATE := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-all lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: ## create .venv with the pinned packages, Detectron2 and persondet
	@"$(BOOT_PYTHON)" -c "" >/dev/null 2>&1 || { echo "error: $(BOOT_PYTHON) does not start; install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv) or name one with PYTHON=" >&2; exit 2; }
	@"$(BOOT_PYTHON)" tools/make_environment.py $(if $(DISK_GB),--disk-gb "$(DISK_GB)")

demo: install ## train on the sample, evaluate, annotate a clip, report: output/demo
	@$(VENV_PYTHON) tools/demo.py --output output/demo

test: install ## run the fast and the slow tests (about seven minutes on two older cores)
	@$(PYTEST) -m "not soak and not gpu"

test-fast: install ## run only the fast tests (about a minute and a half)
	@$(PYTEST) -m "not slow and not soak and not gpu"

test-all: install ## run all tests, long ones too; GPU tests need a GPU
	@$(PYTEST)

lint: install ## check formatting, lint and types
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m mypy

format: install ## format the files and fix lint findings
	@$(VENV_PYTHON) -m ruff format .
	@$(VENV_PYTHON) -m ruff check --fix .

clean: ## remove .venv, caches and build products; keep output/ and datasets/
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './datasets/*' -not -path './output/*' -prune -exec rm -rf {} +
