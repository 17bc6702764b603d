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

SUPPLY := .venv-supply
RUNTIME := build calendar cuda png postgresql share studies web
LOCK_TORCH ?= --torch-backend cpu
LOCK = $(SUPPLY)/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-emit-index-url --no-emit-find-links --no-emit-package torch --constraint $(SUPPLY)/torch $(LOCK_TORCH)

FAULTS ?=
FUZZ ?=

.PHONY: install demo test exhaustive faults fuzz conventions torch-matrix docs pictures check lint types layers format bench gpu gpu-wheels lock sbom audit clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml requirements-dev.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# What is installed, version and hash: requirements.lock with the extras of RUNTIME, requirements-dev.lock with the tools.
# torch is left out: which build of it is the machine's affair.
lock: $(SUPPLY)/installed
	$(LOCK) $(addprefix --extra ,$(RUNTIME)) --output-file requirements.lock
	$(LOCK) --extra build --extra dev --constraint requirements.lock --output-file requirements-dev.lock

# What production installs as a CycloneDX document; `audit` asks PyPI which of it has known faults.
sbom: $(SUPPLY)/installed
	rm -rf $(SUPPLY)/runtime
	$(PYTHON) -m venv --without-pip $(SUPPLY)/runtime
	$(SUPPLY)/bin/python -m pip --python $(SUPPLY)/runtime/bin/python install --quiet --no-deps --require-hashes \
	  --requirement requirements.lock
	$(SUPPLY)/bin/cyclonedx-py environment $(SUPPLY)/runtime/bin/python --pyproject pyproject.toml \
	  --output-reproducible --output-format JSON --output-file sbom.cdx.json

audit: $(SUPPLY)/installed
	$(SUPPLY)/bin/pip-audit --disable-pip --no-deps --requirement requirements.lock

$(SUPPLY)/installed: pyproject.toml
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --quiet $(shell sed -n 's/^supply = \[\(.*\)\]/\1/p' pyproject.toml | tr -d ',')
	echo "$(TORCH)+cpu" >$(SUPPLY)/torch
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

# GluonTS needs an older pandas than the rest: an environment of its own. Yahoo and S3 answer from this machine.
conventions: $(CONVENTIONS)/installed
	$(CONVENTIONS)/bin/python -m pytest -q tests/conventions tests/unit/test_price_layouts.py

$(CONVENTIONS)/installed: pyproject.toml
	$(PYTHON) -m venv $(CONVENTIONS)
	$(CONVENTIONS)/bin/python -m pip install --quiet --upgrade pip
	$(CONVENTIONS)/bin/python -m pip install --quiet $(TORCH)
	$(CONVENTIONS)/bin/python -m pip install --quiet --editable ".[gluonts,s3,sktime,test,yfinance]" "moto[server]==5.2.5"
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
	rm -rf $(VENV) $(CONVENTIONS) $(SUPPLY) .autotune .mypy_cache .ruff_cache .pytest_cache site
