# make help lists the targets; every one sets up what it needs.
SHELL := bash
VENV := .venv
PY := $(VENV)/bin/python
PROTOS := $(wildcard protos/housecall/v1/*.proto)
SOURCES := housecall coordinator agent cli examples bench tests

.PHONY: help venv protos demo demo-up demo-down test check bench docs clean lock

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
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iprotos --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. $(PROTOS)

lock: venv ## Resolve requirements.txt again
	@$(PY) -m piptools compile --quiet --extra dev --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --allow-unsafe --no-header -o requirements.txt pyproject.toml
