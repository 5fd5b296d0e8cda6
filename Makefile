# make report       run the whole job on the embedded demo: runs/demo/report.html
# make test         run the tests
PYTHON ?= python3
RECIPE ?= demo
ARGS ?=
IMAGE ?= nlijob
GPUS ?= --gpus all
python := .venv/bin/python
side_by_side = -n 2 --dist worksteal
labels = --build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' nlijob/__init__.py)" \
	--build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)"
docker_run = docker run --rm $(GPUS) --user "$$(id -u):$$(id -g)" --read-only --tmpfs /tmp \
	--shm-size 2g --volume "$(CURDIR)/runs:/runs" --volume nlijob-cache:/cache

.DEFAULT_GOAL := help
.PHONY: help report test test-arithmetic test-slow test-faults test-gpu bench lint docs image image-cpu image-test image-test-gpu wheel-test run shell audit lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

.venv/.ready: pyproject.toml requirements/constraints.txt requirements/torch.lock tools/setup-venv.sh tools/install-torch.sh
	@PYTHON=$(PYTHON) tools/setup-venv.sh

report: .venv/.ready ## run the job: RECIPE=demo (default), phi2, ...; ARGS="--epochs 3"; RUN=runs/<id> renders again
ifdef RUN
	@$(python) entrypoint.py report $(RUN)
else
	@$(python) entrypoint.py run --recipe $(RECIPE) $(ARGS)
endif

test: .venv/.ready ## run the tests in random order (no GPU needed); an earlier order: ARGS=--randomly-seed=N
	$(python) -m pytest $(side_by_side) -m "not slow and not gpu and not faults" $(ARGS)

test-arithmetic: .venv/.ready ## run the tests of arithmetic again, with other instructions and one thread
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 \
		$(python) -m pytest $(side_by_side) -m "arithmetic and not gpu" tests/unit/gpu $(ARGS)

test-slow: .venv/.ready ## run whole jobs and long comparisons
	$(python) -m pytest -n 2 --dist loadgroup -m "slow and not gpu" $(ARGS)

test-faults: .venv/.ready ## kill jobs, damage runs, fill disks, at random: KILLED_RUNS=100 DAMAGED_RUNS=2000 DISKS=50 SEED=1
	$(python) -m pytest -n $${WORKERS:-2} --dist worksteal -m faults tests/faults $(ARGS)

test-gpu: .venv/.ready ## run the tests that need a GPU
	$(python) -m pytest -m gpu $(ARGS)

bench: .venv/.ready ## measure shapes, TRL and whole jobs (on a GPU, preferably): ARGS="--part shapes --shape llama-3b"
	$(python) -m benchmarks.suite $(ARGS)

lint: .venv/.ready ## run ruff, mypy (strict) and hadolint
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	.venv/bin/hadolint --no-color --failure-threshold style Dockerfile

docs: .venv/.ready ## build the documents as a site in build/site; every warning is an error
	$(python) -m properdocs build --strict --quiet --config-file mkdocs.yml

image: ## build the GPU image: nlijob
	docker build --tag nlijob $(labels) .

image-cpu: ## build the CPU image, to try the job without a GPU: nlijob:cpu
	docker build --tag nlijob:cpu --build-arg TORCH_BACKEND=cpu $(labels) .

run: ## run the image, results in runs/: ARGS="--epochs 3"; without a GPU: IMAGE=nlijob:cpu GPUS= ARGS="--recipe demo"
	@mkdir -p runs
	$(docker_run) $(IMAGE) $(ARGS)

shell: ## open a shell in the image, with the same user and folders as `make run`
	@mkdir -p runs
	$(docker_run) --interactive --tty --entrypoint bash $(IMAGE)

wheel-test: .venv/.ready ## build the wheel, install it in a fresh environment and run the demo
	tools/wheel-test.sh

image-test: ## build the CPU image and run the job in it, without a Docker engine (root on Debian)
	tools/image-test.sh

image-test-gpu: ## the same for the GPU image; needs no GPU, but 3 GB of downloads and 20 GB of disk
	BACKEND=gpu tools/image-test.sh

audit: .venv/.ready ## compare the locked versions with known vulnerabilities (asks a server on the internet)
	$(python) -m tools.audit $(ARGS)

lock: .venv/.ready ## resolve the dependencies into requirements/
	tools/lock.sh

clean: ## remove the environment and caches, but not the runs
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info
