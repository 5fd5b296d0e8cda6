# The job in a container. GPU (the default):
#   docker build -t nlijob . && docker run --gpus all -v "$PWD/runs:/runs" nlijob
# CPU, to try it: BASE_IMAGE is any Debian or Ubuntu with Python 3.11 or newer in its packages
#   docker build -t nlijob:cpu --build-arg BASE_IMAGE=debian:13-slim --build-arg TORCH_BACKEND=cpu .
# TORCH_BACKEND=cu126 serves Pascal, Volta and drivers before 580.
ARG BASE_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04
FROM ${BASE_IMAGE}
ARG TORCH_BACKEND=pypi

# The distribution's own, patched versions: pinned ones are gone from its mirrors in weeks. gcc is
# for GPUs alone: torch's compiler has it make what launches its kernels.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv tini \
    && if [ "$TORCH_BACKEND" != cpu ]; then \
        apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev; \
    fi \
    && rm -rf /var/lib/apt/lists/*

# What changes seldom comes first, so that a change of code rebuilds in seconds.
COPY tools/install-torch.sh /tmp/setup/tools/
COPY requirements/image.lock requirements/torch.lock /tmp/setup/requirements/
RUN python3 -m venv /opt/nlijob \
    && bash /tmp/setup/tools/install-torch.sh /opt/nlijob/bin/python "$TORCH_BACKEND" \
    && /opt/nlijob/bin/pip install --no-cache-dir --no-deps --require-hashes \
        --requirement /tmp/setup/requirements/image.lock \
    && rm -rf /tmp/setup

# /app is on Python's path in every folder, as an editable installation puts it there. To build a
# wheel here would need a network, or a build tool in the image, at each change of code.
RUN echo /app >"$(echo /opt/nlijob/lib/python3*/site-packages)/nlijob.pth"

COPY entrypoint.py /app/
COPY templates /app/templates
COPY nlijob /app/nlijob
# As pip does with packages; the root is read-only later.
RUN /opt/nlijob/bin/python -m compileall -q /app

# Any user id may run it, on a read-only root: it writes to /runs, /cache and /tmp alone.
RUN mkdir -p /runs /cache && chmod 1777 /runs /cache
ENV HOME=/tmp \
    HF_HOME=/cache/huggingface \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    MPLCONFIGDIR=/tmp/matplotlib \
    NLIJOB_RUNS_DIR=/runs \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /app
VOLUME ["/runs", "/cache"]
STOPSIGNAL SIGTERM
# Last, so that a new commit changes no layer.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nlijob" \
    org.opencontainers.image.description="From a base LLM and an NLI data set to one HTML report on what QLoRA fine-tuning changed" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
ENTRYPOINT ["tini", "--", "/opt/nlijob/bin/python", "/app/entrypoint.py"]
