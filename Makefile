# "make demo" and "make test" each do all of their set-up on a fresh machine. "make help" lists the rest.
VENV ?= .venv
BIN := $(VENV)/bin
export NUMBA_CACHE_DIR ?= $(CURDIR)/.cache/numba
export QT_QPA_PLATFORM ?= offscreen
PYTEST_ARGS ?= -n 2 --dist loadfile

.DEFAULT_GOAL := help
PART ?=
.PHONY: help setup demo test verify bench evaluate package lint format cmake-lists system-libraries clean accuracy pictures

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.stamp-all system-libraries ## the whole workflow on a real CT; results in build/demo
	@$(BIN)/fluoroguide demo

test: $(VENV)/.stamp-dev system-libraries ## all tests; PYTEST_ARGS="-k carm" for some of them
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

verify: $(VENV)/.stamp-dev ## a long proof, resumable: make verify PART=needle; parts are in FluoroGuide/Testing/Verification
	@test -n "$(PART)" || { echo "Name a part: make verify PART=NAME, one of:"; ls FluoroGuide/Testing/Verification/*.py | xargs -n1 basename -s .py; exit 2; }
	@OMP_NUM_THREADS=1 $(BIN)/python tools/verify.py $(PART) $(VERIFY_ARGS)

bench: $(VENV)/.stamp-dev ## speed and accuracy next to other packages; PART=projectors for one part; writes Docs/benchmarks.md
	@OMP_NUM_THREADS=1 $(BIN)/python FluoroGuide/Testing/Benchmarks/bench.py $(PART) $(BENCH_ARGS)

evaluate: $(VENV)/.stamp-dev ## the standardised evaluation on thorax and (with test data) pelvis; report in build/evaluate; EVALUATE_ARGS for more
	@NUMBA_CACHE_DIR=$(NUMBA_CACHE_DIR) $(BIN)/python tools/evaluate.py $(EVALUATE_ARGS)

package: $(VENV)/.stamp-dev ## wheel and sdist in dist, the wheel installed into a fresh environment and run
	@$(BIN)/python tools/package.py

lint: $(VENV)/.stamp-dev ## style, import contracts, file lists
	@$(BIN)/ruff check --quiet .
	@$(BIN)/python tools/cmake_lists.py --check
	@$(BIN)/python tools/accuracy.py --check
	@$(BIN)/python tools/scaling_page.py --check
	@$(BIN)/python tools/quotes.py
	@PYTHONPATH=FluoroGuide $(BIN)/lint-imports --no-logo

setup: $(VENV)/.stamp-dev ## the virtual environment with everything for development

format: $(VENV)/.stamp-dev ## let ruff repair what it can
	@$(BIN)/ruff check --fix .

pictures: $(VENV)/.stamp-all system-libraries ## the pictures of README and extension index, from the phantom
	@$(BIN)/python tools/pictures.py

accuracy: ## write Docs/accuracy.md, Docs/scaling.md and the figures that README quotes from the proofs in Docs/verification
	@python3 tools/accuracy.py
	@python3 tools/scaling_page.py
	@python3 tools/quotes.py --write

cmake-lists: ## rewrite the file lists in FluoroGuide/CMakeLists.txt from the disk
	@python3 tools/cmake_lists.py

system-libraries:
	@bash tools/system_libraries.sh

# The stamps hold until pyproject.toml changes. The package itself is installed in editable form.
$(VENV)/.stamp-all: pyproject.toml
	@bash tools/setup_environment.sh $(VENV) all
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml
	@bash tools/setup_environment.sh $(VENV) dev
	@touch $(VENV)/.stamp-all $@

clean: ## remove the virtual environment, caches and build folders
	rm -rf $(VENV) .cache build dist .pytest_cache .ruff_cache .import_linter_cache FluoroGuide/*.egg-info
	find FluoroGuide tools -name __pycache__ -type d -prune -exec rm -rf {} +
