# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow torture lint format pages clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/.installed
	$(BIN)/adrec demo

test: .venv/.installed
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: .venv/.installed
	$(BIN)/python -m pytest -q -m slow

torture: .venv/.installed
	PYTHONPATH=tests $(BIN)/python -m torture

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pages: .venv/.installed
	$(BIN)/adrec results benchmarks/ledger --grid published --grid tuned --reference adrec \
		--preface docs/appendix/prefaces/results.md --out docs/appendix/results.md --out docs/charts/cost.svg
	$(BIN)/adrec results benchmarks/ledger --grid ablation --reference base \
		--preface docs/appendix/prefaces/ablation.md --out docs/appendix/ablation.md
	$(BIN)/adrec results benchmarks/ledger --grid default --reference "adrec: the next item alone" \
		--preface docs/appendix/prefaces/default.md --out docs/appendix/default.md
	$(BIN)/adrec results benchmarks/ledger --grid paper --reference "adrec (paper)" \
		--preface docs/appendix/prefaces/paper.md --out docs/appendix/paper.md
	$(BIN)/adrec results benchmarks/ledger --grid search --reference "no positions" \
		--preface docs/appendix/prefaces/search.md --out docs/appendix/search.md
	$(BIN)/python -m benchmarks.charts
	$(BIN)/python -m benchmarks.summary

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
