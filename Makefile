# Everything a person does with the repository. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
# Another index for PyTorch (a CPU or CUDA build), for example TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
TORCH_INDEX_URL ?=
ARGS ?=
SIZE ?= full
# --report-speed fails for bars of correctness only, for a machine that others keep busy.
PROVE_FLAGS ?=
TESTS ?= tests
REQUIRE_ALL ?=
# Processes that run the tests, file by file; 1 runs them in one, as a debugger needs it. More than there are cores:
# tests of servers mostly wait for them.
WORKERS ?= 3

BIN := .venv/bin
WORKER_BIN := .venv-worker/bin
PIP_FLAGS := --quiet --disable-pip-version-check --no-input
SOURCES := feature_store inference flows infra tests mlflow

export OMP_NUM_THREADS ?= 1
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help setup demo test check format lint types imports prove keep soak bench clean constraints wheel

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-26s %s\n", $$1, $$2}'

setup: .venv/.ready .venv-worker/.ready ## Make both environments (pipeline and worker)

# An environment whose Python is gone, after an upgrade of the system for example, is made anew.
works = $(shell $(1)/bin/python -c 'print("yes")' 2>/dev/null || true)
$(foreach env,.venv .venv-worker,$(if $(wildcard $(env)/.ready),$(if $(call works,$(env)),,$(shell rm -f $(env)/.ready))))

# What an environment is made of; asked for only where one has to be made.
define need-python
@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is missing: install it, or say where it is with 'make PYTHON=/path/to/python3.11 …'"; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11: the pinned versions need 3.11; pass PYTHON=/path/to/python3.11"; exit 1; }
@free=$$(df -Pm . | awk 'NR==2 {print $$4}'); [ "$$free" -ge 6000 ] || { echo "Only $$free MB are free here: the environments need about 6000 MB; free some space and run again"; exit 1; }
endef

.venv/.ready: pyproject.toml constraints.txt
	$(need-python)
	@echo "Setting up .venv (pipeline and development); a few minutes the first time"
	@rm -f $@
	@$(PYTHON) -m venv .venv
	@$(if $(TORCH_INDEX_URL),$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt --no-deps --index-url $(TORCH_INDEX_URL) torch)
	@$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) -e '.[pipeline,s3,api,redis,postgres,storage,ray,dev]'
	@$(BIN)/python -m feature_store.features.warm
	@$(BIN)/python -m flows.replay.warm
	@touch $@

.venv-worker/.ready: pyproject.toml constraints.txt
	$(need-python)
	@echo "Setting up .venv-worker (the light worker)"
	@rm -f $@
	@$(PYTHON) -m venv .venv-worker
	@$(WORKER_BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e .
	@$(WORKER_BIN)/python -m feature_store.features.warm
	@touch $@

demo: setup ## Train, promote and trade on embedded defaults; ARGS="--once" ends by itself
	@$(BIN)/qtctl demo $(ARGS)

test: setup ## Run the tests; REQUIRE_ALL=1 deselects nothing, WORKERS=1 runs them in one process
	@REQUIRE_ALL=$(REQUIRE_ALL) $(BIN)/pytest $(if $(filter-out 0 1,$(WORKERS)),-n $(WORKERS) --dist loadfile --no-loadscope-reorder) $(TESTS) $(ARGS)

check: setup format lint types imports ## Format, lint, types and import contracts, as CI does

format:
	@$(BIN)/ruff format --check --quiet $(SOURCES)

lint:
	@$(BIN)/ruff check --quiet $(SOURCES)

types:
	@$(BIN)/mypy

imports:
	@$(BIN)/lint-imports --no-cache

soak: setup ## Let the worker trade for a day while requests fail; ARGS="--hours 8" is another time
	@$(BIN)/python -m infra.prove.soak $(ARGS)

bench: setup ## Measure what the sandbox exchange carries on one core
	@$(BIN)/python -m infra.prove flow --size $(SIZE) $(PROVE_FLAGS)

constraints: .venv/.ready ## Resolve constraints.txt anew; ARGS=--upgrade takes the newest versions allowed
	@$(BIN)/python -m infra.tools.constraints $(ARGS)

wheel: setup ## Build the worker's wheel into dist/
	@$(BIN)/python -m build --wheel --outdir dist . >/dev/null && ls dist

clean: ## Stop everything and forget all that ran (the environments stay)
	@[ -z "$(call works,.venv)" ] || [ ! -x $(BIN)/qtctl ] || $(BIN)/qtctl down --unless-demo
	@rm -rf var var-prove
	@[ -z "$${QUANTUM_HOME:-}" ] || echo "QUANTUM_HOME $$QUANTUM_HOME was kept; 'qtctl demo --fresh' begins anew there"

# One line for each, and a row in README.md.
PROOFS := \
  footprint \
  decision-latency \
  chain-latency \
  hot-reload \
  live-shadow \
  kill-worker \
  exactly-once \
  crash-points \
  faults \
  bus-faults \
  stream-death \
  wire-parity \
  soak \
  flow \
  order-latency \
  stateful \
  limits \
  emergency \
  scenarios \
  replay \
  null-market \
  real-candles \
  learning-real \
  quality \
  ingest \
  feature-parity \
  no-lookahead \
  lookahead \
  feature-oracle \
  feature-speed \
  feature-scale \
  feature-latency \
  lake \
  psi \
  training-time \
  drift-alarms \
  supervision \
  retrain-crash \
  training-on-ray \
  null-gate \
  power \
  tuning \
  bundle-tamper \
  determinism \
  backtest-speed \
  demo \
  readme \
  fresh-clone-tests
# Those that can show something on some machines only, or that settle a question once; `make prove` leaves them out.
EXTRA_PROOFS := \
  gpu-parity \
  mutants \
  warm-start
prove: setup ## Run every proof; SIZE=ci is the smaller, stated size
	@$(BIN)/python -m infra.prove $(PROOFS) --size $(SIZE) $(PROVE_FLAGS)

keep: setup ## Keep in the repository what campaigns of gate trials have run here
	@$(BIN)/python -m infra.prove.gate_records

$(addprefix prove-,$(PROOFS) $(EXTRA_PROOFS)): prove-%: setup ## Run one proof; the figure is printed last
	@$(BIN)/python -m infra.prove $* --size $(SIZE)
