# The two commands: `make deploy` and `make test`. Everything else is ansible-playbook; see README.md.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# Kept on disk once compiled: without that every playbook compiles Ansible anew, a tenth of a no-op deploy.
unexport PYTHONDONTWRITEBYTECODE

# .venv is to be made of what this repository names, whatever pip and Python are told elsewhere.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_PYTHON PIP_DRY_RUN PIP_NO_DEPS
unexport PYTHONHOME PYTHONPATH PYTHONUSERBASE PYTHONSTARTUP PYTHONWARNINGS PYTHONSAFEPATH VIRTUAL_ENV
# Ansible refuses to start without UTF-8.
export LC_ALL := C.UTF-8

.PHONY: pictures deploy test lint unit integration molecule versions soak fuzz bench setup setup-test clean help

help: ## Show this
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14

deploy: setup ## Set up .venv, then deploy manifest.yaml on this machine
	@$(BIN)/ansible-playbook deploy.yml $(ARGS)

setup: $(VENV)/.controller ## Set up .venv for the playbooks

setup-test: $(VENV)/.tests ## Set up .venv for the tests

$(VENV)/bin/python:
	@tools/make-venv.sh $(VENV)

$(VENV)/.controller: $(VENV)/bin/python requirements.txt pyproject.toml
	@echo "Setting up $(VENV) (once; about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	@touch $@

$(VENV)/.tests: $(VENV)/.controller requirements-test.txt service/requirements.txt
	@echo "Setting up $(VENV) for the tests (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-test.txt
	@touch $@

test: setup-test ## Set up what tests need, then run every test
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/run.sh

lint: setup-test ## Style, types and policies alone
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/lint.sh

unit: setup-test ## The fast tests alone
	@$(BIN)/pytest tests/unit -q $(ARGS)

integration: setup-test ## The tests on real programs alone
	@$(BIN)/pytest tests/integration -q $(ARGS)

molecule: setup-test ## One scenario after the other, or those that ARGS names
	@tests/engine/up.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/molecule.sh $(or $(ARGS),default process gate-denied upgrade fleet)

versions: setup-test ## The core on every supported Python and its Ansible; docs/testing.md
	@mkdir -p .cache
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh -c 'tests/versions.sh prepare && tests/versions.sh run .cache'

soak: setup-test ## Twenty switches of each kind under load, a kill at every task, bare hosts of other kinds, a fleet under load, killed hosts and writers; SWIFTDEPLOY_RESULTS=FOLDER keeps it
	@tests/engine/up.sh
	@SWIFTDEPLOY_APPENDS=$${SWIFTDEPLOY_APPENDS:-10000} $(BIN)/pytest tests/unit/test_history_killed.py -q -s $(ARGS)
	@SWIFTDEPLOY_SWITCHES=$${SWIFTDEPLOY_SWITCHES:-20} $(BIN)/pytest tests/load/test_no_lost_request.py tests/load/test_wrong_order.py -q -s $(ARGS)
	@SWIFTDEPLOY_KILLS=$${SWIFTDEPLOY_KILLS:-all} $(BIN)/pytest tests/fault/test_killed.py -q -s $(ARGS)
	@$(BIN)/pytest tests/campaign -q -s $(ARGS)
	@SWIFTDEPLOY_DEBIAN=trixie $(BIN)/pytest tests/integration/test_bootstrap.py -q -s $(ARGS)
	@SWIFTDEPLOY_BARE=1 SWIFTDEPLOY_ROLLS=$${SWIFTDEPLOY_ROLLS:-10} $(BIN)/pytest tests/integration/test_fleet_ssh.py -q -s -k rolls $(ARGS)
	@SWIFTDEPLOY_HOST_KILLS=$${SWIFTDEPLOY_HOST_KILLS:-all} $(BIN)/pytest tests/fault/test_fleet_hosts.py -q -s $(ARGS)

fuzz: setup-test ## Tens of thousands of nearly right inputs for each reader of input; SWIFTDEPLOY_FUZZ says how many
	@SWIFTDEPLOY_FUZZ=$${SWIFTDEPLOY_FUZZ:-25000} $(BIN)/pytest tests/unit/test_fuzz.py -q -s $(ARGS)

bench: setup-test ## Measure; writes docs/benchmarks.md's figures to the screen
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=tests $(BIN)/python bench/deploy.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=tests $(BIN)/python bench/tasks.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=tests $(BIN)/python bench/rest.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=tests $(BIN)/python bench/switch.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=tests $(BIN)/python bench/canary.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=tests $(BIN)/python bench/decision.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=tests $(BIN)/python bench/scale.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python bench/history.py

pictures: setup-test ## Make the pictures of the README anew, from a real stack and a real browser
	@tests/engine/up.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=tests $(BIN)/python tools/pictures.py

clean: ## Remove what tests and tools left in this folder
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .ansible build src/*.egg-info
