# PYTHON: the virtual environment that is active, else the one that set-up made.
PYTHON := $(if $(or $(VIRTUAL_ENV),$(CONDA_PREFIX)),python,$(if $(wildcard .venv/bin/python),.venv/bin/python,python3))

.PHONY: setup lint format test bench quickstart

setup:  ## make the environment with everything that tests and development need
	bash tools/_setup.sh dev

lint:  ## what a pull request must pass
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

test:
	bash tools/run_tests.sh

bench:
	$(PYTHON) -m benchmarks

quickstart:
	bash tools/quickstart.sh
