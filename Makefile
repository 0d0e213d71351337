# The two commands: `make demo` and `make test`. Both set up what they need in .venv first.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Real data sets and text, where there are any (docs/data.md); tests that need them skip, saying so, where not.
MODERNBERT_DATA ?= $(abspath $(wildcard ../shared))
export MODERNBERT_DATA
# One thread for each test process: two processes share the machine.
TEST_WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/pytest -n $(TEST_WORKERS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help demo native wheel test test-all check format docs bench clean

help: ## show the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/.demo .venv/.native ## set up, then rank this repository's docs for three questions with a real model
	$(BIN)/python examples/demo.py

native: .venv/.torch ## build the C++ kernels for this kind of processor (needs g++; all works without, more slowly)
	$(BIN)/python scripts/build_native.py

wheel: .venv/.dev ## two wheels in dist: one for x86-64 Linux with the C++ kernels, one for everywhere
	$(BIN)/python scripts/build_wheels.py

# Only where there is a compiler: without one the tests of the kernels skip, saying so.
.venv/.native: .venv/.torch scripts/build_native.py $(wildcard src/modernbert/kernels/csrc/*)
	if command -v $${CXX:-g++} >/dev/null; then $(BIN)/python scripts/build_native.py; fi
	touch $@

test: check .venv/.native ## set up, then lint, types and all tests but the slow ones
	$(PYTEST) -m "not slow"

test-all: check .venv/.native ## all tests, the slow ones too
	$(PYTEST)

check: .venv/.dev ## lint, format, types, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/typos

format: .venv/.dev ## format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.dev ## write docs/reference anew from the docstrings
	$(BIN)/python scripts/reference.py

bench: .venv/.dev .venv/.native ## run the benchmarks and write their results (two hours)
	$(BIN)/pip install --quiet -e ".[bench]"
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/inference.py --model nano
	$(BIN)/python benchmarks/inference.py --model minilm
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/local_attention.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/training_profile.py
	$(BIN)/python benchmarks/loss_memory.py
	if [ -n "$$MODERNBERT_DATA" ]; then $(BIN)/python benchmarks/strings.py && $(BIN)/python benchmarks/precision.py; fi
	$(BIN)/python benchmarks/tables.py

clean: ## remove what was set up and built
	rm -rf .venv build dist demo src/*.egg-info src/modernbert/kernels/*.so

# torch comes first, alone: where a CPU build of it is at hand, pip takes that one.
.venv/.torch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	touch $@

.venv/.demo: .venv/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

.venv/.dev: .venv/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ .venv/.demo
