# A small image that runs every command of batchrun; by itself it is a worker. Built by: docker build -t batchrun .
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY batchrun batchrun
COPY migrations migrations
RUN python -m venv /opt/batchrun \
 && /opt/batchrun/bin/pip install --no-cache-dir -q -c constraints.txt ".[video,heic,otel]"

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 batchrun
COPY --from=build /opt/batchrun /opt/batchrun
ENV PATH=/opt/batchrun/bin:$PATH PYTHONUNBUFFERED=1
USER batchrun
WORKDIR /work
# SIGTERM: no new calls, those in flight finish; then exit code 0.
STOPSIGNAL SIGTERM
ENTRYPOINT ["batchrun"]
CMD ["worker"]
