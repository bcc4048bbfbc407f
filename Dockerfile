# The pipeline: `docker build --tag clearcall .`; the team's MLflow server, without torch: `--target server`; what
# `make install` needs, for the dev container: `--target tools`.
FROM python:3.11-slim AS server
WORKDIR /clearcall
COPY requirements.lock .
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY server server
RUN useradd mlflow && install --directory --owner mlflow server/artifacts
USER mlflow
CMD ["server/run"]

FROM python:3.11-slim AS tools
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*

FROM tools
# Where an index of CPU builds is, for an image without the libraries of GPUs.
ARG PIP_EXTRA_INDEX_URL
WORKDIR /clearcall
COPY Makefile pyproject.toml requirements*.lock README.md LICENSE NOTICE ./
COPY src src
RUN PIP_NO_CACHE_DIR=1 make install
# With .git: DVC and MLflow tell which commit a run is of.
COPY . .
ENV PATH=/clearcall/.venv/bin:$PATH
CMD ["make", "repro"]
