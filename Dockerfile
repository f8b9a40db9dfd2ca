# CPU by default; for CUDA: docker build --build-arg TORCH=cuda . `make lock` remakes the lock files.
FROM python:3.11-slim-bookworm AS build
ARG TORCH=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY docker/*.lock docker/
# What makes the image, apart from what goes into it; then torch, which is large, and changes less often than the code.
RUN apt-get update && apt-get install -y --no-install-recommends tini=0.19.0-* && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/build && /opt/build/bin/pip install --no-deps --require-hashes -r docker/build.lock \
 && python3 -m venv /opt/everlearn \
 && /opt/everlearn/bin/pip install --no-deps -r "docker/torch-$TORCH.lock" \
 && /opt/everlearn/bin/pip install --no-deps --require-hashes -r docker/requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
# No header, no static library, no installer is needed to serve.
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
 && /opt/everlearn/bin/pip install --no-deps wheels/*.whl \
 && /opt/everlearn/bin/pip uninstall -y setuptools pip \
 && rm -rf /opt/everlearn/lib/python3*/site-packages/torch/include /opt/everlearn/lib/python3*/site-packages/torch/share \
 && find /opt/everlearn -name '*.a' -delete \
 && install -D /usr/bin/tini /opt/everlearn/bin/tini \
 && /opt/build/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file /opt/everlearn/sbom.cdx.json \
    /opt/everlearn/bin/python

FROM python:3.11-slim-bookworm
ARG REVISION=unknown
LABEL org.opencontainers.image.title="everlearn" \
      org.opencontainers.image.description="The model server with a write-ahead log." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin everlearn \
 && install -d -o everlearn -g everlearn -m 0700 /data
COPY --from=build /opt/everlearn /opt/everlearn
COPY docker/everlearn.toml /etc/everlearn/everlearn.toml
# Bytecode is compiled at build time, and nothing is written outside /data and /tmp: the root file system may be read-only.
# Containers on one volume are replicas; gateways have some seconds to see that one leaves.
ENV PATH=/opt/everlearn/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    EVERLEARN_CONFIG=/etc/everlearn/everlearn.toml \
    EVERLEARN_STORE_DATA=/data \
    EVERLEARN_SERVER_HOST=0.0.0.0 \
    EVERLEARN_SERVER_PORT=8000 \
    EVERLEARN_SERVER_DRAIN_SECONDS=4 \
    EVERLEARN_LEARNER_STANDBY=true
USER 10001:10001
WORKDIR /tmp
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-c", \
  "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"EVERLEARN_SERVER_PORT\"]}/readyz', timeout=2)"]
ENTRYPOINT ["tini", "--", "everlearn"]
CMD ["serve"]
