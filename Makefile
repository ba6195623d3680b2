# Everything a newcomer needs: `make demo` and `make test`. Python 3.11 to 3.13 and make are enough.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?=
# One test process a core, the tests of a file in one of them, in the order of the files: the short ones, of which the
# unit tests have many, even out at the end what the long ones leave. SIDE_BY_SIDE= for one after the other.
SIDE_BY_SIDE ?= -n auto --dist loadfile --no-loadscope-reorder
# The embedded broker is reachable from this machine alone; one TensorFlow thread a worker leaves a core to the broker.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check docs pictures bench faults test-kafka sbom audit fuzz lock clean

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Create the virtual environment and install everything into it

$(STAMP): pyproject.toml constraints.txt $(wildcard native/*)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Headrace needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing (TensorFlow is most of it: about 250 MB to download, a minute or two) ..."
	$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup  ## Run the main job on an embedded broker: plant, training, worker, alerts (DATA=folder for recordings)
	$(BIN)/headrace demo $(if $(DATA),--data $(DATA)) $(ARGS)

test: setup  ## Run the tests that need nothing but what pip brings; says what it left out
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

lint: setup  ## What needs no test to run: ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint  ## The gate: lint and the unit tests
	$(BIN)/python -m pytest tests/unit -m "not tensorflow" -q $(SIDE_BY_SIDE)

bench: setup  ## Measure the figures of speed (ARGS="--only NAME", "--list", "--json FILE", "--readme"); ten minutes
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python benchmarks/speed.py $(ARGS)

docs: setup  ## Write what is written from the code: reference, schemas, dashboards, PrometheusRule
	$(BIN)/python -m stream.reference docs/reference.md
	$(BIN)/python -m stream.schemas docs/schemas
	$(BIN)/python deploy/grafana/generate.py
	$(BIN)/python deploy/prometheus/rule.py

pictures: setup  ## Make the pictures of README and docs anew (those of the live page need Chromium)
	$(BIN)/python benchmarks/drift.py --picture docs/images/slow-drift.png
	HEADRACE_PICTURES=docs/images $(BIN)/python -m pytest tests/integration/test_live_page.py -k pictures -q
	HEADRACE_PICTURES=docs/images $(BIN)/python -m pytest tests/integration/test_bridges.py -k embedded -q
	HEADRACE_PICTURES=docs/images $(BIN)/python -m pytest tests/integration/test_learning.py -k embedded -q

test-kafka: setup  ## The integration tests on Apache Kafka as well (needs Java 17 and Maven)
	deploy/kafka/fetch
	KAFKA_JARS=deploy/kafka/target/jars $(BIN)/python -m pytest tests/integration -m broker $(ARGS)

faults: setup  ## Break things and print what was lost (ARGS="--only N", "--long", "--json FILE"); Apache Kafka with KAFKA_JARS
	$(BIN)/python tests/faults/run.py $(ARGS)

sbom: setup  ## Write build/headrace.cdx.json: all that headrace needs to run, with versions and licences (CycloneDX)
	$(PYTHON) -m venv $(VENV)-tools
	$(VENV)-tools/bin/python -m pip install --quiet --constraint constraints.txt cyclonedx-bom
	$(BIN)/python deploy/bill.py sbom --tools $(VENV)-tools/bin

audit: setup  ## Ask PyPI's advisories about all that headrace needs to run; fails too where nobody answers
	$(PYTHON) -m venv $(VENV)-tools
	$(VENV)-tools/bin/python -m pip install --quiet --constraint constraints.txt pip-audit
	$(BIN)/python deploy/bill.py audit --tools $(VENV)-tools/bin

fuzz: setup  ## Feed the decoders what atheris makes up, a minute or ARGS="-max_total_time=..." (Linux)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,fuzz]'
	$(BIN)/python tests/fuzz/fuzz_decoders.py $(or $(ARGS),-max_total_time=60)

lock: setup  ## Write constraints.txt anew from what pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --extra security --extra fuzz --no-header --no-annotate --quiet pyproject.toml -o constraints.txt

clean:  ## Remove what the other targets made
	rm -rf $(VENV) $(VENV)-tools build demo-output *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
