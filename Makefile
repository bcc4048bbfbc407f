# Each target sets up what it needs; `make` alone lists them.
PYTHON ?= python3.11
VENV := .venv
# DVC runs `python` as found on PATH: it must be the environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
INSTALLED := $(VENV)/installed
TORCH := torch==2.13.0
LICENCE ?= unknown
OTHERS := $(VENV)-others
# What these tests make their photographs and models with.
OTHER_TOOLS := hypothesis onnx onnxscript pandas psutil pytest pytest-timeout pytorch-msssim safetensors scikit-image \
	tabulate $(TORCH)
PAGE := src/clearcall/web/static
DEMO ?= build/demo
# Of onnxruntime-web, what runs on the CPU; and what reads and writes video files.
WEB_RUNTIME := $(addprefix onnxruntime-web/dist/ort,.wasm.min.mjs -wasm-simd-threaded.mjs -wasm-simd-threaded.wasm) \
	mediabunny/dist/bundles/mediabunny.min.mjs
RUNTIME_TESTS := runtime temporal media core/test_errors_files.py imaging

.DEFAULT_GOAL := help
.PHONY: help install repro ship ship-filter recipe test test-newest test-oldest wheel web browser cluster demo extension acceptance chaos push pull ui server gate metrics lint lock clean

help: ## list the targets
	@grep -E '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 25

install: $(INSTALLED) ## create the environment in .venv from the lock file

# Everything is locked with hashes but torch, whose builds for CPU and GPU differ. It comes last, when all that its CPU
# build needs is there; a build for GPUs draws in its own libraries. PIP_EXTRA_INDEX_URL may name an index of CPU builds.
$(INSTALLED): requirements.lock requirements-openvino.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not there; install Python 3.11 or set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --no-deps --require-hashes -r requirements.lock
	pip install --quiet $(TORCH)
	pip install --quiet --no-deps --no-build-isolation --editable .
	pip uninstall --quiet --yes openvino
	pip check
# The second runtime, where there is one for this system. Its telemetry package serves its converters alone: left out.
	pip install --quiet --no-deps --require-hashes -r requirements-openvino.lock \
		|| echo "openvino is not to be had here: onnxruntime alone will be used" >&2
	@touch $@

repro: install ## run the whole pipeline, print the results and where the report is
	clearcall params
	clearcall mend
	dvc repro
# What was measured elsewhere and came with the clone says nothing about this machine.
	clearcall measured-here || { dvc repro -f -s benchmark_fps && dvc repro; }
	clearcall summary

ship: install ## train NAME on the photographs in PHOTOS by experiments/NAME.yaml and take it into the package
	@test -n "$(NAME)" -a -n "$(PHOTOS)" || { echo "error: say make ship NAME=fast PHOTOS=folder [LICENCE=...]" >&2; exit 1; }
	values="$$(clearcall experiment recipe $(NAME) --print)" && eval "dvc exp run $$values" \
		"-S 'download_data.folder=\"$(PHOTOS)\"' -S 'download_data.licence=\"$(LICENCE)\"'"
	clearcall models ship $(NAME) --made-by 'make ship NAME=$(NAME) PHOTOS=...'
	pytest -m acceptance

ship-filter: install ## fit the temporal filter on the photographs in PHOTOS and take it into the package
	@test -n "$(PHOTOS)" || { echo "error: say make ship-filter PHOTOS=folder [LICENCE=...]" >&2; exit 1; }
	clearcall models ship-filter "$(PHOTOS)" --licence "$(LICENCE)"
	pytest -m acceptance

recipe: install ## run experiments/NAME.yaml, or all published ones, as experiments of at most ten minutes; PHOTOS=folder
	clearcall experiment recipe $(NAME) $(if $(PHOTOS),--photos "$(PHOTOS)" --licence "$(LICENCE)")

test: install ## run the fast tests, or those named by TESTS
	pytest $(TESTS)

wheel: install ## build the wheel of the package, with the shipped networks, into dist/
	pip wheel . --no-deps --no-build-isolation --quiet --wheel-dir dist
	rm -rf build

web: ## install the JavaScript runtime of `clearcall web`, from package-lock.json; needs npm
	npm ci --ignore-scripts --no-audit --no-fund
	mkdir -p $(PAGE)/vendor
	cp $(WEB_RUNTIME:%=node_modules/%) $(PAGE)/vendor

browser: install web ## install what the tests of the page need beside Chromium itself
	pip install --quiet --no-deps --require-hashes -r requirements-browser.lock
	python -c "import playwright.sync_api" # or the tests would be skipped as if nobody had asked for them

cluster: install ## install Dask and access to S3 and SSH, with what their tests need
	pip install --quiet --no-deps --require-hashes -r requirements-cluster.lock

