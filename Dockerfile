# One image for every service, for `sluicegate` itself and for the trial's broker. Any builder will do: nothing here needs BuildKit.
#
#   docker build -t sluicegate:0.1.0 .                              what a cluster runs
#   docker build -t sluicegate:0.1.0-chdb --build-arg ENGINE=chdb . with the embedded ClickHouse, 900 MB more: compose.yaml
#   make wheels && docker build --network none .                    without a network; the wheels are taken from wheels/
#
# The base is a tag here. A release pins it, and each month anew for Debian's fixes:
#   docker buildx imagetools inspect python:3.11-slim-trixie        prints the digest
#   docker build --build-arg BASE=python:3.11-slim-trixie@sha256:… .
# Any other base with Python 3.11 or later, pip, and glibc will do as well.
ARG BASE=python:3.11-slim-trixie

FROM ${BASE} AS build
# "chdb" or empty: the engine and what it alone stands on is most of the size, and a cluster has a ClickHouse.
ARG ENGINE=""
# One line in the log for each thing that is done, no questions, nothing from beside.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1
WORKDIR /build
# The folder wheels/ need not be there.
COPY requirements.txt wheels* wheels/
RUN python3 -m venv /opt/sluicegate \
 && if ls wheels/*.whl >/dev/null 2>&1; then set -- --no-index --find-links wheels; fi \
 && /opt/sluicegate/bin/python -m pip install "$@" --no-compile --require-hashes -r wheels/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY services services
COPY shared shared
# What installs is not what runs. The engine goes with all that nothing else here imports: tests/image/test_packages.py.
RUN /opt/sluicegate/bin/python -m pip install --no-index --no-deps --no-compile --no-build-isolation . \
 && if [ "$ENGINE" != chdb ]; then \
      /opt/sluicegate/bin/python -m pip uninstall --yes chdb chdb-core numpy pandas pyarrow python-dateutil; fi \
 && /opt/sluicegate/bin/python -m pip uninstall --yes setuptools pip \
 && rm -f /opt/sluicegate/bin/activate* /opt/sluicegate/bin/Activate.ps1 \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/sluicegate/lib

FROM ${BASE}
# Neither pip nor a copy of it, in the base's Python too; that Python's own modules are compiled already.
RUN find / -xdev -type d \( -name ensurepip -o -name pip -o -name 'pip-*.dist-info' -o -name 'setuptools*' \) -path '*python3*' \
      -prune -exec rm -rf {} + \
 && find / -xdev -type f -path '*/bin/pip*' -delete
COPY --from=build /opt/sluicegate /opt/sluicegate
# A new volume of Docker's takes this folder's mode: whoever the user is can write to it.
RUN mkdir -m 1777 /var/lib/sluicegate
# HOME: a user without a name has none. Everything is compiled, and the root may be read-only.
ENV PATH=/opt/sluicegate/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
# A number, so that runAsNonRoot can be checked; any other works as well.
USER 65532:65532
# PID 1 ignores what it has no handler for, and Python has none while it starts. --single-child: whoever has children ends them.
ENTRYPOINT ["dumb-init", "--single-child", "--"]
CMD ["sluicegate", "--help"]
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="Sluicegate" \
      org.opencontainers.image.description="A self-hosted gateway between Claude Code and the model providers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
