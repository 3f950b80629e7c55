# The image of the worker and of `init`: the sluice package in a virtual
# environment of its own, run by a user without rights. Build context: the
# repository's root.
FROM python:3.12.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/sluice
WORKDIR /src
COPY . .
RUN /opt/sluice/bin/pip install . && /opt/sluice/bin/sluice --help > /dev/null

FROM python:3.12.12-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin sluice
COPY --from=build /opt/sluice /opt/sluice
ENV PATH=/opt/sluice/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# Not the root folder: `.env` and `sluice.toml` are read from where it runs.
WORKDIR /tmp
EXPOSE 8088
ENTRYPOINT ["sluice"]
CMD ["worker"]
