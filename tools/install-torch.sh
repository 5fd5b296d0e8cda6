#!/usr/bin/env bash
# install-torch.sh PYTHON BACKEND: installs the locked version of torch in PYTHON's environment.
# BACKEND: pypi (PyPI's build for Linux with the CUDA 13 libraries, checked by hash), cpu, or another
# build by uv's name for it, such as cu126 for Pascal, Volta and older drivers.
set -euo pipefail

python=$1 backend=$2
lock=$(dirname "$0")/../requirements/torch.lock
torch=$(grep -oE '^torch==[0-9.]+' "$lock")
pip() { "$python" -m pip -qq --no-cache-dir --disable-pip-version-check "$@"; }

if [ "$backend" = pypi ]; then
    pip install --no-deps --require-hashes --requirement "$lock"
    exit
fi
# First the configured package index, which may have the build under its local version.
pip install "$torch+$backend" 2>/dev/null && exit
pip install uv && "$python" -m uv pip install --quiet --python "$python" --torch-backend="$backend" "$torch" && exit
if [ "$backend" = cpu ]; then
    echo "no CPU build of torch found: installing PyPI's, with CUDA libraries" >&2
    pip install "$torch"
    exit
fi
echo "error: no build of $torch for $backend found" >&2
exit 4
