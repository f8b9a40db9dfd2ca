# syntax=docker/dockerfile:1
# CPU by default; for CUDA: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/everlearn
WORKDIR /build
COPY constraints.txt ./
# torch first, in a layer of its own: it is large, and changes less often than the code.
RUN grep -E '^torch(vision)?==' constraints.txt > torch.txt \
 && /opt/everlearn/bin/pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple -r torch.txt
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
RUN grep -vE '^torch(vision)?==' constraints.txt > others.txt && /opt/everlearn/bin/pip install -c others.txt .

FROM python:3.11-slim
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin everlearn \
 && install -d -o everlearn -g everlearn -m 0700 /data
COPY --from=build /opt/everlearn /opt/everlearn
COPY docker/everlearn.toml /etc/everlearn/everlearn.toml
# Bytecode is compiled at build time, and nothing is written outside /data and /tmp: the root file system may be read-only.
ENV PATH=/opt/everlearn/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    EVERLEARN_CONFIG=/etc/everlearn/everlearn.toml \
    EVERLEARN_STORE_DATA=/data \
    EVERLEARN_SERVER_HOST=0.0.0.0 \
    EVERLEARN_SERVER_PORT=8000
USER everlearn
WORKDIR /tmp
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-c", \
  "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"EVERLEARN_SERVER_PORT\"]}/readyz', timeout=2)"]
ENTRYPOINT ["everlearn"]
CMD ["serve"]
