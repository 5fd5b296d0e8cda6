#!/usr/bin/env bash
# Makes .venv with everything that the job and its tests need. Called by the Makefile.
#
# PyPI's torch for Linux brings gigabytes of CUDA libraries. Without an NVIDIA driver the CPU build
# is asked for first: from the configured package index, then from where uv knows it.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
torch=torch==2.13.0

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $python is $("$python" --version 2>&1); nlijob needs Python 3.11 or newer" >&2
    echo "hint: make ... PYTHON=python3.12" >&2
    exit 2
}

"$python" -m venv .venv
pip() { .venv/bin/python -m pip -qq --disable-pip-version-check "$@"; }

install_torch() {
    if nvidia-smi >/dev/null 2>&1; then
        pip install "$torch"
        return
    fi
    echo "no NVIDIA driver: looking for torch's CPU build"
    pip install "$torch+cpu" 2>/dev/null && return
    pip install uv && VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --torch-backend=cpu "$torch" && return
    echo "no CPU build found: installing the one with CUDA libraries"
    pip install "$torch"
}

echo "setting up .venv (once; some minutes)"
install_torch
pip install --constraint requirements/constraints.txt --editable '.[dev]'
touch .venv/.ready
