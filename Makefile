# `make demo` and `make test` each need nothing but Python >= 3.10 and a package index: they make .venv, install what they
# need once, and install again only when pyproject.toml or constraints.txt changed.

# The interpreter .venv is made from, and where .venv lies.
PYTHON ?= python3
VENV ?= .venv

# Package index that pip asks, for example an internal mirror. Empty: whatever pip is configured to ask.
PIP_INDEX_URL ?=

# Extra index that holds torch's CPU builds ("2.13.0+cpu"), asked beside the other. Empty: the ordinary wheel of torch, which on
# Linux brings gigabytes of CUDA libraries with it; it works the same. PyTorch's install page names the index for "CPU".
TORCH_INDEX ?=

PIP_FLAGS = --constraint constraints.txt \
	$(if $(strip $(PIP_INDEX_URL)),--index-url $(PIP_INDEX_URL)) $(if $(strip $(TORCH_INDEX)),--extra-index-url $(TORCH_INDEX))
BIN = $(VENV)/bin
VENV_READY = $(VENV)/.ready
DEMO_READY = $(VENV)/.ready-demo
DEV_READY = $(VENV)/.ready-dev

# What `make demo` passes on: make demo DEMO_ARGS="--fault nan --seed 3 --json"
DEMO_ARGS ?=
# What `make torture` passes on: make torture TORTURE_ARGS="--seed 7"
TORTURE_ARGS ?=
# How long `make fuzz` tries each target.
FUZZ_SECONDS ?= 60
# What `make test` passes on: make test PYTEST_ARGS="tests/unit -x"
PYTEST_ARGS ?=
# Processes the tests are spread over, file by file, in the order of their folders: those that take long begin early. One more than
# two cores, for half of what the end-to-end tests take is waiting for another process.
PYTEST_JOBS ?= 3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-all torture check docs fuzz screenshots bench corpus noise scorecard fmt clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: $(DEV_READY)  ## make .venv with everything the targets below need

demo: $(DEMO_READY)  ## train CartPole, break the run on purpose, watch it being found (under two minutes)
	@$(BIN)/gradwatch demo $(DEMO_ARGS)

test: $(DEV_READY)  ## run the tests (under ten minutes on two cores)
	@$(BIN)/python -m pytest -m "not campaign" -n $(PYTEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-all: $(DEV_READY)  ## run the tests and the long randomised campaigns
	@$(BIN)/python -m pytest --hypothesis-profile other $(PYTEST_ARGS)

torture: $(DEV_READY)  ## kill -9 daemon and trainers 200 times under load, and check every record (about 15 minutes)
	@PYTHONPATH=tests $(BIN)/python -m harness.crashes --kills 200 $(TORTURE_ARGS)

check: $(DEV_READY)  ## lint, format, types, import rules, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python benchmarks/page.py --check

fuzz: $(DEV_READY)  ## fuzz the decoder and the gate, guided by coverage, FUZZ_SECONDS each; what reaches further joins tests/fuzz/corpus
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --editable '.[fuzz]'
	@set -e; for target in decode gate; do $(BIN)/python tests/fuzz/fuzz.py $$target --seconds $(FUZZ_SECONDS); done

docs: $(DEV_READY)  ## write the pages that follow from the code, and build the site into build/site (offline; a broken link fails)
	@$(BIN)/python docs/generate.py
	@$(BIN)/sphinx-build -q -W --keep-going -b html -d build/doctrees docs build/site
	@echo "build/site/index.html"

screenshots: $(DEV_READY)  ## take the pictures of the dashboard in docs/images (needs chromium)
	@$(BIN)/python tools/screenshots.py

bench: $(DEV_READY)  ## run every benchmark; their figures go into docs/budgets.md
	@set -e; for script in benchmarks/bench_*.py benchmarks/harmless.py benchmarks/gpu.py; do $(BIN)/python $$script --write; done
	@$(BIN)/python benchmarks/page.py

corpus: $(DEV_READY)  ## record the training runs that detection is judged on, those that are missing or stale (hours, resumable)
	@nice -n 10 $(BIN)/python -m benchmarks.corpus record

noise: $(DEV_READY)  ## measure how healthy signals move; writes docs/noise.md
	@$(BIN)/python -m benchmarks.corpus noise

scorecard: $(DEV_READY)  ## score detection on the corpus; writes docs/scorecard.md (exit 11: too little recorded)
	@$(BIN)/python -m benchmarks.scorecard --write

fmt: $(DEV_READY)  ## repair lint where that is safe, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, caches and builds
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip 21.3 is the first that installs pyproject-only projects editable; the one bundled with early 3.10 releases is older.
$(VENV_READY):
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "gradwatch needs Python 3.10 or newer, \
	$(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) 'pip>=21.3'
	@touch $@

$(DEMO_READY): $(VENV_READY) pyproject.toml constraints.txt
	@echo "Installing gradwatch, the daemon and the demo into $(VENV) (torch is large; once only) ..."
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --editable '.[daemon,demo]'
	@touch $@

$(DEV_READY): $(VENV_READY) pyproject.toml constraints.txt
	@echo "Installing gradwatch and its development tools into $(VENV) (torch is large; once only) ..."
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --editable '.[dev]'
	@touch $(DEMO_READY) $@
