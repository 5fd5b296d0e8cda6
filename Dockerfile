# The job in a container. GPU (the default):
#   docker build -t nlijob . && docker run --gpus all -v "$PWD/runs:/runs" nlijob
# CPU, to try it:
#   docker build -t nlijob:cpu --build-arg TORCH_BACKEND=cpu .
# TORCH_BACKEND=cu126 supports Pascal, Volta and drivers before 580.
# BASE_IMAGE may be any Debian or Ubuntu with Python 3.11 or newer in its packages. A CUDA base is
# not needed, because torch's wheels contain the CUDA libraries (docs/container.md).
ARG BASE_IMAGE=debian:13-slim
FROM ${BASE_IMAGE}
ARG TORCH_BACKEND=pypi

# Versions are not pinned, because the distribution removes patched versions from its mirrors within
# weeks. gcc is only for GPUs: torch's compiler uses it to compile the launchers of its kernels.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv tini \
    && if [ "$TORCH_BACKEND" != cpu ]; then \
        apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev; \
    fi \
    && apt-get clean && rm -rf /var/lib/apt/lists/*

# What changes rarely comes first, so that after a change of code the image is rebuilt in seconds.
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
# Compiled now, as pip compiles packages, because the root is read-only at run time.
RUN /opt/nlijob/bin/python -m compileall -q /app

# Works with any user id and a read-only root: the job writes only to /runs, /cache and /tmp.
RUN mkdir -p /runs /cache && chmod 1777 /runs /cache
# /usr/local/nvidia is where Google Kubernetes Engine mounts the driver; NVIDIA's own container
# toolkit uses the system's folders.
ENV HOME=/tmp \
    HF_HOME=/cache/huggingface \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    MPLCONFIGDIR=/tmp/matplotlib \
    NLIJOB_RUNS_DIR=/runs \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PATH="/usr/local/nvidia/bin:$PATH" \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /app
VOLUME ["/runs", "/cache"]
STOPSIGNAL SIGTERM
# These come last, so that a new commit changes no layer.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nlijob" \
    org.opencontainers.image.description="From a base LLM and an NLI data set to one HTML report on what QLoRA fine-tuning changed" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
ENTRYPOINT ["tini", "--", "/opt/nlijob/bin/python", "/app/entrypoint.py"]
