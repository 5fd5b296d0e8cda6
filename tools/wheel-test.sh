#!/usr/bin/env bash
# Builds the wheel, installs it in a fresh environment and runs the demo from / with the console
# script. Writes only to a temporary folder, and needs only the configured package index.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d /tmp/wheel-test.XXXXXX)
trap 'rm -rf "$work"' EXIT
export UV_CACHE_DIR=$work/cache
step() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }

step "build"
.venv/bin/python -m build --outdir "$work/dist" . >"$work/build.log" 2>&1 ||
    { tail -30 "$work/build.log"; exit 1; }

step "install"
.venv/bin/uv venv --quiet --seed --python .venv/bin/python "$work/env"
tools/install-torch.sh "$work/env/bin/python" cpu
.venv/bin/uv pip install --quiet --python "$work/env/bin/python" \
    --constraint requirements/constraints.txt "$work"/dist/*.whl

# Nothing of the caller's environment reaches the installed command.
installed() { (cd / && env -i PATH=/usr/bin:/bin HOME="$work" "$work/env/bin/nlijob" "$@"); }
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' nlijob/__init__.py)

step "nlijob $version"
[ "$(installed --version)" = "nlijob, version $version" ]
installed recipes | grep -x demo
installed schema | .venv/bin/python -m json.tool >/dev/null
for kind in attention kernels values; do
    [ -f "$(echo "$work"/env/lib/python3*/site-packages)/nlijob/gpu/fast/$kind.cu" ]
done

step "demo"
installed run --recipe demo --train-size 160 --validation-size 40 --test-size 60 --epochs 1 \
    --set eval.cases=5 --set eval.generate_tokens=4 --runs-dir "$work/runs" >"$work/out" 2>"$work/err" ||
    { tail -30 "$work/err"; exit 1; }
tail -1 "$work/out" | grep "^Report: $work/runs/demo-"
installed report "$(echo "$work"/runs/demo-*)"
grep -q '</html>' "$work"/runs/demo-*/report.html
step "done"
