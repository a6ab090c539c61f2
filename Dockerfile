# The `batchord` program and its packages; no tools, no local model, no server.
# Your chains: derive an image that copies them to /app, or mount them there, and name them in
# BATCHORD_CHAINS.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies first: they change less often than the code, and each must match its hash.
COPY requirements/build.txt requirements/serve.txt requirements/
RUN pip install --require-hashes -r requirements/build.txt
RUN python -m venv /opt/batchord
# What the workers need, and `batchord serve`, with the versions and hashes that the tests ran with.
RUN /opt/batchord/bin/pip install --require-hashes -r requirements/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY chains/ chains/
COPY ledger/ ledger/
COPY producer/ producer/
COPY worker/ worker/
COPY gateway/ gateway/
COPY batchord/ batchord/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .
RUN /opt/batchord/bin/pip install --no-deps --no-index --find-links /dist batchord

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin batchord \
    && install -d -o batchord -m 0700 /data/files
COPY --from=build /opt/batchord /opt/batchord
ENV PATH=/opt/batchord/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER batchord
ENTRYPOINT ["batchord"]
CMD ["--help"]
