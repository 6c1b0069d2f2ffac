# `make demo` shows a federation, `make test` checks everything that takes minutes, `make test-long` the rest.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SFT_DATA ?= builtin
VA_DATA ?= builtin
export OMP_WAIT_POLICY ?= PASSIVE# waiting threads sleep: other processes may need the core
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check

# Where the suite's files lie, a hundred thousand small ones: in memory, where there are 4 GiB for them.
IN_MEMORY = $(shell test -w /dev/shm && df -Pm /dev/shm | awk 'NR == 2 && $$4 > 4096 { print "/dev/shm" }')

.PHONY: help demo test lint types unit test-long test-browser test-docker screenshots chaos bench-training bench-precision bench-pretrained bench-layers bench-codec bench-private bench-secure bench-personal bench-gpu bench-exchange bench-federation bench-plan bench-view mutants settings-page lock clean
.DEFAULT_GOAL := help

help:            ## list the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.ready      ## install, prepare the built-in data, run the quickstart federation, evaluate
	$(RUN) -m fccl prepare
	$(RUN) -m fccl run

# Beside each other: a suite that waits leaves a core to mypy.
test: $(VENV)/.ready-dev  ## lint, type-check, run the test suite
	@$(MAKE) --no-print-directory -j 2 unit lint types

lint: $(VENV)/.ready-dev  ## ruff, the linter and the formatter's check
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/.ready-dev ## mypy --strict: the package, benchmarks, scripts, examples
	$(RUN) -m mypy

unit: export PYTHONDONTWRITEBYTECODE :=# a test's process would compile the whole package, and each worker every test
unit: export PYTEST_DEBUG_TEMPROOT ?= $(IN_MEMORY)
unit: $(VENV)/.ready-dev  ## the test suite
	$(RUN) -m pytest -q -n 2 --dist worksteal

test-long: $(VENV)/.ready-dev ## whole quickstart runs, killed processes, real texts, the wheel; properties with all examples
	$(RUN) -m pytest -q -n 2 --dist loadfile -m slow
	ALL_EXAMPLES=1 $(RUN) -m pytest -q -n 2 --dist worksteal -m 'hypothesis and not slow and not browser and not docker'

test-browser: $(VENV)/.ready-dev ## the dashboard in a real browser, beside a real run; needs Chromium
	$(RUN) -m pytest -q -m browser tests/browser

test-docker: $(VENV)/.ready-dev ## the image and the compose stack: killed containers, the same bytes; needs Docker
	sh docker/engine
	$(RUN) -m pytest -q -m docker tests/docker

test-flower: $(VENV)/.ready-dev ## Flower on this host: a SuperLink, three SuperNodes, kills; the bytes of one process
	$(RUN) -m pytest -q -m flower tests/flower

screenshots: $(VENV)/.ready-dev ## docs/dashboard*.png, from a real run; needs Chromium
	$(RUN) scripts/screenshots.py docs

chaos: $(VENV)/.ready-dev ## kill orchestrator and clients at random moments, compare with the undisturbed run
	$(RUN) scripts/chaos.py

.PHONY: chaos-flower
chaos-flower: $(VENV)/.ready-dev ## the same over Flower on this host: SuperLink, ServerApp, SuperNodes, workers; ten minutes
	$(RUN) scripts/chaos_flower.py

bench-training: $(VENV)/.ready-dev ## tokens a second of training, beside TRL and a plain loop, in one interleaved run
	$(RUN) benchmarks/bench_training.py

bench-layers: $(VENV)/.ready-dev ## LORA_LAYERS: the time that it gives on GPT-2's shape, the quality that it costs in the quickstart
	$(RUN) benchmarks/bench_layers.py
	$(RUN) benchmarks/bench_layers.py --quality

bench-precision: $(VENV)/.ready-dev ## the frozen base in bf16 and int8 beside fp32: speed and gradients; or QUICKSTART=1: quickstarts of five seeds
	$(RUN) benchmarks/bench_precision.py $(if $(QUICKSTART),--quickstart)

bench-secure: $(VENV)/.ready-dev ## secure aggregation: bytes and seconds of a round beside training, for 3 and 20 clients
	$(RUN) benchmarks/bench_secure.py

bench-codec: $(VENV)/.ready-dev ## adapters in fewer bytes: quickstarts under every codec and Fed-SB, their bytes and their losses; SEEDS=42,1,2 FORMS="fp32,int3"
	$(RUN) benchmarks/bench_codec.py --seeds $(or $(SEEDS),42) $(if $(FORMS),--forms "$(FORMS)")

