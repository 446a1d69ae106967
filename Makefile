# Every target makes the environment it needs in .venv: with uv where it is installed, else with pip.

PYTHON ?= python3
# The versions of what lakelog needs: `pinned`, all of them named in constraints.txt; `newest`, what the
# index has today; `oldest`, the lowest that pyproject.toml allows. Each has an environment of its own.
LANE   ?= pinned
# Tests wait for disks and servers: one process more than there are cores.
PROCESSES := $(shell echo $$(( $$(nproc) + 1 )))
LANES  := pinned newest oldest
ifeq ($(filter $(LANE),$(LANES)),)
$(error LANE=$(LANE): it is one of $(LANES))
endif
VENV    := .venv$(if $(filter pinned,$(LANE)),,-$(LANE))
BIN     := $(VENV)/bin
PROGRAM := $(VENV)/.program
READY   := $(VENV)/.ready
# What builds the documentation, and other programs that read a lake, are installed when first needed.
WRITER  := $(VENV)/.docs
READERS := $(VENV)/.readers
# Peers of the benchmarks live apart: lakelog needs none of them.
PEERS   := .venv-peers
WANTED  := benchmarks/peers/requirements.txt
SAMPLE  := data/sample.jsonl
PINS_pinned := constraints.txt
PINS_oldest := $(VENV)/lowest.txt
PINS    := $(PINS_$(LANE))
# Thousands of small lakes are made and removed: in memory where 4 GB and a million inodes are free,
# else in TMPDIR.
# TEST_DIR=/some/disk runs the tests there.
ROOMY := 'NR==2 && $$1 > 4000000 && ($$2 == "-" || $$2 > 1000000) {print "/dev/shm"}'
TEST_DIR ?= $(or $(shell df -k --output=avail,iavail /dev/shm 2>/dev/null | awk $(ROOMY)),$(TMPDIR),/tmp)

# Tests start thousands of processes: each would compile lakelog anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test quick check pins docs notebooks bench targets format lint types clean torture coverage

help: ## show this list
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' Makefile

demo: $(PROGRAM) $(SAMPLE) ## a tour: collect, ask, search, go back, prove, train, erase
	@$(BIN)/lakelog demo --sample $(SAMPLE)

test: $(READY) ## run the tests; LANE=newest or oldest with other versions, TESTS=PATHS some of them
	@echo "==> tests$(if $(filter-out pinned,$(LANE)), with the $(LANE) versions of what lakelog needs)"
	@PYTEST_DEBUG_TEMPROOT="$(TEST_DIR)" $(BIN)/python -m pytest -q -n $(PROCESSES) --dist worksteal $(TESTS)

quick: $(READY) ## a minute of tests: of the packages that changed, then a sample of the others
	@PYTEST_DEBUG_TEMPROOT="$(TEST_DIR)" $(BIN)/python -m tests.support.quick

check: lint types test ## format, lint, types and tests: what CI runs

docs: $(WRITER) ## run the examples of all pages, build them into build/docs; a warning is an error
	@echo "==> examples of the documentation"
	@LAKELOG_MATRIX=all $(BIN)/python -m pytest -q -n 2 tests/test_readme.py
	@echo "==> documentation: build/docs/docs/index.html"
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --jobs 2 \
	  -c docs -d build/doctrees . build/docs

bench: $(READY) $(PEERS)/.ready ## measure against peers and old claims, 25 minutes; QUICK=1 in 5, RESUME=1
	@$(BIN)/python -m benchmarks.peers --python $(PEERS)/bin/python \
	  $(if $(QUICK),--quick) $(if $(RESUME),--resume)
	@echo "==> what the older systems claimed"
	@$(BIN)/python -m benchmarks claims $(if $(QUICK),--quick)

targets: $(READY) ## measure against the targets, longer; QUICK=1 for small sizes
	@LAKELOG_DATASETS_PYTHON="$(wildcard $(PEERS)/bin/python)" \
	  $(BIN)/python -m benchmarks $(if $(QUICK),--quick)

# What these tests repeat, and how often, is set by LAKELOG_STATE_TREES, LAKELOG_STATE_FLIPS, LAKELOG_STATE_STEP,
# LAKELOG_STATE_BOMB, LAKELOG_HISTORIES and SYNC_KILLS: see CONTRIBUTING.md.
torture: $(READY) ## kills, power cuts and faults: 20 minutes; HOURS=1, LAKELOG_STATE_TREES=N ... for more
	@TEST_DIR="$(TEST_DIR)" $(BIN)/python -m tests.torture $(if $(HOURS),--hours $(HOURS))
	@echo "==> every case of the matrices of faults, every round and example"
	@LAKELOG_MATRIX=all PYTEST_DEBUG_TEMPROOT="$(TEST_DIR)" $(BIN)/python -m pytest -q -n 2 \
	  -m "matrix or thorough or rounds or hypothesis or slow"

