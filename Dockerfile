# The digest is of the index of all platforms; README, Containers, says how to renew it.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS build
WORKDIR /build

# Everything that the lock names, each file checked against its hash ...
COPY requirements.lock ./
RUN pip wheel --no-cache-dir --no-deps --require-hashes --wheel-dir wheels -r requirements.lock

# ... of which the service takes what it depends on, offline: nothing unchecked comes in, and no development tool.
COPY pyproject.toml README.md ./
COPY migrations migrations
COPY src src
RUN python -m venv --without-pip /venv && pip --python /venv/bin/python install --no-cache-dir --no-index --find-links wheels .


FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin app && install --directory --owner app --group app /app
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1

# For `alembic upgrade head`; `provisioning migrate` does the same.
WORKDIR /app
COPY alembic.ini ./
COPY migrations migrations

USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8000), timeout=4); c.request('GET', '/health/live'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["provisioning", "serve", "--host", "0.0.0.0"]
