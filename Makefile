# The two commands a newcomer needs are `make demo` and `make test`; both set the machine up first.
VENV ?= .venv
BIN := $(VENV)/bin
QUICK ?= --quick

.PHONY: setup demo test test-long lint bench clean

setup:
	@cluster/setup.sh $(VENV)

demo: setup
	@$(BIN)/python jobs/demo.py

# Side by side, each worker with a Ray of its own, then what looks at the whole machine or compares times. Files go by name,
# since xdist would start the one with a single long test last; Ray's processes must not give way to the other worker's.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit -m "not alone and not long" --numprocesses auto --maxprocesses 4 --dist loadfile
	OMP_NUM_THREADS=1 RAY_worker_niceness=0 $(BIN)/python -m pytest tests/integration -m "not alone and not long" \
		--numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 20
	$(BIN)/python -m pytest -m "alone and not long" $$(grep -rl --include="test_*.py" mark.alone tests)

# What takes minutes of a core, most of it being killed again and again, one after the other: half an hour more.
test-long: setup
	$(BIN)/python -m pytest tests/integration -m long

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
