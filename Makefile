# The front door. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help init up down status logs destroy demo dag-run psql trust-model production compose-up compose-down lint check test test-distributed bench
PYTHON ?= python3
BIN := .venv/bin
STACK := $(BIN)/python -m stack
READY := .venv/.ready$(if $(filter distributed,$(PROFILE)),-celery)
SHAPE := $(if $(PROFILE),--profile $(PROFILE))
# The tests that do not need the whole stack, in several processes: tests/support/side_by_side.py spreads them.
APART := -n logical --maxprocesses 4 --no-loadscope-reorder
NONE := $(if $(ARGS),|| [ $$? -eq 5 ]) # ARGS may select no test in one of the two halves

# Their `$` are the user's own, not make's.
ifdef SQL
override export SQL := $(value SQL)
endif
ifdef CONF
override export CONF := $(value CONF)
endif

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

init: .venv/.ready ## Create the virtual environment from the lock file (PYTHON=python3.12)

.venv/.ready: pyproject.toml uv.lock
	@$(PYTHON) -I stack/bootstrap.py && touch $@

.venv/.ready-%: .venv/.ready
	@$(PYTHON) -I stack/bootstrap.py --group $* && touch $@

up: $(READY) ## Start Airflow, Spark, MLflow, the app and their services (SERVICES="airflow objects" PROFILE=distributed)
	@$(STACK) up $(SHAPE) $(SERVICES)

down: .venv/.ready ## Stop everything; the data stays
	@$(STACK) down

status: .venv/.ready ## Show the state and address of each service (PASSWORDS=1 prints the logins)
	@$(STACK) status $(if $(PASSWORDS),--passwords)

logs: .venv/.ready ## Print the last log lines of each service (SERVICES=scheduler FOLLOW=1)
	@$(STACK) logs $(SERVICES) $(if $(FOLLOW),--follow)

destroy: .venv/.ready ## Stop everything and remove the data
	@$(STACK) destroy

demo: $(READY) ## Start everything, run the pipelines, show the results (DAG=crypto_events_dag PROFILE=distributed)
	@$(BIN)/python -m stack.demo $(SHAPE) $(DAG)

dag-run: .venv/.ready ## Trigger a run and wait until it ends (DAG=crypto_events_dag DATE=2026-02-03 CONF='{"window_days": 3}')
	@$(STACK) dag-run $(DAG)

psql: .venv/.ready ## Open the stack's database (SQL="select 1" runs that; DB=airflow or DB=mlflow)
	@$(STACK) psql

trust-model: .venv/.ready ## Let a registered model be loaded whose files have no digest yet (MODEL=churn-model VERSION=3)
	@eval "$$($(STACK) env)" && $(BIN)/python -m tasks.models.trust \
		$(or $(MODEL),$(error name the model: make trust-model MODEL=churn-model VERSION=3)) \
		$(or $(VERSION),$(error name the version: make trust-model MODEL=churn-model VERSION=3))

production: .venv/.ready ## Make a version of a registered model Production, by alias and stage (MODEL=churn-model VERSION=3)
	@eval "$$($(STACK) env)" && $(BIN)/python -m tasks.models.production \
		$(or $(MODEL),$(error name the model: make production MODEL=churn-model VERSION=3)) \
		$(or $(VERSION),$(error name the version: make production MODEL=churn-model VERSION=3))

compose-up: .venv/.ready ## Start the same services in containers, with your Docker (PROFILES="churn pgadmin")
	@$(BIN)/python -m stack.compose up $(PROFILES)

compose-down: .venv/.ready ## Stop the containers; their volumes stay
	@$(BIN)/python -m stack.compose down

lint: .venv/.ready ## Check specs, suites, defaults and environments
	@$(BIN)/taskflow lint pipelines configs

check: .venv/.ready ## Check the code: style, types, layers, and the tests that take seconds
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports && $(BIN)/pytest -q $(APART) -m "not stack and not distributed and not airflow_3_4 and not long"

test: .venv/.ready ## Run every test of the local profile (ARGS="-k merge")
	@$(BIN)/pytest $(APART) -m "not stack and not distributed" $(ARGS) $(NONE)
	@$(BIN)/pytest -o testpaths="tests/pipelines tests/stack/whole" -m stack $(ARGS) $(NONE)

test-distributed: .venv/.ready-celery ## Run the pipelines on Celery workers, and kill some
	@$(BIN)/pytest -o testpaths=tests/stack/distributed -m distributed $(ARGS)

bench: .venv/.ready-bench .venv/.ready-celery ## Measure the factory and the tasks against their rivals
	@$(BIN)/python -m tests.benchmarks $(ARGS)
