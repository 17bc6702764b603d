# One command each; `make demo` and `make check` need nothing but Python 3.11 or newer and a C++ compiler.
PYTHON ?= python3
VENV ?= .venv
CONVENTIONS ?= .venv-conventions
BIN := $(VENV)/bin
DEMO_DB ?= .autotune/demo.db
TORCH := torch==2.13.0

GPU_PYTHON ?= python3
WHEELS := .autotune/wheels
SITE := .autotune/gpu-site
GPU_PLATFORMS := manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux1_x86_64

FAULTS ?=
FUZZ ?=

.PHONY: install demo test exhaustive faults fuzz conventions torch-matrix docs pictures check lint types layers format bench gpu gpu-wheels clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/autotune run --symbol AMD --db $(DEMO_DB)
	$(BIN)/autotune show --symbol AMD --db $(DEMO_DB)
	$(BIN)/autotune forecast --symbol AMD --db $(DEMO_DB)

test: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

exhaustive: install
	$(BIN)/python -m pytest -q -m exhaustive

# Kills, full disks, damage and the rest, as a table; FAULTS="--long" is what a night takes.
faults: install
	$(BIN)/python -m tests.faults.campaign $(FAULTS)

# Mutated bytes into everything that reads what others wrote; FUZZ="--seconds 3600 --atheris" is guided by coverage.
fuzz: install
	$(BIN)/python -m tests.faults.fuzzing $(FUZZ)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports

# GluonTS needs an older pandas than the rest: an environment of its own.
conventions: $(CONVENTIONS)/installed
	$(CONVENTIONS)/bin/python -m pytest -q tests/conventions tests/unit/test_price_layouts.py

$(CONVENTIONS)/installed: pyproject.toml
	$(PYTHON) -m venv $(CONVENTIONS)
	$(CONVENTIONS)/bin/python -m pip install --quiet --upgrade pip
	$(CONVENTIONS)/bin/python -m pip install --quiet $(TORCH)
	$(CONVENTIONS)/bin/python -m pip install --quiet --editable ".[gluonts,sktime,test]"
	touch $@

# The site, in site/: pages that need no network. `docs/pictures/draw.py` draws the pictures.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: install
	$(BIN)/python docs/pictures/draw.py

# Every release of torch and Python in an environment of its own: gigabytes, and ten minutes or more each.
torch-matrix:
	$(PYTHON) benchmarks/torch_matrix.py $(MATRIX_OPTIONS)

check: lint types layers test

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python benchmarks/lookup.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/settings.py

# On a machine with a network: what a GPU machine without one lacks. Take the folder along with the checkout.
gpu-wheels:
	rm -rf $(WHEELS)
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
	  $(addprefix --platform ,$(GPU_PLATFORMS)) --dest $(WHEELS) --requirement benchmarks/gpu-wheels.txt

# On the GPU machine, whose Python has torch; nothing is installed into it.
gpu:
	$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target $(SITE) $(WHEELS)/*.whl
	PYTHONPATH=$(CURDIR)/$(SITE) $(GPU_PYTHON) benchmarks/gpu.py $(GPU_OPTIONS)

clean:
	rm -rf $(VENV) $(CONVENTIONS) .autotune .mypy_cache .ruff_cache .pytest_cache site
