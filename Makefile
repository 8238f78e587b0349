PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test coverage check install clean

help:
	@echo "make demo      grow a small network on real data, stage by stage; results in runs/demo/"
	@echo "make test      run the tests"
	@echo "make coverage  the same, and which branches and refusals they do not reach"
	@echo "make check     lint, format, types, import layers"
	@echo "make clean     remove the virtual environment and every cache"

demo: $(STAMP)
	$(BIN)/graphgrow demo

# One torch thread for each of the two workers: more would fight over the cores.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-branch --cov-report= $(PYTEST_ARGS)
	$(BIN)/python -m tools.branches

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/link_view.py
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

install: $(STAMP)

# torch first and alone: the build that is found for it (CPU or CUDA) is then the one torchvision has to accept.
$(STAMP): pyproject.toml constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt torch
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .types .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
