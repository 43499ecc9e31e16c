# The commands of this project: `make help` lists them, `make help push` says what one takes. Each is a
# file of scripts/.
# scripts/command.py checks what they are given, sets up what they need, and runs them.
PYTHON = python3
COMMANDS := $(filter-out __init__ command options,$(basename $(notdir $(wildcard scripts/*.py))))

# Every variable of make's command line as it was written, quoted for the shell; none of the environment.
define newline


endef
quoted = '$(subst $(newline),'"$$newline"',$(subst ','\'',$(1)))'
NAMES := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
GIVEN = $(foreach v,$(filter-out PYTHON,$(NAMES)),$(call quoted,$v=$(value $v)))
# make would expand their values, and run a $(shell …) in them, to put them into the environment.
unexport $(NAMES)

# Before anything is done: `make push pixtral-12b` must not push and then look for "pixtral-12b".
# scripts.command says so, and what may have been meant.
UNKNOWN := $(firstword $(filter-out help $(COMMANDS),$(MAKECMDGOALS)))
$(if $(UNKNOWN),$(error $(or $(shell $(PYTHON) -m scripts.command $(call quoted,$(UNKNOWN)) 2>&1 >/dev/null),'$(UNKNOWN)' is not a command of this project)))

# `make help push` is one command, and push is what it is asked about.
ABOUT := $(if $(filter help,$(MAKECMDGOALS)),$(filter-out help,$(MAKECMDGOALS)))
$(ABOUT):
	@:

.PHONY: help $(COMMANDS)
help $(filter-out $(ABOUT),$(COMMANDS)):
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; name one with PYTHON=python3.11" >&2; exit 1; }
	@newline=$$(printf '\n.'); newline=$${newline%.}; exec $(PYTHON) -m scripts.command $@ $(if $(filter help,$@),$(ABOUT)) $(GIVEN)
