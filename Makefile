# make        says what there is
PYTHON ?= python3
PEERS ?= all
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 14

.PHONY: demo
demo: $(VENV)/run.stamp ## a real chest CT through node and PACS, with a table and a picture (KEEP=1 leaves both running)
	@$(BIN)/python deploy/demo/demo.py $(if $(KEEP),--keep)

.PHONY: test
test: $(VENV)/dev.stamp peers ## all tests, real peers included (PEERS=none: those that need no peer)
	@PATH="$(CURDIR)/$(BIN):$$PATH" PEERS=$(PEERS) $(BIN)/python -m pytest $(ARGS)

.PHONY: lint
lint: $(VENV)/dev.stamp ## ruff, mypy --strict and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: peers
peers: ## install Orthanc, dcmtk, dicom3tools and PostgreSQL where that is possible
	@[ "$(PEERS)" = none ] || sh deploy/peers.sh

.PHONY: clean
clean: ## remove what make made
	rm -rf $(VENV) var build *.egg-info

$(VENV)/run.stamp: pyproject.toml constraints.txt
	@$(call install,-e .)
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt
	@$(call install,-e .[dev])
	@touch $@ $(VENV)/run.stamp

define install
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
[ -x $(BIN)/pip ] || { $(PYTHON) -m venv $(VENV) || { echo "Python's venv module is needed (Debian: apt install python3-venv)" >&2; exit 1; }; }; \
echo "installing into $(VENV) (once; several hundred MB)"; \
$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(1)
endef
