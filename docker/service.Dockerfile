# syntax=docker/dockerfile:1
#
# The online service and nothing else: no training code, no torch, no compiler, no bundle.
#
#   docker build -f docker/service.Dockerfile --build-arg FLAVOUR=cpu -t xmcserve:0.1.0-cpu .
#   docker build -f docker/service.Dockerfile --build-arg FLAVOUR=gpu -t xmcserve:0.1.0-gpu .
#
# For builds that repeat, name the base image by digest: --build-arg PYTHON_IMAGE=python@sha256:...
# tests/contract/test_service_image.py carries these instructions out without Docker, and serves from what they make.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm
ARG FLAVOUR=cpu

# Third-party packages change seldom and, for the GPU, weigh gigabytes: they get a layer that only the pins invalidate.
FROM ${PYTHON_IMAGE} AS dependencies
ARG FLAVOUR
# Of the service: otel sends traces; with "otel predictions" it can log predictions, too; with "otel ray" it serves shards
# on several machines.
ARG EXTRAS=otel
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']; \
               print(*p['dependencies'], *(line for name in 'serve signing ${FLAVOUR} ${EXTRAS}'.split() for line in e[name]), sep='\n')" >requirements.txt \
 && python -m venv --without-pip /opt/xmc \
 && pip --python /opt/xmc/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
        --constraint constraints.txt --requirement requirements.txt \
# The tests of numba, SciPy and others are a tenth of it all; what is left is compiled for a tree that nobody may write.
 && find /opt/xmc/lib -type d -name tests -prune -exec rm -r {} + \
 && /opt/xmc/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/xmc/lib

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY service ./service
RUN python -m hatchling build --target wheel --directory /wheels

FROM ${PYTHON_IMAGE} AS service
COPY --from=dependencies /opt/xmc /opt/xmc
# A label that names another version than the wheel's ends the build here.
ARG VERSION=0.1.0
# The wheel declares the commands of all three packages; those of the two that are not here are removed.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/xmc/bin/python install --no-cache-dir --disable-pip-version-check --no-deps \
        "/wheels/xmcserve-${VERSION}-py3-none-any.whl" \
 && rm /opt/xmc/bin/xmc-train /opt/xmc/bin/xmc-export
# Kernels are compiled for x86 processors since 2013 (AVX2) unless another name is given; for others than named here a
# server compiles its own when it starts. On ARM: --build-arg KERNEL_CPU=generic
ARG KERNEL_CPU=x86-64-v3
ENV NUMBA_CPU_NAME=${KERNEL_CPU} \
    NUMBA_CPU_FEATURES=
RUN /opt/xmc/bin/python -m service.kernels
ENV PATH=/opt/xmc/bin:$PATH \
    NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XMC_HOST=0.0.0.0 \
    XMC_PORT=8000 \
    XMC_METRICS_PORT=9090 \
    XMC_LOG_FORMAT=json
WORKDIR /models
EXPOSE 8000 9090
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ['XMC_PORT']}/livez\", timeout=2)"]
ENTRYPOINT ["xmc-serve", "run"]
# Last, as every commit has another revision. --build-arg REVISION="$(git rev-parse HEAD)" --build-arg SOURCE=https://...
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="xmcserve" \
      org.opencontainers.image.description="Online top-k label queries for MACH, DECLARE and UniDEC bundles" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM service AS service-cpu
ENV XMC_DEVICE=cpu

# The CUDA libraries are Python packages of the gpu extra; the host brings the driver.
FROM service AS service-gpu
ENV XMC_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM service-${FLAVOUR}
