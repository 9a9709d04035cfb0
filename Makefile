# Winnow: `make demo` shows the whole job on real text, `make test` proves it. Everything else is a convenience.
SHELL := /bin/bash
PYTHON ?= python3
WINNOW_HOME ?= $(CURDIR)/data
export WINNOW_HOME
BIN := .venv/bin
STAMP := .venv/.installed

# Tests that try more of the same under test-faults than under test.
LONGER := tests/stages/test_deliveries_property.py tests/assets/test_costs_of_change.py \
	tests/store/test_garbage.py tests/store/test_doctor.py

.PHONY: demo run ui test test-faults check format clean clean-home install

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@touch $(STAMP)

demo: $(STAMP) ## the main job on real text, from files to a versioned manifest
	@$(BIN)/winnow demo

# make run CORPUS='path/*.jsonl.zst' REFERENCE=path.jsonl BUDGET=tokens
run: $(STAMP) ## the same job on your own files; a source per folder
	@$(BIN)/winnow run $(if $(CORPUS),--corpus '$(CORPUS)') $(if $(REFERENCE),--reference '$(REFERENCE)') $(if $(BUDGET),--budget '$(BUDGET)') $(ARGS)

ui: $(STAMP) ## Dagster's UI and the sensors on http://127.0.0.1:3000
	@$(BIN)/winnow ui $(ARGS)

test: $(STAMP) ## all tests, a file a worker, a core a worker
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-faults: $(STAMP) ## 2,000 kills, minutes of readers and writers, histories (WINNOW_FAULT_KILLS, WINNOW_SOAK_SECONDS)
	WINNOW_FAULTS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -p no:xdist -v tests/faults $(LONGER) $(ARGS)

check: $(STAMP) ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## the environment and the caches; what runs wrote stays (make clean-home)
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "left alone: $(WINNOW_HOME) (remove it with: make clean-home)"

clean-home: ## everything that runs wrote
	rm -rf '$(WINNOW_HOME)'
