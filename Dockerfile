# The daemon as an image: no torch, no compiler, no root. Build: docker build -t gradwatch .
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
# A mirror: docker build --build-arg PIP_INDEX_URL=... ; empty means pip's default. It stays in this stage.
ARG PIP_INDEX_URL=
WORKDIR /src
COPY pyproject.toml constraints.txt README.md CHANGELOG.md LICENSE ./
COPY contracts ./contracts
COPY agent ./agent
COPY daemon ./daemon
RUN python -m venv /opt/gradwatch
RUN /opt/gradwatch/bin/python -m pip install --no-cache-dir --constraint constraints.txt ".[daemon]"

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/gradwatch /opt/gradwatch
# Numeric, so that `runAsNonRoot` checks and bind mounts need no name. A new named volume takes owner and mode from here.
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/gradwatch /run/gradwatch
ENV PATH=/opt/gradwatch/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GRADWATCH_DATA_DIR=/var/lib/gradwatch \
    GRADWATCH_RUNTIME_DIR=/run/gradwatch
USER 10001:10001
VOLUME ["/var/lib/gradwatch", "/run/gradwatch"]
EXPOSE 9470
# /livez on the address of connection.json. Docker knows 0 and 1 only; ours says 4 for unreachable.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD gradwatch health || exit 1
STOPSIGNAL SIGTERM
# Inside the container all addresses, without TLS: what the world may reach is decided where the port is published.
CMD ["gradwatch", "serve", "--http", "0.0.0.0:9470", "--insecure-http-beyond-loopback"]
