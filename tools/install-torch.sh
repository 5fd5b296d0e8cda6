#!/usr/bin/env bash
# install-torch.sh PYTHON BACKEND: the locked version of torch for PYTHON's environment.
# BACKEND: pypi (PyPI's build, on Linux with CUDA 13's libraries), cpu, or another build by the name
# that uv knows it by, such as cu126 for Pascal, Volta and older drivers.
set -euo pipefail

python=$1 backend=$2
torch=torch==2.13.0
pip() { "$python" -m pip -qq --no-cache-dir --disable-pip-version-check "$@"; }

if [ "$backend" = pypi ]; then
    pip install "$torch"
    exit
fi
# The configured package index first: it may carry the build under its local version.
pip install "$torch+$backend" 2>/dev/null && exit
pip install uv && "$python" -m uv pip install --quiet --python "$python" --torch-backend="$backend" "$torch" && exit
if [ "$backend" = cpu ]; then
    echo "no CPU build of torch found: installing PyPI's, with CUDA libraries" >&2
    pip install "$torch"
    exit
fi
echo "error: no build of $torch for $backend found" >&2
exit 4
