# Entry points. `make` alone prints them. Nothing is installed outside this folder: a virtual environment in .venv for
# daily use, one per Python version in .venv-3.11, .venv-3.13, ... for the tests, kernels to test on in .cache.

DIR ?= .
PORT ?= 8443
ARGS ?=

# The same integration suite runs on this machine's kernel and on one with kernel TLS.
KTLS_TESTS = tests/server tests/kernel tests/tls tests/core tests/transport tests/frames tests/http2/test_server.py \
  tests/operation/test_shutdown.py tests/operation/test_workers.py
# A single test that hangs is ended after 15 minutes (pyproject.toml); this is for a kernel that does.
KTLS_TIMEOUT_SECONDS = 2700
# What depends on the versions of Python and OpenSSL.
DEBIAN_13_TESTS = tests/keys tests/tls tests/server
PIP_INSTALL = bin/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve certs venv check format test test-native test-ktls bench bench-peers bench-instructions docker-test soak fuzz clean test-kernels test-large test-debian-13 dist

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

serve: .venv/runtime.stamp ## serve a folder over HTTPS: DIR=folder PORT=8443 ARGS="further options"
	@.venv/bin/ktls-server serve "$(DIR)" --port $(PORT) $(ARGS)

certs: .venv/runtime.stamp ## make a development certificate: .certs/cert.pem, .certs/key.pem
	@.venv/bin/ktls-server certs .certs

venv: .venv/development.stamp ## make .venv with all that development needs

check: .venv/development.stamp ## formatting, lint, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

format: .venv/development.stamp ## format the code, mend what lint can mend
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

test: test-native test-ktls ## the whole suite here, then the integration suite on a kernel with kernel TLS

# Only for these goals, because it starts every Python on the machine to ask for its version.
ifneq ($(filter test test-native test-ktls,$(MAKECMDGOALS)),)
PYTHONS := $(shell .ci/pythons --test | cut -d ' ' -f 1)
ifeq ($(PYTHONS),)
$(error there is nothing to test with)
endif
endif

test-native: $(PYTHONS:%=test-native-%) ## the whole suite on this machine's kernel, on Python 3.11 and 3.13: ARGS="pytest options"

test-ktls: $(PYTHONS:%=test-ktls-%) ## the integration suite on a kernel with kernel TLS: this one if it has it, else User Mode Linux

test-native-%: .venv-%/development.stamp
	@echo "== Python $* on this kernel ($$(uname -r))"
	@.venv-$*/bin/python -m pytest $(ARGS)

test-ktls-%: .venv-%/development.stamp
	@echo "== Python $* on a kernel with kernel TLS"
	@.venv-$*/bin/python -m tests.kernels auto --timeout $(KTLS_TIMEOUT_SECONDS) -- \
	  .venv-$*/bin/python -m pytest -p no:cacheprovider --ktls-kernel $(KTLS_TESTS) $(ARGS)

test-large: .venv/development.stamp ## large files in every combination, on a kernel with kernel TLS (about 12 minutes where it is emulated)
	@.venv/bin/python -m tests.kernels auto --timeout 3600 --env LARGE_FILES=all -- \
	  .venv/bin/python -m pytest -p no:cacheprovider --ktls-kernel -v tests/server/test_large_files.py $(ARGS)

test-debian-13: ## tests of keys, TLS and server on Debian 13's Python 3.13 and OpenSSL 3.5 (as root, about three minutes)
	@echo "== Debian 13 (Python 3.13, OpenSSL 3.5) on this kernel"
	@python3 -m tests.trees debian-13 -- $(DEBIAN_13_TESTS) $(ARGS)

bench: .venv/development.stamp ## what kernel TLS gives on this machine: ARGS="--ladder --plot FILE"
	@.venv/bin/ktls-server bench $(ARGS)

# What cannot be had is named in the comparison.
BENCH_PATH = $$PATH:/usr/sbin:$(CURDIR)/.cache/bench-packages/usr/sbin
define BENCH_PEERS
$(MAKE) --silent --no-print-directory .cache/bench-venv/peers.stamp || echo "the Python peers could not be installed" >&2; \
PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null && command -v lighttpd >/dev/null || \
  $(MAKE) --silent --no-print-directory .cache/bench-packages || echo "nginx and lighttpd could not be had" >&2
endef

bench-peers: .venv/development.stamp ## this server beside nginx, aiohttp, granian, ...: JSON, table and plot
	@$(BENCH_PEERS)
	@PATH="$(BENCH_PATH)" .venv/bin/python -m benchmarks.peers \
	  --peers-python .cache/bench-venv/bin/python \
	  --json benchmarks/results/peers.json --plot docs/images/peers.svg $(ARGS)