notebooks: $(READY) ## run the notebooks, compare their output, write pages; WRITE=1 renews it
	@LAKELOG_MATRIX=all $(BIN)/python -m pytest -q -n 0 tests/notebook/shell_cases.py
	@$(BIN)/python -m tests.support.notebook_runs $(if $(WRITE),--write) --html build/notebooks

coverage: $(READY) ## branch coverage of the store by its tests
	@PYTEST_DEBUG_TEMPROOT="$(TEST_DIR)" $(BIN)/python -m tests.torture coverage

format: $(READY) ## rewrite the code in the house format
	@echo "==> format"
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

lint: $(READY) ## check format and style, change nothing
	@echo "==> format and style"
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .

types: $(READY) ## check the types of lakelog, and of a program that uses it
	@echo "==> types"
	@$(BIN)/mypy
	@LAKELOG_MATRIX=all $(BIN)/python -m pytest -q tests/test_typed_api.py

pins: ## renew constraints.txt: the newest versions that go together (needs uv)
	@{ echo "# Every version of the tested set, for pip and for uv. Renew: make pins"; \
	  echo "hatchling" | uv pip compile --quiet --universal --python-version 3.11 \
	  --all-extras --no-annotate --no-header pyproject.toml -; } > build-pins.tmp
	@mv build-pins.tmp constraints.txt

clean: ## remove what these targets made, .venv too
	@rm -rf .venv .venv-newest .venv-oldest $(PEERS) .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist htmlcov
	@rm -f $(SAMPLE) .coverage .coverage.*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(SAMPLE): data/generate.py | $(PROGRAM)
	@echo "==> sample events"
	@$(BIN)/python data/generate.py --events 60000 --seed 7 $@

# $(call environment): make it where it is not there yet.
define environment
if command -v uv >/dev/null 2>&1; then \
  uv venv --quiet --allow-existing $(if $(filter file,$(origin PYTHON)),,--python $(PYTHON)) $(VENV); \
elif ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
  $(PYTHON) -m venv $(VENV); \
fi
endef

# $(call install,WHAT): modules that are not imported need not be compiled. Constraints by environment
# reach what builds the package, too; nothing but installing sees them.
define install
$(if $(PINS),export PIP_CONSTRAINT=$(PINS) PIP_BUILD_CONSTRAINT=$(PINS) UV_CONSTRAINT=$(PINS) UV_BUILD_CONSTRAINT=$(PINS);) \
if command -v uv >/dev/null 2>&1; then \
  uv pip install --quiet --python $(BIN)/python $(if $(filter newest,$(LANE)),--upgrade) $(1); \
else \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
    $(if $(filter newest,$(LANE)),--upgrade --upgrade-strategy eager) $(1); \
fi
endef

$(PROGRAM): pyproject.toml constraints.txt
	@echo "==> lakelog in $(VENV) (only when pyproject.toml or constraints.txt changed)"
	@$(environment)
	@$(lowest)
	@$(call install,-e '.[server]')
	@touch $@

$(READY): pyproject.toml constraints.txt
	@echo "==> what the tests need in $(VENV) (only when pyproject.toml or constraints.txt changed)"
	@$(environment)
	@$(lowest)
	@$(call install,-e '.[dev]')
	@touch $(PROGRAM) $@

# The newest of today is asked for each time.
ifeq ($(LANE),newest)
.PHONY: $(PROGRAM) $(READY)
endif

define lowest
$(if $(filter oldest,$(LANE)),$(BIN)/python tests/support/lowest.py pyproject.toml > $(PINS))
endef

$(WRITER): $(READY)
	@echo "==> what builds the documentation, in $(VENV)"
	@$(call install,-e '.[docs]')
	@touch $@

$(READERS): $(READY)
	@echo "==> other programs that read a lake, in $(VENV)"
	@$(call install,-e '.[readers]')
	@touch $@

# A peer that cannot be installed is said and left out.
$(PEERS)/.ready: $(WANTED)
	@echo "==> environment of the peers in $(PEERS) (only when $(WANTED) changed)"
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing $(PEERS); install="uv pip install --quiet --python $(PEERS)"; \
	else \
	  $(PYTHON) -m venv $(PEERS); install="$(PEERS)/bin/python -m pip install --quiet"; \
	fi; \
	$$install -r $(WANTED) || grep -v '^#' $(WANTED) | while read -r one; do \
	  $$install "$$one" </dev/null || echo "!! $$one cannot be installed: its peer is left out" >&2; \
	done; \
	$$install --no-deps drain3==0.9.11 || echo "!! drain3 cannot be installed: its peer is left out" >&2
	@touch $@
