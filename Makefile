# PY: the virtual environment that is active, else the one that set-up made.
PY := $(if $(or $(VIRTUAL_ENV),$(CONDA_PREFIX)),python,$(if $(wildcard .venv/bin/python),.venv/bin/python,python3))

.PHONY: setup lint format test bench quickstart

setup:  ## make the environment with everything that tests and development need
	bash tools/_setup.sh dev

lint:  ## what a pull request must pass
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format:
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

test:
	bash tools/run_tests.sh

bench:
	$(PY) -m benchmarks

quickstart:
	bash tools/quickstart.sh
