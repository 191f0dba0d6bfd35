# docker build --tag olla .
# docker run --publish 40114:40114 --volume ./fleet.yaml:/etc/olla/olla.yaml:ro \
#   --volume olla:/var/lib/olla olla
# --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:… pins the base by its digest.
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE} AS build
# With a compiler, what is on a request's way is compiled; the image that runs does without one.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Exact versions with their hashes, so that two builds are alike; before the sources, so that an
# edit installs nothing again.
COPY packaging ./packaging
RUN python -m venv /opt/build \
  && /opt/build/bin/pip install --no-cache-dir --require-hashes -r packaging/build.lock \
  && python -m venv /opt/olla \
  && /opt/olla/bin/pip install --no-cache-dir --require-hashes -r packaging/run.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY olla ./olla
RUN /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels . \
  && /opt/olla/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="olla" \
  org.opencontainers.image.description="Load-balancing router for Ollama fleets" \
  org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --create-home olla && install -d -o olla -m 700 /var/lib/olla
COPY --from=build /opt/olla /opt/olla
COPY config/olla.yaml /etc/olla/olla.yaml
ENV PATH=/opt/olla/bin:$PATH
# Reachable, and open for inference and lists as Ollama's own image is; the log says so at the start.
# --env OLLA_ACCESS_REQUIRE_KEY=true requires keys; `olla keys create --admin` in the container makes
# the first.
ENV OLLA_SERVER_HOST=0.0.0.0
# Keys and usage, where no store.url says otherwise.
ENV OLLA_HOME=/var/lib/olla
VOLUME /var/lib/olla
# By number, so that an orchestrator can tell that it is not root.
USER 10001
WORKDIR /home/olla
EXPOSE 40114
STOPSIGNAL SIGTERM
# A server.port of the file's own must be in OLLA_SERVER_PORT too, for this to find it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('OLLA_SERVER_PORT', 40114)), timeout=2); c.request('GET', '/internal/health'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["olla"]
CMD ["serve", "--config", "/etc/olla/olla.yaml"]