bench-instructions: .venv/development.stamp ## instructions per byte and request, in an emulated kernel: ARGS="--check"
	@$(BENCH_PEERS)
	@PATH="$(BENCH_PATH)" .venv/bin/python -m benchmarks.instructions --peers-python .cache/bench-venv/bin/python $(ARGS)

# An environment of their own: what they need must not decide what this server is tested with.
.cache/bench-venv/peers.stamp: benchmarks/peers.txt | .venv/bin/python
	@echo "installing the Python peers into .cache/bench-venv"
	@.venv/bin/python -m venv .cache/bench-venv
	@.cache/bench-venv/$(PIP_INSTALL) --requirement benchmarks/peers.txt
	@touch $@

# Debian's packages, extracted and not installed: a web server that is installed is also started.
.cache/bench-packages:
	@echo "downloading Debian's nginx and lighttpd into $@"
	@rm -rf $@.part && mkdir -p $@.part
	@cd $@.part && apt-get download --quiet nginx lighttpd lighttpd-mod-openssl && \
	  for package in *.deb; do dpkg-deb --extract "$$package" . || exit 1; done
	@mv $@.part $@

docker-test: ## build the container image and run it, in a Docker of its own (as root, about two minutes)
	@python3 docker/test.py

fuzz: .venv/development.stamp ## three minutes of requests that nobody thought of; stops at the first that does harm: ARGS="SECONDS SEED"
	.venv/bin/python -m tests.fuzz $(ARGS)

soak: .venv/development.stamp ## five minutes with 1000 idle and 100 busy connections; fails if anything grows: ARGS="--seconds N"
	.venv/bin/python -m tests.operation.soak $(ARGS)

test-kernels: .venv/development.stamp ## what works on which kernel, as a table: Linux 6.1 and 7.x (about 7 minutes): LANES="uml qemu-7"
	.venv/bin/python -m tests.kernels.matrix $(LANES)

# What is built is what users get: checked, then run in an environment that has nothing else.
dist: .cache/release-venv/release.stamp ## the source archive and the wheel in dist/, checked and tried
	@rm -rf dist .cache/wheel-venv
	@.cache/release-venv/bin/python -m build
	@.cache/release-venv/bin/twine check --strict dist/*
	@.cache/release-venv/bin/check-wheel-contents dist/*.whl
	@.venv/bin/python -m venv .cache/wheel-venv
	@.cache/wheel-venv/$(PIP_INSTALL) dist/*.whl
	@.cache/wheel-venv/bin/ktls-server --version
	@.cache/wheel-venv/bin/ktls-server serve --help >/dev/null

.cache/release-venv/release.stamp: pyproject.toml | .venv/bin/python
	@echo "installing what builds and checks packages into .cache/release-venv"
	@.venv/bin/python -m venv .cache/release-venv
	@.cache/release-venv/$(PIP_INSTALL) build check-wheel-contents twine
	@touch $@

clean: ## remove what was made here, downloaded kernels too, but no certificates
	rm -rf .venv .venv-3.* .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp says what has been installed; it is older than pyproject.toml when that has changed since.
# "%" is the environment: ".venv" is made with the newest Python here, ".venv-3.11" with that version.
# Precious, since what make takes for intermediate it removes when a test has failed.
.PRECIOUS: %/bin/python %/runtime.stamp %/development.stamp
%/bin/python:
	@version=$$(echo "$*" | sed -n 's/^\.venv-//p'); \
	python=$$(.ci/pythons | { [ -z "$$version" ] && head -n 1 || grep "^$$version "; } | cut -d ' ' -f 2); \
	[ -n "$$python" ] || { echo "Python $$version was not found (.ci/pythons lists what was)." >&2; exit 1; }; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$$python cannot make virtual environments. Mend it with: apt-get install python3-venv" >&2; exit 1; }; \
	echo "making $* with $$python"; \
	"$$python" -m venv $*

%/runtime.stamp: pyproject.toml | %/bin/python
	@echo "installing what the server needs into $* (half a minute, this once)"
	@$*/$(PIP_INSTALL) --editable .
	@touch $@

%/development.stamp: pyproject.toml | %/bin/python
	@echo "installing what tests, checks and benchmarks need into $* (about a minute)"
	@$*/$(PIP_INSTALL) --editable '.[test,check,bench]'
	@touch $*/runtime.stamp $@
