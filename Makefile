# make        says what there is
PYTHON ?= python3
PEERS ?= all
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

.PHONY: install
install: $(VENV)/run.stamp ## the program into .venv; then: . .venv/bin/activate

.PHONY: demo
demo: $(VENV)/run.stamp ## a real chest CT through node and PACS, with a table and a picture (KEEP=1 leaves both running)
	@$(BIN)/python deploy/demo/demo.py $(if $(KEEP),--keep) $(ARGS)

.PHONY: test
test: peers $(VENV)/dev.stamp ## all tests, real peers included (PEERS=none: those that need no peer)
	@PEERS=$(PEERS) $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

.PHONY: chaos
chaos: peers $(VENV)/dev.stamp ## kill -9 at random points, 200 of the intake and 24 of the whole road, on both databases
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: retrain
retrain: $(VENV)/run.stamp ## a model that ships, trained anew into OUT and judged (MODEL=chest_ct DATA=… OUT=… DEVICE=cuda)
	@sh deploy/retrain.sh $(MODEL) $(DATA) $(OUT) $(DEVICE)

.PHONY: conformance
conformance: $(VENV)/dev.stamp ## write the tables of docs/conformance.md anew, from the code
	@$(BIN)/python -m dicom_node.conformance docs/conformance.md

.PHONY: lint
lint: $(VENV)/dev.stamp ## ruff, mypy --strict and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: peers
peers: ## install Orthanc, dcmtk, dicom3tools, PostgreSQL and Chromium where that is possible
	@[ "$(PEERS)" = none ] || sh deploy/peers.sh

.PHONY: clean
clean: ## remove what make made
	rm -rf $(VENV) var build *.egg-info

$(VENV)/run.stamp: pyproject.toml setup.py constraints.txt
	@sh deploy/setup.sh $(PYTHON) $(VENV) .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml setup.py constraints.txt
	@sh deploy/setup.sh $(PYTHON) $(VENV) '.[dev]'
	@touch $@ $(VENV)/run.stamp
