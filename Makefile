# The commands of this project. Each sets up first what it needs; README.md says what they do.
MODEL ?= mistral-7b
SOURCE ?= bdn
SECRET ?= hf_access_key
PYTHON ?= python3.11

RUN := .venv/bin/python -m
quoted = '$(subst ','\'',$(1))'
CHOICES = --model $(call quoted,$(MODEL)) --source $(call quoted,$(SOURCE)) --secret $(call quoted,$(SECRET))

.PHONY: help setup config push serve standins docs bench check test

help:
	@echo "make serve  [MODEL=$(MODEL)]             run the Truss here, on a stand-in for the weights"
	@echo "make test                              the whole test suite"
	@echo "make config MODEL= [SOURCE=] [SECRET=] write config.yaml for a model"
	@echo "make push   MODEL= [SOURCE=] [SECRET=] config, then truss push --publish --trusted"
	@echo "make bench  [QUICK=1] [MODEL=]         measure here: docs/benchmarks.md; quick and rough: .cache/bench"
	@echo "make standins                          train the stand-ins of all models that are missing"
	@echo "make docs                              the tables in docs/ that are made from data"
	@echo "make check                             ruff, mypy; every config builds and vLLM takes its flags"

setup:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; install Python 3.11 or name it with PYTHON=" >&2; exit 1; }
	@$(PYTHON) scripts/setup.py

config: setup
	@$(RUN) scripts.render $(CHOICES)

push: config
	.venv/bin/truss push --publish --trusted

serve: setup
	@$(RUN) scripts.serve $(CHOICES) $(if $(SECRETS),--secrets $(call quoted,$(SECRETS)))

standins: setup
	@$(RUN) scripts.standin

docs: setup
	@PYTHONPATH=packages $(RUN) scripts.document

bench: standins
	@PYTHONPATH=packages $(RUN) scripts.bench --model $(call quoted,$(MODEL)) $(if $(QUICK),--quick)

check: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(RUN) pytest -q tests/platform

test: standins
	$(RUN) pytest
