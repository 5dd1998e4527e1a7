# The two commands a newcomer needs are `make demo` and `make test`; both set the machine up first.
VENV ?= .venv
BIN := $(VENV)/bin
QUICK ?= --quick

.PHONY: setup demo test lint bench clean

setup:
	@cluster/setup.sh $(VENV)

demo: setup
	@$(BIN)/python jobs/demo.py

# Unit tests side by side, then one after the other those that look at the whole machine or start Ray.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit -m "not alone" --numprocesses auto --maxprocesses 4 --dist loadfile
	$(BIN)/python -m pytest tests/unit -m alone
	$(BIN)/python -m pytest tests/integration

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
