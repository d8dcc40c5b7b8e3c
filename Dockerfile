# syntax=docker/dockerfile:1.7

# Targets: cpu, cuda. Tag and digest: a rebuild starts from the same bytes. To move on, change both.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM ${PYTHON_IMAGE} AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# A fixed time, so that a rebuild's wheel and bytecode are the same bytes: 1980 is the oldest a zip file can say.
ENV PIP_CONSTRAINT=/src/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_INPUT=1 \
    PIP_ROOT_USER_ACTION=ignore \
    SOURCE_DATE_EPOCH=315532800
WORKDIR /src

FROM base AS dependencies
COPY constraints.txt pyproject.toml ./
RUN python -m venv --without-pip /opt/nag \
 && python -c "import tomllib; needed = tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']; \
    print(*(name for name in needed if name != 'nag-diffusers'), sep='\n')" > requirements.txt

# The torch of PyPI brings CUDA's libraries along; this index has one without.
FROM dependencies AS dependencies-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    grep '^torch==' constraints.txt > torch.txt \
 && python -m pip --python /opt/nag install --no-deps --index-url "${TORCH_INDEX}" -r torch.txt \
 && python -m pip --python /opt/nag install -r requirements.txt

FROM dependencies AS dependencies-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/nag install -r requirements.txt

# The library and the service alone, in an environment at the same place: copied over the dependencies', it is a small layer.
FROM base AS service
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY nag nag
COPY app app
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/nag \
 && python -m pip --python /opt/nag install --no-deps ./nag .

FROM ${PYTHON_IMAGE} AS runtime
# The folders exist so that a new named volume takes their owner.
RUN groupadd --gid 10001 nag \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin nag \
 && install --directory --owner 10001 --group 10001 --mode 0750 /var/lib/nag /var/cache/nag
# Whatever is written lies in the two volumes or in /tmp.
ENV PATH=/opt/nag/bin:$PATH \
    HF_HOME=/var/cache/nag/huggingface \
    HOME=/tmp \
    NAG_DATA_DIR=/var/lib/nag \
    NAG_HOST=0.0.0.0 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/nag/inductor \
    TRITON_CACHE_DIR=/var/cache/nag/triton
USER 10001:10001
WORKDIR /var/lib/nag
VOLUME ["/var/lib/nag", "/var/cache/nag"]
EXPOSE 8000
ENTRYPOINT ["nag-server"]
CMD ["api"]
# The API's; a worker's is where it is started as one.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]

FROM runtime AS cuda
# Triton compiles its launchers where they run. Only the driver comes from the host, through its container toolkit.
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --no-install-recommends --yes gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=dependencies-cuda /opt/nag /opt/nag
COPY --from=service /opt/nag /opt/nag

FROM runtime AS cpu
COPY --from=dependencies-cpu /opt/nag /opt/nag
COPY --from=service /opt/nag /opt/nag
