#!/usr/bin/env bash
# Resolves pyproject.toml anew into
#   requirements/constraints.txt  versions for make (any platform, Python 3.11 and newer)
#   requirements/image.lock       versions and hashes for the image (Linux x86-64, Python 3.12)
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { .venv/bin/uv pip compile --quiet --no-header --no-annotate "$@" pyproject.toml; }

.venv/bin/python -m pip install --quiet uv
compile --all-extras --universal --python-version 3.11 --output-file requirements/constraints.txt
compile --generate-hashes --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
    --output-file requirements/image.lock
