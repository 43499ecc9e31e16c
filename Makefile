# The commands of this project. Each sets up first what it needs; README.md says what they do.
MODEL ?= mistral-7b
SOURCE ?= bdn
SECRET ?= hf_access_key
PYTHON ?= python3.11
DATA = {"messages": [{"role": "user", "content": "What is the Mistral wind?"}], "max_tokens": 100}

RUN := .venv/bin/python -m
quoted = '$(subst ','\'',$(1))'
# What was given on make's command line: CI systems set variables like ENVIRONMENT for themselves.
given = $(if $(findstring command,$(origin $(1))),$($(1)))
option = $(if $(2),$(1) $(call quoted,$(2)))
HARDWARE = $(call option,--gpu,$(call given,GPU)) $(call option,--precision,$(call given,PRECISION)) \
  $(call option,--context,$(call given,CONTEXT))
CHOICES = --model $(call quoted,$(MODEL)) --source $(call quoted,$(SOURCE)) --secret $(call quoted,$(SECRET)) $(HARDWARE) \
  $(if $(findstring command,$(origin IMAGE_HOSTS)),--image-hosts $(call quoted,$(IMAGE_HOSTS)))

.PHONY: help setup plan config push predict autoscale smoke serve standins docs modelinfos bench resilience check test

help:
	@echo "make serve  [MODEL=$(MODEL)] [TP=]       run the Truss here, on a stand-in for the weights"
	@echo "make test                              the whole test suite"
	@echo "make plan   [MODEL=] [GPU=] [PRECISION=] [CONTEXT=]"
	@echo "                                       what fits on which GPUs"
	@echo "make config MODEL= [GPU=] [PRECISION=] [CONTEXT=] [SOURCE=] [SECRET=] [IMAGE_HOSTS=]"
	@echo "                                       write config.yaml for a model"
	@echo "make push   MODEL= [GPU=] [PRECISION=] [CONTEXT=] [SOURCE=] [SECRET=] [IMAGE_HOSTS=] [ENVIRONMENT=] [TEAM=]"
	@echo "                                       config, then truss push --publish --trusted"
	@echo "make predict [DATA=]                   one request to the model that config.yaml names"
	@echo "make autoscale MODEL_ID= [ENVIRONMENT=production] [DRY_RUN=1] [MIN=] [MAX=] [CONCURRENCY=]"
	@echo "                                       replicas and concurrency, from the model's card and plan"
	@echo "make smoke  MODEL_ID= [BASE_URL=]      checks of a deployment, or of make serve"
	@echo "make bench  [PART=overhead, scaling or startup] [QUICK=1] [FRESH=1] [MODEL=]"
	@echo "                                       measure here: docs/benchmarks.md; one model, or quick: .cache/bench"
	@echo "make bench  URL= [MODEL=] [QUICK=1] [FRESH=1] [OUTPUT=]"
	@echo "                                       measure a deployment, or any server: a folder of .cache/bench"
	@echo "make resilience                        the tests of load, faults and hostile input, which write docs/resilience.md"
	@echo "make standins                          train the stand-ins of all models that are missing"
	@echo "make docs                              the tables of README.md and docs/ made from data"
	@echo "make modelinfos                        what vLLM asks of the models' classes, after a new version of it"
	@echo "make check                             ruff, mypy; every config builds and vLLM takes its flags"

setup:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; install Python 3.11 or name it with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -m scripts.setup

plan: setup
	@$(RUN) scripts.plan $(call option,--model,$(call given,MODEL)) $(HARDWARE)

config: setup
	@$(RUN) scripts.config $(CHOICES)

push: config
	.venv/bin/truss push --publish --trusted $(call option,--environment,$(call given,ENVIRONMENT)) $(call option,--team,$(call given,TEAM))

predict: setup
	.venv/bin/truss predict --published -d $(call quoted,$(DATA))

autoscale: setup
	@$(RUN) scripts.autoscale --model-id $(call quoted,$(MODEL_ID)) $(call option,--environment,$(call given,ENVIRONMENT)) \
	  $(call option,--model,$(call given,MODEL)) $(call option,--min-replica,$(call given,MIN)) $(call option,--max-replica,$(call given,MAX)) \
	  $(call option,--concurrency-target,$(call given,CONCURRENCY)) $(call option,--base-url,$(call given,BASE_URL)) $(if $(DRY_RUN),--dry-run) $(HARDWARE)

smoke: setup
	@$(RUN) scripts.smoke --model-id $(call quoted,$(MODEL_ID)) $(call option,--environment,$(call given,ENVIRONMENT)) \
	  $(call option,--base-url,$(call given,BASE_URL))

serve: setup
	@$(RUN) scripts.serve $(CHOICES) $(if $(SECRETS),--secrets $(call quoted,$(SECRETS))) \
	  $(call option,--tensor-parallel-size,$(call given,TP))

standins: setup
	@$(RUN) scripts.standins

docs: setup
	@PYTHONPATH=packages $(RUN) scripts.docs

modelinfos: standins
	@$(RUN) scripts.modelinfos

# an URL= that is empty, a variable not set, is not to measure this machine instead
URL_GIVEN = $(findstring command,$(origin URL))
bench: $(if $(URL_GIVEN),setup,standins)
	@PYTHONPATH=packages $(RUN) scripts.bench $(call option,--model,$(call given,MODEL)) $(call option,--part,$(call given,PART)) \
	  $(if $(URL_GIVEN),--url $(call quoted,$(URL))) $(call option,--output,$(call given,OUTPUT)) $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

resilience: standins
	@$(RUN) scripts.resilience

check: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(RUN) pytest -q tests/platform/test_config.py

test: standins
	$(RUN) pytest
