# One command each; every target prepares what it needs. `make help` lists them.
SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
EXTRAS ?= dev
READY := $(VENV)/.ready-$(EXTRAS)
export EXTRAS PYTHON

.PHONY: help setup demo serve test facts lint reference bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 18

setup: $(READY) ## make .venv with Torpor, what its tests need, and the runtime clients

$(READY): pyproject.toml requirements-ci.lock scripts/setup scripts/find-python
	@scripts/setup $(VENV) $(READY)

demo: $(READY) ## start a server, deploy three functions, run each cold and warm, stop
	@$(PY) examples/demo.py $(ARGS)

serve: $(READY) ## run a server; make serve ARGS="--port 9000"
	@$(VENV)/bin/torpor serve $(ARGS)

test: $(READY) ## the whole fast suite; make test ARGS=tests/unit
	@$(PY) -m pytest $(ARGS)

facts: $(READY) ## scoreboard of the required facts; make facts ARGS=--json
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

bench: $(READY) ## measure; the report says beside whom
	@$(PY) -m bench $(ARGS)

clean: ## remove .venv and what tools left behind
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