demo: web ## write the page of `clearcall web` to build/demo, for any static host
	rm -rf $(DEMO)
	mkdir -p $(DEMO)/models
	cp -r $(PAGE)/. $(DEMO)
	cp src/clearcall/runtime/shipped/*.onnx $(DEMO)/models
	cp LICENSE NOTICE $(DEMO)

extension: install web ## write the browser extension to build/clearcall-extension.zip
	python -m clearcall.web.pack build/clearcall-extension.zip

# Whatever is newest today, or the oldest that pyproject.toml allows, not what is locked. PyAV 19 is for Python 3.12 and
# later: say PYTHON=python3.12 to try it.
test-newest test-oldest: ## run the runtime's tests with the newest, or the oldest, dependencies that pyproject.toml allows
	rm -rf $(OTHERS)
	$(PYTHON) -m venv $(OTHERS)
	$(OTHERS)/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
		$(if $(filter %oldest,$@),| sed 's/>=\([0-9.]*\).*/==\1.*/') > $(OTHERS)/runtime.txt
	$(OTHERS)/bin/pip install --quiet --upgrade -r $(OTHERS)/runtime.txt $(OTHER_TOOLS)
	$(OTHERS)/bin/pip list
	PYTHONPATH=$(CURDIR)/src $(OTHERS)/bin/python -m pytest $(RUNTIME_TESTS:%=tests/%)
	rm -rf $(OTHERS)

acceptance: install ## hold the shipped weights to their figures; CLEARCALL_ACCEPTANCE_DATA=folder for all of them
	pytest -m acceptance

chaos: install ## kill and interrupt a miniature pipeline in every stage; takes many minutes
	pytest -m chaos

push: install ## upload data, weights and models of the last run to the DVC remote
	dvc push

pull: install ## fetch those of this commit's run; `make repro` then trains nothing
	dvc pull

ui: install ## show the runs and models in the MLflow UI, on this machine only
	clearcall ui

# Random secrets, which only this user may read.
.env:
	@umask 077 && for name in PGPASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY; do \
		echo "$$name=$$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')"; done > $@

server: install .env ## run the team's MLflow server on this machine's PostgreSQL: docs/team.md
	set -a && . ./.env && exec server/run

gate: install ## fail unless the trained student may be shipped
	clearcall gate

# DVC pads each column to the longest value of the whole table.
metrics: install ## the student's quality and speed beside those of the git revision REV=origin/main
	@dvc metrics diff --md $(or $(REV),origin/main) | tr -s ' -' | grep -E \
		'^\| ?(Path|-)|mean\.student\.|latency\.student\.(fps|median_ms)|student\.parameters'

lint: install ## ruff, mypy and the order of the rooms
	ruff check .
	ruff format --check .
	mypy
	lint-imports

lock: ## write requirements.lock anew from pyproject.toml
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet pip-tools $(TORCH)
	$(VENV)-lock/bin/pip-compile --quiet --extra pipeline --extra dev --extra server --extra vmaf --extra heif --generate-hashes \
		--allow-unsafe --strip-extras --unsafe-package torch --no-emit-find-links --no-emit-index-url --no-emit-trusted-host --no-emit-options \
		--no-header --output-file requirements.lock pyproject.toml
	sed -i '/^# The following packages are considered/,$$d' requirements.lock
	echo 'openvino>=2026.2' | $(VENV)-lock/bin/pip-compile --quiet --generate-hashes --no-annotate --strip-extras \
		--unsafe-package numpy --unsafe-package openvino-telemetry --no-emit-find-links --no-emit-index-url \
		--no-emit-trusted-host --no-emit-options --no-header --output-file requirements-openvino.lock -
	echo 'playwright>=1.50' | $(VENV)-lock/bin/pip-compile --quiet --generate-hashes --no-annotate --strip-extras \
		--unsafe-package typing-extensions --no-emit-find-links \
		--no-emit-index-url --no-emit-trusted-host --no-emit-options --no-header --output-file requirements-browser.lock -
	printf 'distributed>=2026.8\ndvc-s3>=3.3\ndvc-ssh>=4.3\nmoto>=5.2\n' | $(VENV)-lock/bin/pip-compile --quiet --generate-hashes \
		--no-annotate --strip-extras --constraint requirements.lock \
		$$(sed -n 's/^\([a-z0-9._-]*\)==.*/--unsafe-package \1/p' requirements.lock) --no-emit-find-links \
		--no-emit-index-url --no-emit-trusted-host --no-emit-options --no-header --output-file requirements-cluster.lock -
	sed -i '/^#/d; /^$$/d' requirements-openvino.lock requirements-browser.lock requirements-cluster.lock
	rm -rf $(VENV)-lock

clean: ## remove what pipeline and tools made, the MLflow runs and models too; .venv and data/photos stay
	rm -rf data/raw data/pairs data/weights data/models data/runs data/data_docs .checkpoints .dvc/cache .dvc/tmp
	rm -rf $(OTHERS) mlflow.db* mlartifacts .mypy_cache .ruff_cache .pytest_cache .hypothesis
