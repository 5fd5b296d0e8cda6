#!/usr/bin/env bash
# Creates .venv with everything that the job and its tests need. Called by the Makefile. Without an
# NVIDIA driver it installs torch's CPU build, as PyPI's build brings gigabytes of CUDA libraries.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $python is $("$python" --version 2>&1); nlijob needs Python 3.11 or newer" >&2
    echo "hint: make ... PYTHON=python3.12" >&2
    exit 2
}

echo "setting up .venv (only once; takes some minutes)"
"$python" -m venv .venv
backend=$(nvidia-smi >/dev/null 2>&1 && echo pypi || echo cpu)
tools/install-torch.sh .venv/bin/python "$backend"
.venv/bin/python -m pip -qq --disable-pip-version-check install \
    --constraint requirements/constraints.txt --editable '.[dev,s3,gs,sweep,lm-eval,bench]'
touch .venv/.ready
