# One command each; every target prepares what it needs. `make help` lists them.
SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
PLAIN ?=
EXTRAS ?= dev
READY := $(VENV)/.ready-$(EXTRAS)
BUILT := build/compiled
COMPILED ?=
export EXTRAS PYTHON
# Every server that a test starts would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
# With COMPILED=1 a target runs what `make wheel` builds, in place of the sources.
ifeq ($(COMPILED),1)
TORPOR := $(READY) $(BUILT)/.ready
export PYTHONPATH := $(CURDIR)/$(BUILT)
else
TORPOR := $(READY)
endif

.PHONY: help setup demo serve test facts lint reference wheel bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 18

setup: $(READY) ## make .venv with Torpor, what its tests need, and the runtime clients

$(READY): pyproject.toml requirements-ci.lock scripts/setup scripts/find-python
	@scripts/setup $(VENV) $(READY)

demo: $(TORPOR) ## start a server, deploy functions and services of every style, run each cold and warm, stop
	@$(PY) examples/demo.py $(ARGS)

serve: $(TORPOR) ## run a server; make serve ARGS="--port 9000"
	@$(VENV)/bin/torpor serve $(ARGS)

test: $(TORPOR) ## the whole fast suite; make test ARGS=tests/unit COMPILED=1
	@$(PY) -m pytest $(ARGS)

facts: $(TORPOR) ## scoreboard of the required facts; make facts ARGS=--json
	@$(PY) -m tests.support.facts $(ARGS)

lint: $(READY) ## style, types and the rules of the architecture
	@$(PY) -m ruff check src tests bench examples
	@$(PY) -m ruff format --check --quiet src tests bench examples || { echo "Not formatted: ruff format" >&2; exit 1; }
	@$(PY) -m mypy
	@$(PY) -m pytest tests/architecture

reference: $(READY) ## write docs/reference anew
	@$(PY) -m torpor.cli.reference > docs/reference/settings.md
	@$(PY) -c "from torpor.lifecycle.diagram import page; print(page(), end='')" > docs/reference/lifecycle.md
	@$(PY) -m tests.support.facts_page

wheel: $(BUILT)/.ready ## dist/torpor-….whl, its hot path compiled for this Python and machine (needs a C compiler)

$(BUILT)/.ready: $(READY) scripts/compile pyproject.toml $(shell find src -name __pycache__ -prune -o -type f -print)
	@scripts/compile $(VENV) dist $(BUILT)

bench: $(if $(PLAIN),$(READY),$(BUILT)/.ready) ## measure what `make wheel` builds, or the sources: make bench PLAIN=1
	@PYTHONPATH=$(if $(PLAIN),,$(CURDIR)/$(BUILT)) $(PY) -m bench $(ARGS)

clean: ## remove .venv and what tools left behind
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
