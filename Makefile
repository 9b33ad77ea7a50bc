# make demo   install, train and test both demo models, show a table and a picture
# make test   install, run the tests        STACK=upstream: with upstream's OpenMMLab
# make quick  the tests of the method, in 40 s: torch alone, no OpenMMLab, no process
#             PYTHON=python takes any environment with torch, NumPy and pytest; nothing is installed
# make check  ruff and mypy
# make faults  install, then kill, fill, break and fuzz for half an hour; prints a table
# make recipes  install, then every recipe through every tool, small, for about two hours; prints a table
# make clients  install, and peft, timm, transformers and others in .venv-clients; tries them, prints two tables
# make page    the demo, then its models on a page in a headless Chromium, in .venv-page; prints a table
# make engines  install, and OpenVINO in .venv-engines; exported models in both engines: prints a table
# make heads   install, then our backbones in the heads of mmdet's and mmseg's configs: ten minutes, a table
# make compiled  install, then every backbone under torch.compile, in full size: about an hour, a table
# make exports install, then whole models exported and compared with mmdet's and mmseg's own predictions; a table
# make gpu_day  on a machine with a GPU: tests and checks of numbers, times, the demo; a report in work_dirs/gpu_day
# make sets    install, then tiny copies of mmdet's data sets through the tools; prints a table
# make mistakes  install, and 200 wrong command lines; prints a table
# make notebook  install, run examples/demo.ipynb and keep what it shows
# make image_steps  the Dockerfile's lines in Debian trees: root, debootstrap and the network; prints a table
# make docs   install, build the pages of docs/ into site/
STACK ?= maintained
VENV ?= $(if $(filter upstream,$(STACK)),.venv-upstream,.venv)

PYTHON ?= $(VENV)/bin/python

# what `make quick` runs: not what others do to a model and its weights, not the graphs that torch
# records of it, and not how the backbones are trained
QUICK = tests/mixers tests/compute tests/backbones tests/swap/test_swap_forms.py \
	tests/swap/test_swap_clusters.py tests/test_golden.py tests/test_layers.py \
	tests/test_arrows.py $(addprefix --ignore=tests/backbones/test_,clients.py watchers.py recorded.py) \
	--ignore=tests/compute/test_size_cache.py -k "not (every_stage or checkpointing or rate or frozen or out_indices or 2x256x384 or \
	gradients_are_those_of_the_reference or gets_a_gradient or can_be_recorded)"

# On a busy machine, threads that spin while they wait for each other cost most of the time.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install demo test quick check faults recipes heads compiled exports sets mistakes clients page engines gpu_day \
	notebook image_steps docs clean

install:
	@bash requirements/install.sh $(VENV) $(STACK)

demo: install
	@$(VENV)/bin/python tools/demo.py

test: install
	@$(VENV)/bin/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

quick:
	@PYTHONPATH=.:tests $(PYTHON) -m pytest -q -p torch_alone $(QUICK)

check: install
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

faults: install
	@$(VENV)/bin/python tests/faults/table.py

recipes: install
	@$(VENV)/bin/python tests/recipes/run.py

compiled: install
	@PYTHONPATH=.:tests $(VENV)/bin/python -W ignore tests/compiled/run.py

exports: install
	@$(VENV)/bin/python -W ignore tests/exports/run.py

heads: install
	@$(VENV)/bin/python tests/heads/run.py

sets: install
	@$(VENV)/bin/python tests/sets/run.py

mistakes: install
	@$(VENV)/bin/python tests/mistakes/run.py

# an environment of a target's own, which sees what is in the other: $(call make_environment,FOLDER)
define make_environment
	@test -x $(1)/bin/pip || $(VENV)/bin/python -m venv $(1)
	@$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
endef

clients: install
	$(call make_environment,.venv-clients)
	@.venv-clients/bin/pip install -q -r requirements/clients.txt
	@.venv-clients/bin/pip install -q --no-deps -r requirements/clients_alone.txt
	@PYTHONPATH=.:tests .venv-clients/bin/python -W ignore tests/clients/run.py
	@PYTHONPATH=.:tests .venv-clients/bin/python -W ignore tests/clients/swap.py

# the page needs a browser too: run.py has apt-get install Debian's, if there is none and it may
page: demo
	$(call make_environment,.venv-page)
	@.venv-page/bin/pip install -q -r requirements/page.txt
	@PYTHONPATH=.:tests .venv-page/bin/python -W ignore tests/page/run.py

engines: install
	$(call make_environment,.venv-engines)
	@.venv-engines/bin/pip install -q --no-deps 'openvino>=2025.0'
	@PYTHONPATH=.:tests .venv-engines/bin/python -W ignore tests/engines/run.py

# installs nothing: a GPU machine's own environment, by PYTHON=python
gpu_day:
	@PYTHON=$(PYTHON) bash benchmarks/gpu_day.sh

notebook: install
	@cd examples && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(CURDIR)/$(VENV)/bin/jupyter-execute --inplace demo.ipynb

image_steps: install
	@$(VENV)/bin/python tests/image/image_steps.py $(IMAGE_FLAGS)

# everything is read again (-E), since a warning is printed only when its page is read
docs: install
	@$(VENV)/bin/python -m sphinx -E -W --keep-going -q docs site
	@echo "built: site/index.html"

clean:
	rm -rf .venv .venv-* work_dirs data/demo site
