# make demo   install, train and test both demo models, show a table and a picture
# make test   install, run the tests        STACK=upstream: with upstream's OpenMMLab
# make check  ruff and mypy
STACK ?= maintained
VENV ?= $(if $(filter upstream,$(STACK)),.venv-upstream,.venv)

# On a busy machine, threads that spin while they wait for each other cost most of the time.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install demo test check clean

install:
	@bash requirements/install.sh $(VENV) $(STACK)

demo: install
	@$(VENV)/bin/python tools/demo.py

test: install
	@$(VENV)/bin/python -m pytest

check: install
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

clean:
	rm -rf .venv .venv-upstream work_dirs data/demo
