# The two commands a newcomer needs are `make demo` and `make test`; both set the machine up first.
VENV ?= .venv
BIN := $(VENV)/bin
QUICK ?= --quick

.PHONY: setup demo test lint bench clean

setup:
	@cluster/setup.sh $(VENV)

demo: setup
	@$(BIN)/python jobs/demo.py

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every benchmark, each with its JSON beside the tables; QUICK= runs them at full length.
bench: setup
	@mkdir -p runs/benchmarks
	@for file in benchmarks/*.py; do name=$$(basename $$file .py); echo "== $$name"; \
		$(BIN)/python $$file $(QUICK) --json runs/benchmarks/$$name.json || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
