# syntax of the classic builder: nothing here needs more.
ARG PYTHON_IMAGE=python:3.13.16-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
COPY requirements.txt /requirements.txt
RUN python3 -m venv /opt/lictor \
    && /opt/lictor/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check \
        --require-hashes --no-deps -r /requirements.txt \
    && /opt/lictor/bin/python -m pip uninstall --quiet --yes pip setuptools
COPY policies /build/policies
COPY dataplane /build/dataplane
COPY controlplane /build/controlplane
COPY sidecar /build/sidecar
COPY gateway /build/gateway
COPY lictor /build/lictor
RUN site="$(/opt/lictor/bin/python -c 'import site; print(site.getsitepackages()[0])')" \
    && cp -r /build/. "$site" \
    && cd "$site" && /opt/lictor/bin/python -m compileall -q $(ls /build)

FROM ${PYTHON_IMAGE}
# The first user of the image that is nobody: no shell, no home, no write access anywhere.
RUN echo 'lictor:x:10001:10001::/nonexistent:/usr/sbin/nologin' >>/etc/passwd && echo 'lictor:x:10001:' >>/etc/group
COPY --from=builder /opt/lictor /opt/lictor
ENV PATH=/opt/lictor/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:19000/ready', timeout=2)"]
ENTRYPOINT ["python3", "-m", "lictor"]
