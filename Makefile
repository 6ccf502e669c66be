# Targets take SUITE= (a suite) and ARGS= (overrides, such as ARGS="seeds=[0] fast=true")
SUITE ?= quick
ARGS ?=
# make captures takes the results folder of a finished suite=quick
RESULTS ?= results
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Flower's pins clash with those of constraints.txt
FLOWER := .venv-flower

.DEFAULT_GOAL := help
.PHONY: help setup benchmark test test-recovery slurm-daemons test-slurm test-ray test-flower test-live test-nightly check tune report sync docs pictures examples captures

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22
	@echo '  SUITE=quick|smoke|... chooses a suite, ARGS="key=value ..." overrides anything in it'

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/ready ## Create .venv with the tested versions (about 2 minutes)

benchmark: $(VENV)/ready ## Run what is left of SUITE and print its comparison table
	@$(BIN)/traindyn run suite=$(SUITE) $(ARGS)

tune: $(VENV)/ready ## Search the parameters of SUITE's methods (ARGS="method=cmd_online trials=50")
	@$(BIN)/traindyn tune suite=$(SUITE) $(ARGS)

report: $(VENV)/ready ## Rebuild tables, figures and page of SUITE from its records, and open the page
	@$(BIN)/traindyn report suite=$(SUITE) --open $(ARGS)

sync: $(VENV)/ready ## Send the W&B runs that were kept offline, and say what is where
	@$(BIN)/traindyn sync $(ARGS)

test: $(VENV)/ready ## Run all tests
	@$(BIN)/python -m pytest -n 4 $(ARGS)

test-recovery: $(VENV)/ready ## Kill and disturb a run at many moments (half an hour)
	@$(BIN)/python -m pytest -n 4 -m 'long or not long' tests/recovery $(ARGS)

slurm-daemons:
	@for name in munged slurmctld slurmd; do command -v $$name > /dev/null || { echo "Slurm is needed, $$name is not on the path (Debian: slurmctld slurmd slurm-client munge)"; exit 2; }; done

test-slurm: $(VENV)/ready slurm-daemons ## Run on a Slurm of one node (Debian: slurmctld slurmd slurm-client munge)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[slurm]'
	@$(BIN)/python -m pytest -m slurm -n 0 tests/cluster $(ARGS)

test-ray: $(VENV)/ready ## Run on a Ray of this machine
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]'
	@$(BIN)/python -m pytest -m ray -n 0 tests/cluster $(ARGS)

$(FLOWER)/ready: pyproject.toml constraints-flower.txt
	$(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/pip install --quiet --disable-pip-version-check --constraint constraints-flower.txt --editable '.[flower]' pytest pytest-xdist hypothesis
	@touch $@

test-flower: $(FLOWER)/ready ## Run federations over Flower, in an environment of its own (ten minutes)
	@$(FLOWER)/bin/python -m pytest -m flower -n 0 tests/flower $(ARGS)

test-live: $(VENV)/ready ## Follow trainings of Lightning and of Hugging Face's Trainer (two minutes)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[live]'
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m live -n 0 tests/live tests/adopted $(ARGS)

test-nightly: $(VENV)/ready slurm-daemons ## Run every test there is, those of the targets above too but test-flower (an hour)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[slurm,ray,live]'
	@$(BIN)/python -m pytest -n 4 -m 'not slurm and not ray and not flower' $(ARGS); others=$$?; \
	$(BIN)/python -m pytest -n 0 -m 'slurm or ray' tests/cluster $(ARGS) && exit $$others

check: $(VENV)/ready ## Lint, formatting, types and the order of the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/ready ## Build the documentation, strictly, and say where it is
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "documentation: build/site/index.html"

pictures: $(VENV)/ready ## Draw the pictures of README and documentation from results/published
	@$(BIN)/python docs/tools/pictures.py

examples: $(VENV)/ready ## Run the examples and write their pages
	@$(BIN)/python docs/tools/examples.py

captures: $(VENV)/ready ## Capture a terminal and the report's page from RESULTS, where suite=quick is finished
	@$(BIN)/python docs/tools/captures.py --results $(RESULTS) $(ARGS)
