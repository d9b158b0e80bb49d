# Each target is one line of intent; the work is in the programs it calls.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := .venv-compiled
BESIDE := build/compiled

# A test run starts hundreds of programs, and each would compile all it imports anew where Python may not keep it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install compiled demo test check crash bench bench-growth bench-fairness corpus pairs validate soak fuzz search clean

install: $(STAMP)  ## the environment, with .venv/bin/tocengine

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

compiled:  ## the wheel as machine code in .venv-compiled; its unit tests and stages, beside it and not beside its source
	$(PYTHON) -m venv $(COMPILED)
	TOCENGINE_COMPILE=1 $(COMPILED)/bin/pip install --quiet --disable-pip-version-check --no-cache-dir \
		--force-reinstall --no-deps .
	$(COMPILED)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt 'tocengine[dev]'
	rm -rf $(BESIDE) && mkdir -p $(BESIDE)
	git ls-files ':!tocengine/*.py' | xargs cp --parents --target-directory=$(BESIDE)
	cd $(BESIDE) && HYPOTHESIS_PROFILE=ci $(CURDIR)/$(COMPILED)/bin/pytest -q tests/unit tests/properties
	cd $(BESIDE) && $(CURDIR)/$(COMPILED)/bin/python -m tests.benchmarks --stages

demo: install  ## a hospital's day, from message to delivered and audited notice
	@$(BIN)/tocengine demo

check: install  ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## everything, against a real PostgreSQL and a real Apache Kafka
	$(BIN)/pytest -n 2 --dist loadgroup -m 'not alone'
	$(BIN)/pytest -m alone tests/acceptance

crash: install  ## ten kills of each kind instead of one
	TOCENGINE_KILLS=10 $(BIN)/pytest -m crash --timeout 3600

bench: install  ## CPU per message, stage by stage
	$(BIN)/python -m tests.benchmarks

corpus: install  ## docs/corpus.md: what the engine makes of the public message corpus beside this checkout
	$(BIN)/python -m tests.corpus

bench-growth: install  ## what a message costs when much is stored; says what the disk has no room for
	$(BIN)/python -m tests.benchmarks.grown

bench-fairness: install  ## what a bad neighbour does to the acknowledgments and deliveries of everybody else
	$(BIN)/python -m tests.benchmarks.fairness

MINUTES ?= 60
RATE ?= 40

soak: install  ## load for MINUTES while parts are killed at random and receivers fail: nothing lost, nothing twice
	$(BIN)/python -m tests.endurance --minutes $(MINUTES) --rate $(RATE)

pairs: install  ## what other converters make of the same messages, where the corpus is there
	$(BIN)/python -m tests.conformance.pairs_report

validate: install  ## every notice and event of the corpus before the HL7 validator, where both are there: minutes
	$(BIN)/python -m tests.corpus.validate

fuzz: install  ## coverage-guided fuzzing of what reads a sender's bytes: SECONDS=60
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,fuzz]'
	$(BIN)/python -m tests.fuzz -max_total_time=$(or $(SECONDS),60)

search: install  ## thousands of new examples for the properties, instead of the hundreds of a test run
	HYPOTHESIS_PROFILE=search $(BIN)/pytest -n 2 --timeout 3600 tests/properties

clean:
	rm -rf $(VENV) $(COMPILED) $(BESIDE) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
