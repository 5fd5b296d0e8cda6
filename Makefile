# make report       the job, end to end, on the embedded demo: runs/demo/report.html
# make test         the tests
PYTHON ?= python3
RECIPE ?= demo
ARGS ?=
IMAGE ?= nlijob
GPUS ?= --gpus all
python := .venv/bin/python
labels = --build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' nlijob/__init__.py)" \
	--build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)"
docker_run = docker run --rm $(GPUS) --user "$$(id -u):$$(id -g)" --read-only --tmpfs /tmp \
	--shm-size 2g --volume "$(CURDIR)/runs:/runs" --volume nlijob-cache:/cache

.DEFAULT_GOAL := help
.PHONY: help report test test-slow test-gpu bench lint docs image image-cpu image-test wheel-test run shell lock clean

help: ## list what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.ready: pyproject.toml requirements/constraints.txt requirements/torch.lock tools/setup-venv.sh tools/install-torch.sh
	@PYTHON=$(PYTHON) tools/setup-venv.sh

report: .venv/.ready ## run the job: RECIPE=demo (default), phi2, ...; RUN=runs/<id> renders again; ARGS="--epochs 3"
ifdef RUN
	@$(python) entrypoint.py report $(RUN)
else
	@$(python) entrypoint.py run --recipe $(RECIPE) $(ARGS)
endif

test: .venv/.ready ## run the tests (no GPU needed)
	$(python) -m pytest -n 2 --dist loadfile -m "not slow and not gpu" $(ARGS)

test-slow: .venv/.ready ## run the tests that take minutes
	$(python) -m pytest -m slow $(ARGS)

test-gpu: .venv/.ready ## run the tests that need a GPU
	$(python) -m pytest -m gpu $(ARGS)

bench: .venv/.ready ## measure training and scoring in each way, and TRL: benchmarks/results/ (a GPU, better)
	$(python) -m benchmarks.bench $(ARGS)

lint: .venv/.ready ## ruff and mypy, strict; hadolint
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	.venv/bin/hadolint --no-color --failure-threshold style Dockerfile

docs: .venv/.ready ## build the documents as a site in build/site; any warning is an error
	$(python) -m properdocs build --strict --quiet --config-file mkdocs.yml

image: ## build the image for a GPU: nlijob
	docker build --tag nlijob $(labels) .

image-cpu: ## build the image for trying it without one: nlijob:cpu
	docker build --tag nlijob:cpu --build-arg BASE_IMAGE=debian:13-slim --build-arg TORCH_BACKEND=cpu $(labels) .

run: ## run the image, report in runs/: ARGS="--epochs 3"; with no GPU: IMAGE=nlijob:cpu GPUS= ARGS="--recipe demo"
	@mkdir -p runs
	$(docker_run) $(IMAGE) $(ARGS)

shell: ## a shell in the image, with the same user and folders
	@mkdir -p runs
	$(docker_run) --interactive --tty --entrypoint bash $(IMAGE)

wheel-test: .venv/.ready ## build the wheel, install it in a fresh environment and run the demo
	tools/wheel-test.sh

image-test: ## build the CPU image and run the job in it, with no Docker engine (root on Debian)
	tools/image-test.sh

lock: .venv/.ready ## resolve the locked versions anew
	tools/lock.sh

clean: ## remove the environment and caches, not the runs
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info
