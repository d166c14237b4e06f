# Two commands do everything: `make run` and `make test`. Both make the environment in .venv when it is missing or
# older than the lock file.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help run test test-all test-slurm test-slurm-short lint format schema readme picture notebook site lock benchmark

help:
	@echo "make run        train, convert, simulate and report the embedded data set (results/digits/report.html)"
	@echo "make test       the tests (a few minutes)"
	@echo "make test-all   also the slow ones"
	@echo "make test-slurm the pipeline on a SLURM of its own, installed where it is missing and the user is root"
	@echo "make test-slurm-short  the same without faults: submitted, spread over nodes, another percentile"
	@echo "make lint       formatters, linters and type checker"
	@echo "make format     format the source"
	@echo "make schema     write workflow/schemas/config.schema.json from bsnn/config"
	@echo "make readme     write the pages' tables again from results/reference/"
	@echo "make picture    make docs/report.png, the README's picture, of the report of cifar100-half"
	@echo "make notebook   make examples/own-networks.ipynb of docs/own-networks.md, with its outputs"
	@echo "make site       build the documentation's site into build/site; broken links are errors"
	@echo "make lock       resolve requirements.txt again from pyproject.toml (needs uv)"
	@echo "make benchmark  measure the engines against their peers on this machine (spikingjelly too, if it is installed)"

$(READY): requirements.txt pyproject.toml
	@echo "Making the environment in $(VENV): missing, or older than requirements.txt. This takes some minutes and, on Linux, 7 GB; once."
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed, $(PYTHON) is " + sys.version.split()[0] + "; set PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python .ci/install.py --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# On Ctrl-C snakemake has said all: the recipe ends without an error, about which make would add a line, and make itself,
# which is told as well in any case, ends by that signal.
run: $(READY)
	@echo snakemake
	@trap 'kill -INT $$PPID; exit 0' INT; snakemake

test: $(READY)
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder --durations 20 -m "not slow and not slurm and not gpu"

test-all: $(READY)
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slurm"

test-slurm: $(READY)
	OMP_NUM_THREADS=1 pytest -v -rs -m slurm

test-slurm-short: $(READY)
	OMP_NUM_THREADS=1 pytest -v -rs -m slurm -k "gpu_jobs or local_run or new_percentile"

lint: $(READY)
	ruff format --check bsnn tests benchmarks examples workflow/scripts .ci
	ruff check bsnn tests benchmarks examples workflow/scripts .ci
	mypy bsnn
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint

format: $(READY)
	ruff format bsnn tests benchmarks examples workflow/scripts .ci
	ruff check --fix bsnn tests benchmarks examples workflow/scripts .ci
	snakefmt Snakefile workflow

schema: $(READY)
	bsnn schema > workflow/schemas/config.schema.json

readme: $(READY)
	python .ci/readme.py

picture: $(READY)
	python .ci/picture.py

notebook: $(READY)
	python .ci/notebook.py

site: $(READY)
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

lock: $(READY)
	@command -v uv > /dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--extra dev -o requirements.txt pyproject.toml
	python .ci/environment.py > environment.yml

benchmark: $(READY)
	python benchmarks/simulation.py
