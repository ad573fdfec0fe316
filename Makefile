# The two commands: `make quickstart` and `make test`. Each makes .venv if there is none.
.DEFAULT_GOAL := help
.PHONY: help quickstart test fuzz crash check schema docs clean

PYTHON ?= python3
BIN := .venv/bin
# The suite shares the cores itself; more threads in each process would only get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

help:  ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: .venv/.with-samples  ## derive a model from recipes/quickstart.yaml into ./quickstart-model
	$(BIN)/reuselib run recipes/quickstart.yaml --output quickstart-model --overwrite

test: .venv/.with-samples,trackers,sign,bom,scan,dev  ## run the tests
	$(PYTEST)

fuzz: .venv/.with-samples,trackers,sign,bom,scan,dev  ## give 20,000 damaged inputs to every reader of strangers' bytes
	$(BIN)/python tests/fuzz/run.py --inputs 20000 --seed 0

check: .venv/.with-samples,trackers,sign,bom,scan,dev,lint  ## look at the code without running it
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

crash: .venv/.with-samples,trackers,sign,bom,scan,dev  ## kill runs, break their writes and cut their power; about 10 minutes
	$(BIN)/python tests/crash/run.py --kills 200 --seed 0

schema: .venv/.with-samples  ## write the JSON schema of recipes anew
	$(BIN)/reuselib schema --ours > src/reuselib/recipe/schema.json.new
	mv src/reuselib/recipe/schema.json.new src/reuselib/recipe/schema.json

docs: .venv/.with-samples  ## write the generated tables of the pages anew
	$(BIN)/python docs/generate.py

clean:  ## remove what was made here, .venv included
	rm -rf .venv quickstart-model runs .pytest_cache .ruff_cache

# One stamp for each set of extras, so that a change of the requirements is noticed.
.venv/.with-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing reuselib[$*] into .venv; the first time takes some minutes."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable ".[$*]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  f"reuselib needs Python 3.11 or newer, but $(PYTHON) is {v[0]}.{v[1]}; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
