# The environment lives in .venv and is (re)made by whatever target needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test coverage test-sb3 lint type format docs extras lock clean
.DEFAULT_GOAL := help

help: ## print this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[all]'
	touch $@

demo: $(READY) ## run examples/demo.py (QUICK=1: a shorter run)
	$(BIN)/python examples/demo.py $(if $(QUICK),--quick)

test: $(READY) ## run the tests, one thread for each of the two workers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

coverage: $(READY) ## run the tests and report the lines that none of them runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov=sb3_nbsp --cov-report=term-missing:skip-covered

test-sb3: $(READY) ## run SB3's own tests with this package's agents in the place of its SAC and PPO (IN_TURN=1: one of the two pairs, the other one on the next day)
	$(BIN)/python tools/sb3_suite.py $(if $(IN_TURN),--in-turn)

lint: $(READY) ## check the style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## check the types
	$(BIN)/mypy

format: $(READY) ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## build docs/ into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Of this version pip finds a CPU build where there is an index of such
TORCH := 2.13.0

extras: ## try each extra alone in a fresh environment, without constraints.txt (IN_TURN=1: one, another one every day)
	$(PYTHON) tools/extras.py --constraint torch==$(TORCH) $(if $(IN_TURN),--in-turn) $(EXTRAS)

# uv keeps the pins that are there; UPGRADE=1 takes the newest versions, and torch stays at $(TORCH).
# The CUDA packages are left out: torch pins them itself, and its CPU build has none.
lock: ## resolve constraints.txt for Python 3.10 to 3.13 (UPGRADE=1: take newer versions)
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --quiet uv
	echo torch==$(TORCH) > build/torch.txt
	build/uv/bin/uv pip compile --quiet --universal --all-extras --python-version 3.10 --no-annotate --no-header \
		$(if $(UPGRADE),--upgrade) --constraints build/torch.txt --output-file constraints.txt pyproject.toml
	{ echo '# Exact versions for Python 3.10 to 3.13. Do not edit: regenerate with `make lock`.'; \
		grep -Ev '^(#|nvidia-|cuda-|triton)' constraints.txt; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## remove the environment, caches and builds (not logs/, results/, runs/)
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
