#!/usr/bin/env bash
# Builds the image on a base made of Debian's packages and runs the job in it, with no Docker engine
# and no image registry: as an arbitrary user id on a read-only root, stopped by SIGTERM, resumed,
# and its exit codes, files and report checked. Needs root on Debian; says so elsewhere.
#   BACKEND=cpu  the CPU image (the default), with the Python of this machine's Debian release
#   BACKEND=gpu  the GPU image, on Debian 13 as the Dockerfile's default; it downloads 3 GB, takes
#                20 GB of disk below TMPDIR while it runs, and needs no GPU
set -euo pipefail
cd "$(dirname "$0")/.."

backend=${BACKEND:-cpu}
case $backend in
    cpu) torch=cpu suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}") ;;
    gpu) torch=pypi suite=trixie ;;
    *) echo "error: BACKEND is cpu or gpu, not $backend" >&2 && exit 2 ;;
esac

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "skipped: image-test needs root on a Debian machine (buildah, podman, mmdebstrap)"
    exit 0
fi

base=localhost/nlijob-base image=localhost/nlijob:test
work=$(mktemp -d "${TMPDIR:-/tmp}/image-test.XXXXXX")
group=image-test-$$
passed=0 failed=0

step() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }
check() { # check WHAT EXPECTED ACTUAL
    if [ "$2" = "$3" ]; then passed=$((passed + 1)) && echo "  ok    $1"; else
        failed=$((failed + 1)) && echo "  WRONG $1: expected '$2', got '$3'"; fi
}
cleanup() {
    set +e
    podman rm --force --all --time 2 >/dev/null 2>&1
    buildah rm --all >/dev/null 2>&1
    awk -v w="$work/" 'index($2, w) == 1 {print $2}' /proc/mounts | sort -r | xargs -r -n1 umount
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT

step "tools"
programs=(buildah podman runc mmdebstrap)
if [ "$(command -v "${programs[@]}" | wc -l)" != ${#programs[@]} ]; then
    { apt-get update && apt-get install --yes --no-install-recommends "${programs[@]}"; } \
        >"$work/apt.log" 2>&1 || { tail -20 "$work/apt.log"; exit 1; }
fi

# Storage and settings of this run's own.
mkdir -p "$work"/{store,state,tmp,net,runs}
files=$(ulimit -Hn)
limits="\"nproc=$(cat /proc/sys/kernel/pid_max):$(cat /proc/sys/kernel/pid_max)\""
[ "$files" = unlimited ] || limits="$limits, \"nofile=$files:$files\""
cat >"$work/storage.conf" <<EOF
[storage]
driver = "${DRIVER:-overlay}"
graphroot = "$work/store"
runroot = "$work/state"
EOF
cat >"$work/containers.conf" <<EOF
[containers]
default_ulimits = [$limits]
netns = "host"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "$work/state/libpod"
volume_path = "$work/volumes"
image_copy_tmp_dir = "$work/tmp"
[network]
network_config_dir = "$work/net"
EOF
export CONTAINERS_STORAGE_CONF=$work/storage.conf CONTAINERS_CONF=$work/containers.conf
export BUILDAH_ISOLATION=chroot TMPDIR=$work/tmp

step "base image ($suite)"
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
    awk '$2 !~ /-/ {print $1; exit}')
# Without documents and translations, as debian:13-slim.
mmdebstrap --quiet --variant=minbase --format=tar --include=ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
    "$suite" "$work/base.tar" "$mirror" >"$work/base.log" 2>&1 ||
    { tail -20 "$work/base.log"; exit 1; }
podman import --quiet "$work/base.tar" "$base" >/dev/null
rm "$work/base.tar"

step "build ($backend)"
# The machine's certificates and pip settings are bound while RUN steps run and are in no layer.
# A folder of wheels may hold the CPU build of torch; the GPU build comes from the package index.
binds=() wheels=
[ "$backend" = gpu ] || wheels=$(python3 -m pip config get global.find-links 2>/dev/null || true)
certificates=/etc/ssl/certs/ca-certificates.crt
binds+=(--volume "$certificates:$certificates:ro")
printf '[global]\ncert = %s\ntimeout = 180\n' "$certificates" >"$work/pip.conf"
if [ -d "$wheels" ]; then
    printf 'find-links = %s\n' "$wheels" >>"$work/pip.conf"
    binds+=(--volume "$wheels:$wheels:ro")
fi
binds+=(--volume "$work/pip.conf:/etc/pip.conf:ro")
buildah build --format docker --network host "${binds[@]}" --build-arg "BASE_IMAGE=$base" \
    --build-arg "TORCH_BACKEND=$torch" --build-arg VERSION=test --build-arg REVISION=test \
    --tag "$image" . >"$work/build.log" 2>&1 || { tail -30 "$work/build.log"; exit 1; }

step "inspect"
podman images --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep nlijob:
inside() { # inside PROGRAM ARGUMENT...
    podman run --cgroup-parent "/$group" --rm --interactive --read-only --tmpfs /tmp \
        --user "${as:-54321:54321}" --entrypoint "$1" "$image" "${@:2}"
}
as=0:0 inside /opt/nlijob/bin/python - <tools/image_parts.py
check "labels say what it is" "nlijob test test" "$(podman image inspect --format \
    '{{index .Labels "org.opencontainers.image.title"}} {{index .Labels "org.opencontainers.image.version"}} {{index .Labels "org.opencontainers.image.revision"}}' "$image")"
check "GPUtil works, with no GPU to list" "[]" \
    "$(inside /opt/nlijob/bin/python -c 'import GPUtil; print(GPUtil.getGPUs())' 2>&1)"
check "the clients of both buckets are in it" "s3fs gcsfs" \
    "$(inside /opt/nlijob/bin/python -c 'import gcsfs, s3fs; print(s3fs.__name__, gcsfs.__name__)' 2>&1)"
check "no module is compiled at each start" 0 "$(inside sh -c 'find /app -name "*.py" | while read -r file; do
    ls "${file%/*}/__pycache__/$(basename "$file" .py)".cpython-*.pyc >/dev/null 2>&1 || echo "$file"; done | wc -l')"
if [ "$backend" = gpu ]; then
    code=0 && inside /opt/nlijob/bin/python - <tools/image_cuda_check.py >"$work/out" 2>&1 || code=$?
    sed 's/^/  /' "$work/out"
    check "it has what the job needs on a GPU" 0 "$code"
else
    check "no compiler in it" absent "$(inside sh -c 'command -v cc gcc clang >/dev/null && echo present || echo absent')"
fi
check "nothing of the machine's pip settings in it" absent \
    "$(inside sh -c 'test -e /etc/pip.conf && test -s /etc/pip.conf && echo present || echo absent')"

step "run"
chmod 1777 "$work/runs"
run=(podman run --cgroup-parent "/$group" --rm --read-only --tmpfs /tmp --tmpfs /cache --cap-drop ALL
    --security-opt no-new-privileges --user 54321:54321 --volume "$work/runs:/runs")
small=(run --recipe demo --train-size 240 --validation-size 60 --test-size 60 --epochs 3
    --set eval.generate_tokens=4)

for arguments in --help recipes; do
    code=0 && "${run[@]}" "$image" $arguments >"$work/out" 2>&1 || code=$?
    check "$arguments" 0 "$code"
done
code=0 && "${run[@]}" "$image" >"$work/out" 2>&1 || code=$?
check "no argument runs phi2, which refuses to start without a GPU" 5 "$code"
code=0 && "${run[@]}" --env NLIJOB_RECIPE=nonsense "$image" >"$work/out" 2>&1 || code=$?
check "an environment variable is an option; a wrong one is a configuration fault" 2 "$code"

"${run[@]}" --name stopped "$image" "${small[@]}" --run-id job >"$work/out" 2>&1 &
runner=$!
until [ -f "$work/runs/job/markers/train-epoch-1.json" ] || ! kill -0 "$runner" 2>/dev/null; do
    sleep 0.2
done
podman kill --signal TERM stopped >/dev/null
code=0 && wait "$runner" || code=$?
check "SIGTERM stops it cleanly" 75 "$code"
check "no report yet" absent "$([ -f "$work/runs/job/report.html" ] && echo present || echo absent)"

code=0 && "${run[@]}" --env NLIJOB_UPLOAD=file:///runs/bucket "$image" "${small[@]}" --run-id job \
    >"$work/out" 2>&1 || code=$?
[ "$code" = 0 ] || tail -20 "$work/out"
check "the same command goes on to the end" 0 "$code"
check "from the last complete epoch" 1 "$(grep -c 'complete, resuming after them' "$work/out")"
check "the report is there" 1 "$(grep -c '</html>' "$work/runs/job/report.html")"
check "written by the user it ran as" 54321 "$(stat -c %u "$work/runs/job/report.html")"
check "and in the bucket" same "$(cmp -s "$work/runs/job/report.html" \
    "$work/runs/bucket/job/report.html" && echo same || echo other)"
check "with the adapter" adapter_model.safetensors "$(ls "$work/runs/job/adapter" | grep safetensors)"

step "done"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
