# Two commands for a newcomer: `make demo` and `make test`. Everything they need goes into .venv, once.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= cm2-demo
BUILT_FROM := pyproject.toml extract/sources/_row_filter.c

.PHONY: demo test test-slow check clean

demo: .venv/demo-ready
	$(BIN)/cm2 demo --out $(DEMO)

test: .venv/test-ready check
	$(BIN)/pytest -n 2 -m "not slow and not fault"

test-slow: .venv/test-ready
	$(BIN)/pytest -n 2 -m "slow or fault"

check: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .typecheck && ln -sfn .. .typecheck/cm2
	MYPYPATH=.typecheck $(BIN)/mypy -p cm2

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cm2 needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv

.venv/demo-ready: $(BUILT_FROM) | .venv/bin/pip
	@start=$$(date +%s); $(BIN)/pip install --quiet --editable . \
	&& echo "set-up: $$(( $$(date +%s) - start )) s, $$(du -sm .venv | cut -f1) MB in .venv"
	@touch $@

.venv/test-ready: $(BUILT_FROM) | .venv/bin/pip
	$(BIN)/pip install --quiet --editable ".[test,dev]"
	@touch $@ .venv/demo-ready

clean:
	rm -rf .venv .typecheck build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f extract/sources/_row_filter*.so extract/sources/_row_filter*.pyd
