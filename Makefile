# The two commands of a fresh machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

LOWEST := .venv-lowest/bin

.PHONY: demo test test-all test-lowest lint docs gallery pictures bench clean

# Made once, and again when a list of requirements changes.
$(BIN)/.installed: requirements-dev.txt requirements-tools.txt requirements-test.txt pyproject.toml core/pyproject.toml $(wildcard plugins/*/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo: $(BIN)/.installed
	$(BIN)/stillhouse run audio_vision/digits-few-labels --out runs/demo

test: $(BIN)/.installed
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal $(ARGS)

test-all: $(BIN)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# The core alone, with the oldest releases of its direct dependencies that its pyproject.toml allows. uv looks where pip
# is told to look for wheels.
$(LOWEST)/.installed: $(BIN)/.installed requirements-test.txt core/pyproject.toml
	$(BIN)/uv venv --quiet --clear .venv-lowest --python $(BIN)/python
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" $(BIN)/uv pip install --quiet --python $(LOWEST)/python \
		--resolution lowest-direct -e './core[onnx,testing]' -r requirements-test.txt
	touch $@

# Of the kit, what the core's own components go through, every method included; its proof with bad plugins, and what
# methods, workers and chats do in detail, do not depend on versions.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/python -m pytest tests/core tests/kit/test_contract_of_core.py tests/kit/test_contract_of_methods.py \
		--ignore-glob='*/test_method_*' --ignore-glob='*/test_jobs.py' --ignore-glob='*/test_chat.py' \
		-m "not slow and not plugins" -n 2 --dist worksteal $(ARGS)

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(BIN)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Reports of the demos for the page docs/gallery.md; some fifteen minutes, kept for the next call.
gallery: $(BIN)/.installed
	$(BIN)/python -m docsite.gallery $(ARGS)

# Pictures of the README and the site's home, from a run of the demo; the report's needs chromium.
pictures: $(BIN)/.installed
	$(BIN)/python -m docsite.pictures

bench: $(BIN)/.installed
	$(BIN)/python -m benchmarks --write $(ARGS)

clean:
	rm -rf .venv .venv-lowest site runs
