# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow lint format pages clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/.installed
	$(BIN)/adrec demo

test: .venv/.installed
	$(BIN)/python -m pytest -q -n 2

slow: .venv/.installed
	$(BIN)/python -m pytest -q -m slow

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pages: .venv/.installed
	$(BIN)/adrec results benchmarks/ledger --grid published --grid tuned --reference adrec --preface docs/prefaces/results.md \
		--out docs/results.md --out docs/results.svg
	$(BIN)/adrec results benchmarks/ledger --grid ablation --reference base \
		--preface docs/prefaces/ablation.md --out docs/ablation.md
	$(BIN)/adrec results benchmarks/ledger --grid paper --reference "adrec (paper)" \
		--preface docs/prefaces/paper.md --out docs/paper.md
	$(BIN)/adrec results benchmarks/ledger --grid search --reference "no positions" \
		--preface docs/prefaces/search.md --out docs/search.md

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
