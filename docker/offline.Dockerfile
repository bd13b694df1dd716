# syntax=docker/dockerfile:1
#
# Training and export: two images that share the layer with torch, which is most of either.
#
#   docker build -f docker/offline.Dockerfile --target training -t xmcserve-training:0.1.0 .
#   docker build -f docker/offline.Dockerfile --target export -t xmcserve-export:0.1.0 .
#
# torch's wheels bring CUDA themselves. For machines without a GPU, name an index with builds for the CPU alone:
#   --build-arg TORCH_INDEX=https://...
# For builds that repeat, name the base image by digest: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
# With "ray" it trains on several machines, too.
ARG EXTRAS=
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /requirements
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']; \
               print(*p['dependencies'], *(line for name in 'train transformer cpu ${EXTRAS}'.split() for line in e[name]), sep='\n')" >training.txt
# Another index gets another layer, and nothing before it is repeated.
ARG TORCH_INDEX=
# Tests of packages are left out. torch imports some of its own: they stay, uncompiled, as some need a newer Python.
RUN python -m venv --without-pip /opt/xmc \
 && pip --python /opt/xmc/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} --constraint constraints.txt --requirement training.txt \
 && find /opt/xmc/lib -type d -name tests -not -path '*/torch/*' -prune -exec rm -r {} + \
 && /opt/xmc/bin/python -m compileall -q -j 0 -x '/torch/testing/' --invalidation-mode unchecked-hash /opt/xmc/lib

FROM ${PYTHON_IMAGE} AS sources
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt hatchling \
 && mkdir /made && cp constraints.txt /made \
 && python -c "import tomllib; e = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
               print(*e['export'], *e['serve'], sep='\n')" >/made/export.txt
COPY README.md LICENSE ./
COPY service ./service
COPY training ./training
COPY model_export ./model_export
RUN python -m hatchling build --target wheel --directory /wheels

FROM ${PYTHON_IMAGE} AS training
COPY --from=dependencies /opt/xmc /opt/xmc
# A label that names another version than the wheel's ends the build here.
ARG VERSION=0.1.0
# The wheel declares the commands of all three packages; that of the service, which is not wanted here, is removed.
RUN --mount=type=bind,from=sources,source=/wheels,target=/wheels \
    pip --python /opt/xmc/bin/python install --no-cache-dir --disable-pip-version-check --no-deps \
        "/wheels/xmcserve-${VERSION}-py3-none-any.whl" \
 && rm /opt/xmc/bin/xmc-serve
# Of all that is written outside of the mounted folder, nothing is to be kept.
ENV PATH=/opt/xmc/bin:$PATH \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /work
USER 65532:65532
ENTRYPOINT ["xmc-train"]
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="xmcserve-training" \
      org.opencontainers.image.description="Trains extreme multi-label classifiers: MACH, DECLARE and UniDEC" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM training AS export
USER 0:0
RUN --mount=type=bind,from=sources,source=/made,target=/made \
    pip --python /opt/xmc/bin/python install --no-cache-dir --disable-pip-version-check \
        --constraint /made/constraints.txt --requirement /made/export.txt
USER 65532:65532
ENTRYPOINT ["xmc-export"]
LABEL org.opencontainers.image.title="xmcserve-export" \
      org.opencontainers.image.description="Turns trained artifacts into bundles for the service"
