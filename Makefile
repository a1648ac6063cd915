# make help lists the targets; every one sets up what it needs.
SHELL := bash
VENV := .venv
PY := $(VENV)/bin/python
PROTOS := $(wildcard protos/housecall/v1/*.proto)
SOURCES := housecall coordinator agent cli examples bench tests

.PHONY: help venv protos lock demo demo-up demo-down test check check-protos bench bundle faults docs clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

venv: $(VENV)/.stamp ## Virtual environment with pinned, hashed requirements
$(VENV)/.stamp: requirements.txt pyproject.toml
	@echo "== virtual environment (pinned, hashed requirements)"
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

protos: venv ## Regenerate housecall/v1 from protos/
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iprotos --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. $(PROTOS)

lock: venv ## Resolve requirements.txt again
	@$(PY) -m piptools compile --quiet --extra dev --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --allow-unsafe --no-header -o requirements.txt pyproject.toml

demo: venv ## The whole story on real containers: four sites, four models, one coordinator
	@$(PY) -m examples.demo run

demo-up: venv ## Leave the demo's world running, to type the README's commands by hand
	@$(PY) -m examples.demo up

demo-down: venv ## Stop the world that demo-up left running
	@$(PY) -m examples.demo down

# The engine that the tests may have to start is stopped again, whatever they say.
test: venv ## All tests, container tests included; PYTEST="-k name" for some
	@$(PY) -m examples.engine up --state-dir .demo/test-engine
	@trap '$(PY) -m examples.engine down --state-dir .demo/test-engine >/dev/null' EXIT; \
	$(PY) -m examples.images build && $(PY) -m pytest $(PYTEST)

check: venv ## ruff, mypy strict, import-linter, buf lint, generated code is up to date
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/buf lint
	@$(MAKE) --no-print-directory check-protos

check-protos: venv
	@made=$$(mktemp -d) && trap 'rm -rf $$made' EXIT && \
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iprotos --python_out=$$made \
	  --grpc_python_out=$$made --mypy_out=quiet:$$made --mypy_grpc_out=quiet:$$made $(PROTOS) && \
	touch $$made/housecall/v1/__init__.py && \
	diff -r --exclude=__pycache__ $$made/housecall/v1 housecall/v1 && echo "generated code is up to date"

bench: venv ## Measure: one JSON line a figure, ratios taken in one run
	@$(PY) -m examples.engine up --state-dir .demo/test-engine >&2
	@trap '$(PY) -m examples.engine down --state-dir .demo/test-engine >/dev/null' EXIT; \
	$(PY) -m examples.images build >&2 && $(PY) -m bench

bundle: venv ## dist/housecall-*-bundle.tar.gz: all wheels and install.sh, for machines without a network
	@$(PY) -m deploy.bundle

faults: venv ## Hurt real programs and containers for 20 minutes, then count; FAULTS="--seed 7 --seconds 60"
	@$(PY) -m tests.faults $(FAULTS)

docs: venv ## Check that every command, RPC, setting, code and link has its page
	@$(PY) -m pytest tests/docs

clean: ## Remove what the targets made, images of the demo apart
	@rm -rf $(VENV) .demo dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
