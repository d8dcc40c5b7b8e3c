# One command each; every one of them installs first what is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed

# The library's tests are many and independent; the service's start servers of their own, which a file's tests share.
PARALLEL := -n auto --maxprocesses 4 --dist worksteal
FILES_IN_PARALLEL := -n 2 --dist loadfile
# The release of diffusers before the tested one: the library must work on both.
PREVIOUS := 0.41.0
# Tried there alone: every import of diffusers beside it is slow and prints warnings.
TORCHAO := 0.18.0

.PHONY: help install demo serve up down rehearsal chart helm test test-quick test-all test-service test-library test-containers \
  test-previous openapi chaos conformance operations clients docs reference gpu lint bench

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

install: $(STAMP)  ## the package and its tools into .venv, at the tested versions

$(STAMP): pyproject.toml nag/pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ./nag -e '.[dev]'
	touch $@

demo: install  ## the same seeds without and with a negative prompt, over HTTP: out/demo/comparison.png
	$(BIN)/python -m app.demo

serve: install  ## queue, API and worker, until Ctrl-C
	$(BIN)/nag-server up

up:  ## the service in containers, in the background; with GPU=1 on a GPU, with GPUS=4 one worker over four
	docker/secrets.sh
	$(if $(GPU)$(GPUS),NAG_CPU_WORKERS=0) $(if $(GPUS),NAG_GPUS=$(GPUS)) docker compose $(if $(GPU),--profile gpu) \
	  $(if $(GPUS),--profile gpus) up --detach --wait --build

down:  ## end those containers; their volumes stay
	docker compose --profile gpu --profile gpus down

rehearsal: install  ## what `make up` would start, started without an engine: needs Linux and root
	$(BIN)/python -m tests.docker.rehearsal

chart: install  ## what of the Helm chart is made from other files
	$(BIN)/python docker/helm/update.py

helm: .tools/helm  ## Helm itself, for the tests of the chart

# Without it those tests are skipped, and say so.
.tools/helm: docker/helm/fetch.py | $(STAMP)
	-$(BIN)/python docker/helm/fetch.py

# Types are checked in one process, and tests wait now and then: together they end sooner.
test: install  ## lint, and every test that is not marked as slow
	$(MAKE) --no-print-directory --jobs 2 lint test-quick

# The slowest are printed: a test among them is cut, or marked as slow.
test-quick: install  ## every test that is not marked as slow
	$(BIN)/python -m pytest -m 'not slow' $(FILES_IN_PARALLEL) --durations 10

test-all: lint test-service test-library test-containers test-previous conformance chaos operations clients  ## everything

test-service: install  ## every test of the service
	$(BIN)/python -m pytest --ignore tests/nag --ignore tests/docker $(FILES_IN_PARALLEL) --durations 10

test-library: install  ## every test of the library
	$(BIN)/python -m pytest tests/nag $(PARALLEL) --durations 10

test-containers: install .tools/helm  ## every test of Dockerfile, Compose, chart and dashboards; starts the containers' own commands
	$(BIN)/python -m pytest tests/docker $(FILES_IN_PARALLEL) --durations 10

test-previous: install  ## the library's tests on the release of diffusers before the tested one
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target .previous --no-deps \
	  diffusers==$(PREVIOUS) torchao==$(TORCHAO)
	PYTHONPATH=.previous $(BIN)/python -m pytest tests/nag $(PARALLEL)

openapi: install  ## write app/api/openapi/openapi.json anew, after a route has changed
	$(BIN)/python -m app.api.openapi

chaos: install  ## kill -9 and freeze the parts of a service under load, restart them all: benchmarks/results/chaos.md
	$(BIN)/python -m benchmarks.chaos

operations: install  ## a real Prometheus beside a service under load and faults: benchmarks/results/operations.md
	$(BIN)/python -m benchmarks.operations

conformance: install  ## schemathesis over the whole API, all checks, without keys and with one; prints the number of cases
	$(BIN)/python -m tests.api.conformance

clients: install  ## popular clients at their factory settings against a whole service; with NAME=litellm those of this name
	$(BIN)/python -m tests.clients $(NAME)

docs: install  ## the documentation as a site, in out/site; strict, and without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory out/site 8001'

reference: install  ## write the generated tables of docs/ anew, after a family, setting, metric, alert or model changed
	$(BIN)/python -m docs.reference

gpu: install  ## every table that waits for a GPU, in under ten minutes: benchmarks/results/gpu-NAME
	$(BIN)/python -m benchmarks.gpu

lint: install  ## formatting, style, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install  ## list the benchmarks; with NAME=overhead run that one
ifdef NAME
	$(BIN)/python -m benchmarks.$(NAME)
else
	@for each in benchmarks/[a-z]*.py; do \
	  printf '%-12s %s\n' "$$(basename $$each .py)" "$$(sed -n '1s/"""//gp' $$each)"; done
	@echo 'run one: make bench NAME=overhead'
endif
