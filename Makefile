# make demo   set up, find simulated lesions with the shipped weights, train a small UNA: runs/demo/report.html
# make test   set up and run the tests       make test-slow   the long ones as well       make lint   style
# make app    the reader's desk: Orthanc, MONAI Label, OHIF on 127.0.0.1 (APP='--study FOLDER'); make app-stop
# make package   the bundle as a zip in the model zoo's layout: dist/una_healthy_anatomy_v<version>.zip
# make wheel   what pip installs, with configs and weights: dist/wheel; container/ makes images of it
# make docs   the documentation as a site: dist/site/index.html
# make bench  speed against the limits of this machine

PYTHON ?= python3
VENV := .venv
# Large tensors that go back to the system after every step cost a CPU run part of its time.
export MALLOC_MMAP_THRESHOLD_ := 4000000000
export MALLOC_TRIM_THRESHOLD_ := 4000000000
RUN := $(VENV)/bin/python -m monai.bundle run
C := bundle/configs
DEMO := runs/demo

.PHONY: setup demo test test-slow app app-stop package wheel docs bench lint clean
.DELETE_ON_ERROR:

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f'error: Python {v[0]}.{v[1]} is not supported; run make PYTHON=python3.11 (or 3.12)')"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test,tracking,export,app,docs]"
	@touch $@

demo: setup
	$(RUN) training --config_file "['$(C)/train.yaml','$(C)/sizes/demo.yaml']" --output_dir $(DEMO)
	$(RUN) evaluating --config_file "['$(C)/train.yaml','$(C)/sizes/demo.yaml','$(C)/evaluate.yaml']" --output_dir $(DEMO)
	$(RUN) generating --config_file $(C)/generate.yaml --output_dir $(DEMO)/cohort --dataset_dir $(DEMO)/sample_subject \
		--number 4 --seed 8 --shares "{'real': 1.0}" --corruption_weights "[1, 0, 0]"
	$(RUN) inferring --config_file $(C)/inference.yaml --input $(DEMO)/cohort/datalist.json --output_dir $(DEMO)/found
	$(RUN) reporting --config_file $(C)/report.yaml --output_dir $(DEMO)
	@echo "open $(DEMO)/report.html"

test: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist worksteal -m "not slow"

test-slow: setup
	$(VENV)/bin/python -m pytest

lint: setup
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

app: setup
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python monailabel_app/desk.py start $(APP)

app-stop:
	$(VENV)/bin/python monailabel_app/desk.py stop

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "open dist/site/index.html"

NAME := una_healthy_anatomy

package: setup
	rm -rf dist/$(NAME) && mkdir -p dist && cp -r bundle dist/$(NAME)
	find dist/$(NAME) -name __pycache__ -prune -exec rm -r {} +
	cd dist && ../$(VENV)/bin/python -m zipfile -c $(NAME)_v$$(../$(VENV)/bin/python -c "import json; print(json.load(open('$(NAME)/configs/metadata.json'))['version'])").zip $(NAME)
	rm -r dist/$(NAME)

wheel: setup
	rm -rf dist/wheel build && $(VENV)/bin/pip wheel --quiet --no-deps --wheel-dir dist/wheel .

bench: setup
	PYTHONPATH=bundle $(VENV)/bin/python -m benchmarks

clean:
	rm -rf runs dist $(VENV)
