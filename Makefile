# `make demo` and `make test` create their own environment in .venv/; they need only Python 3.11.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test lucene lint bench clean

demo: $(READY)           ## run the whole loop on built-in data and print the path of its report
	$(BIN)/rkd run configs/quickstart.yaml

test: $(READY)           ## run every test, and every example in docstrings
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lucene: $(READY)         ## install pyserini and Java 21 (600 MB); `make test` then covers Lucene
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[pyserini]'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)          ## run two short measurements; benchmarks/README.md lists all
	$(BIN)/python -m benchmarks.dtype
	$(BIN)/python -m benchmarks.scoring

# Install torch first and pinned: an unpinned torch downloads gigabytes of CUDA packages.
$(READY): setup.cfg constraints.txt
	@echo "creating the environment in $(VENV)/ (once; two or three minutes, 3 GB)"
	@$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[cpu,demo,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) runs build dist *.egg-info
