#!/usr/bin/env bash
# Resolves the dependencies in pyproject.toml, for Python 3.11 and newer, into
#   requirements/constraints.txt  versions for make
#   requirements/image.lock       versions and hashes for the image, without torch and what only torch
#                                 needs, because its build depends on the GPU (install-torch.sh)
#   requirements/torch.lock       versions and hashes of torch and what only it needs, for PyPI's
#                                 build for Linux with CUDA
# Versions that are locked already stay, unless pyproject.toml excludes them.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    .venv/bin/uv pip compile --quiet --no-header --no-annotate --universal --python-version 3.11 \
        "$@" pyproject.toml
}

# The services of --track are not locked: MLflow would hold back pyarrow and pillow for all others.
compile $(printf -- '--extra %s ' s3 gs lm-eval sweep tensorboard bench dev) \
    --output-file requirements/constraints.txt
torch_only=$(grep -oE '^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)' requirements/constraints.txt |
    grep -v '^nvidia-ml-py$' | sort -u)
compile --extra s3 --extra gs --generate-hashes $(printf -- '--no-emit-package %s ' $torch_only) \
    --output-file requirements/image.lock
others=$(grep -oE '^[a-zA-Z0-9._-]+' requirements/image.lock | sort -u)
grep -E '^torch==' requirements/constraints.txt |
    .venv/bin/uv pip compile --quiet --no-header --no-annotate --generate-hashes \
        --python-platform x86_64-unknown-linux-gnu --python-version 3.12 \
        --constraint requirements/constraints.txt $(printf -- '--no-emit-package %s ' $others) \
        --output-file requirements/torch.lock -
