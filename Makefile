# The commands of this project, one file in scripts/ each: `make help` lists them, `make help push` lists the
# options of one. scripts/command.py checks the options, sets up what the command needs, and runs it.
PYTHON = python3
COMMANDS := $(filter-out __init__ command options,$(basename $(notdir $(wildcard scripts/*.py))))

# Every variable on make's command line as written, quoted for the shell; none from the environment.
define newline


endef
quoted = '$(subst $(newline),'"$$newline"',$(subst ','\'',$(1)))'
NAMES := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
GIVEN = $(foreach v,$(filter-out PYTHON,$(NAMES)),$(call quoted,$v=$(value $v)))
# To export their values, make would expand them, and run any $(shell …) in them.
unexport $(NAMES)

# Checked first: `make push pixtral-12b` must not push and then look for "pixtral-12b". scripts.command reports it,
# with a suggestion.
UNKNOWN := $(firstword $(filter-out help $(COMMANDS),$(MAKECMDGOALS)))
$(if $(UNKNOWN),$(error $(or $(shell $(PYTHON) -m scripts.command $(call quoted,$(UNKNOWN)) 2>&1 >/dev/null),'$(UNKNOWN)' is not a command of this project)))

# `make help push` is one command: help about push.
ABOUT := $(if $(filter help,$(MAKECMDGOALS)),$(filter-out help,$(MAKECMDGOALS)))
$(ABOUT):
	@:

.PHONY: help $(COMMANDS)
help $(filter-out $(ABOUT),$(COMMANDS)):
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; name one with PYTHON=python3.11" >&2; exit 1; }
	@newline=$$(printf '\n.'); newline=$${newline%.}; exec $(PYTHON) -m scripts.command $@ $(if $(filter help,$@),$(ABOUT)) $(GIVEN)