bench-personal: $(VENV)/.ready-dev ## personal adapters: finetune and Ditto beside alone and global, client by client; SEEDS=42,1,2
	$(RUN) benchmarks/bench_personal.py --seeds $(or $(SEEDS),42)

bench-private: $(VENV)/.ready-dev ## DP-SGD by example: its time beside training without privacy; COST=1: quickstarts at three noise levels
	$(RUN) benchmarks/bench_private.py $(if $(COST),--cost)

bench-pretrained: $(VENV)/.ready-dev ## a pretrained model (90 MB, once): speed beside TRL and torch.compile, precisions, then bench-evidence; SFT_DATA=file VA_DATA=file
	MODEL=$$($(RUN) benchmarks/pretrained.py) && \
	$(RUN) benchmarks/bench_training.py --model $$MODEL --only sft --with compile && \
	$(RUN) benchmarks/bench_precision.py --model $$MODEL --sft-data $(SFT_DATA)
	$(RUN) benchmarks/bench_evidence.py --sft-data $(SFT_DATA) --va-data $(VA_DATA) $(if $(FIRST),--first)

.PHONY: bench-evidence
bench-evidence: $(VENV)/.ready ## whether contribution helps on that model and real texts: hours, goes on where it was stopped; FIRST=1: a first table; SFT_DATA=file VA_DATA=file
	$(RUN) benchmarks/bench_evidence.py --sft-data $(SFT_DATA) --va-data $(VA_DATA) $(if $(FIRST),--first)

.PHONY: bench-chat
bench-chat: $(VENV)/.ready-dev ## a federation on a chat model (90 MB, once), a TRL script among its clients, in the template's form and the plain one; SFT_DATA=file VA_DATA=file
	$(RUN) benchmarks/bench_chat.py --sft-data $(SFT_DATA) --va-data $(VA_DATA)

bench-gpu: $(VENV)/.ready-dev ## whether training on this machine's GPU is exact, and how fast, in five minutes; without one the checks alone
	$(RUN) benchmarks/bench_gpu.py

bench-exchange: $(VENV)/.ready-dev ## milliseconds a round over the exchange directory, memory and time of the aggregation, what waiting costs
	$(RUN) benchmarks/bench_exchange.py
	$(RUN) benchmarks/bench_idle.py

bench-federation: $(VENV)/.ready-dev ## a whole federation beside a loop around TRL and Flower's simulation; hours; FAST=1 in a minute
	$(RUN) benchmarks/bench_federation.py

bench-plan: $(VENV)/.ready-dev ## fccl plan beside the run that it is for, five times on the quickstart and on GPT-2's size; half an hour
	$(RUN) benchmarks/bench_plan.py

.PHONY: bench-flower test-flower
bench-flower: $(VENV)/.ready-dev ## seconds of a round over Flower with nothing to compute, beside a stock Flower app; SITES=10: the bridge alone, with what each process takes
	$(RUN) benchmarks/bench_flower.py $(if $(SITES),--sites $(SITES))

.PHONY: bench-flower-nodes
bench-flower-nodes: $(VENV)/.ready-dev ## nodes of Flower's simulation: seconds a round and memory of 10, 100 and 300; NODES=10,1000
	$(RUN) benchmarks/bench_flower_nodes.py $(if $(NODES),--nodes $(NODES))

bench-view: $(VENV)/.ready-dev ## the dashboard with 200 clients and 500 rounds: reading, first paint, one round more
	$(RUN) benchmarks/bench_view.py
	$(RUN) benchmarks/bench_dashboard.py

.PHONY: bench-task
bench-task: $(VENV)/.ready-dev ## how hard the built-in task is: the server's examples alone, FedAvg, all data pooled
	$(RUN) benchmarks/bench_task.py

mutants: $(VENV)/.ready-dev ## the share of one-line mutations of the arithmetic that the tests catch; MUTANTS=100
	$(RUN) benchmarks/mutants.py --count $(or $(MUTANTS),100)

settings-page: $(VENV)/.ready ## docs/settings.md, from the settings
	$(RUN) scripts/settings_page.py

.PHONY: evidence-page
evidence-page: $(VENV)/.ready ## the figures of docs/evidence.md and docs/rivals.md, from comparisons: PARTS="set=FOLDER quick=FOLDER weights=FOLDER"
	$(RUN) scripts/evidence_page.py $(PARTS)

lock:            ## pin versions again: requirements.txt and requirements-dev.txt; UPGRADE=1: the newest ones
	$(PYTHON) scripts/lock.py $(if $(UPGRADE),--upgrade)

clean:           ## remove the environment and what a run has made (data/ and logs/ stay)
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.ready: requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "installing requirements.txt into $(VENV) (once; a few minutes)"
	$(PIP) -r requirements.txt
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@
