# The project's commands; `make help` lists them. Needs a Debian 12 or 13 host; root for the set-up and the lab.
# What is made lands in .venv/, build/ and the lab's cache (DWCP_LAB_CACHE, /var/cache/dwcp-migrate by default).

PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.SILENT:
.DELETE_ON_ERROR:

# To build libvirt-python and the lab's programs; to make and run the lab.
PACKAGES := gcc libc6-dev libvirt-dev pkg-config python3-dev python3-venv \
            ca-certificates debian-archive-keyring debootstrap iproute2 mount nftables procps util-linux zstd \
            openssh-client systemd
# To build and judge packages, to make disk images that tests read, and to look at reports as readers do.
PACKAGING := lintian rpm qemu-utils chromium fonts-dejavu-core

SECONDS ?= 60
N ?= 100
SEEDS ?= 2000
RAFT_SEEDS ?= 200
SEED ?= 1
# How often a test that failed is played once more; each time is listed at the end of the run.
RERUNS ?= 0
# Where simulated scenarios are kept account of, by the code that they ran on; SEED=0 goes on where they end.
ACCOUNT ?=

VENV := .venv
BIN := $(VENV)/bin
STAMPS := build/stamps
TOOLS := $(STAMPS)/venv $(STAMPS)/packaging $(BIN)/prometheus $(BIN)/etcd
PYTEST := $(BIN)/pytest -q --reruns $(RERUNS) --rerun-show-tracebacks
UNIT := -m "not lab and not long"
LONG := -m "long and not lab" -k "not 100000_entries and not 64_sessions and not test_release and not fifty_thousand_guests"
LAB := -m "lab and not long"

.PHONY: help setup check unit format test matrix matrix-bench sim long etcd releases year month sessions mutants fuzz demo lab bench soak restarts pictures fleet plans journeys packages lock clean

help:  ## this list
	sed -n 's/^\([a-z]*\):.*  ## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do
	    printf '  make %-8s %s\n' "$$target" "$$text"
	done

setup: $(TOOLS)  ## everything that the other targets need; again: two seconds, offline
	$(BIN)/dwcp-migrate lab prepare

check: $(TOOLS)  ## format, lint, types, import contracts, unit tests
	echo "check: ruff, mypy, import contracts"
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	echo "check: unit tests"
	$(PYTEST) --durations 20 $(UNIT)

unit: $(TOOLS)  ## unit tests only
	$(PYTEST) $(UNIT)

format: $(STAMPS)/venv  ## rewrite the sources as `check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup check long  ## everything: `check`, `long`, `sim`, `fuzz`, and the tests against libvirt and QEMU in the lab
	export MATRIX_SEED=$${MATRIX_SEED:-1}
	echo "test: sim and fuzz, in time that the lab leaves; build/sim.log"
	chrt --idle 0 $(MAKE) --no-print-directory sim fuzz > build/sim.log 2>&1 &
	beside=$$!
	echo "test: lab; a third of the matrix, drawn by MATRIX_SEED=$$MATRIX_SEED"
	$(PYTEST) --durations 20 $(LAB) || { kill $$beside; exit 1; }
	wait $$beside || { cat build/sim.log; exit 1; }
	tail -n 4 build/sim.log

matrix: setup  ## one fault after the other beside a plain migration, each of which has to succeed; half an hour
	$(BIN)/pytest -q -m matrix

long: $(TOOLS)  ## tests of a minute each: gigabytes through both sides, many random cuts, cores by themselves
	echo "test: long"
	$(PYTEST) $(LONG)

etcd: $(TOOLS)  ## two writers during compactions, 100,000 entries against a real etcd; five minutes
	$(BIN)/pytest -q -m long tests/state/etcd

releases: setup  ## agents of 0.1.0 beside this checkout's: voters, members, migrations, up- and downgrades; a quarter of an hour
	$(BIN)/pytest -q -m long tests/agent/test_release.py tests/e2e/test_release.py

year: $(STAMPS)/venv  ## a simulated year of 1,000 hosts and 100,000 guests on the fleet's model; bench/results/year.json
	$(BIN)/python tests/state/fleet/year.py bench/results/year.json

month: $(STAMPS)/venv  ## a month of 200 hosts and 5,000 guests on recorded loads: alone, by promises, relieved; bench/results/watch.json
	$(BIN)/python -m bench watch --json > build/watch.json
	mv build/watch.json bench/results/watch.json

sessions: $(TOOLS)  ## 64 migrations at once on a host with 2 GiB for them; some minutes
	$(BIN)/pytest -q -m long tests/dataplane/test_memory_of_sessions.py

sim: $(STAMPS)/venv  ## SEEDS=2000 simulated PBFT groups, RAFT_SEEDS=200 Raft ones, from SEED=1 on; prints the seed that fails
	echo "sim: $(SEEDS) scenarios from seed $(SEED)"
	$(BIN)/python tests/consensus/simulation/run.py $(SEEDS) $(SEED) $(ACCOUNT)
	echo "sim: $(RAFT_SEEDS) scenarios of Raft from seed $(SEED)"
	$(BIN)/python tests/state/raft/simulation/run.py $(RAFT_SEEDS) $(SEED) $(ACCOUNT)

mutants: $(STAMPS)/venv  ## 84 wrong lines in the cores, one at a time: which of them no test notices
	echo "mutants: some minutes"
	mkdir -p build
	$(BIN)/python tests/mutants/run.py build/mutants.json

fuzz: $(STAMPS)/venv  ## fuzz parser and decoder, SECONDS (60) each
	for target in parser decoder; do
	    echo "fuzz: $$target, $(SECONDS) s"
	    $(BIN)/python tests/fuzz/run.py $$target $(SECONDS)
	done

demo: $(STAMPS)/agent  ## one guest migrated stock, with multifd and zstd, and accelerated; table and build/demo.json
	$(BIN)/dwcp-migrate lab prepare --no-booted
	$(BIN)/dwcp-migrate demo --output build/demo.json

lab: $(STAMPS)/agent  ## two hypervisors with agents, a WAN between them and a guest, to try out; `dwcp-migrate lab down` ends it
	$(BIN)/dwcp-migrate lab prepare --no-booted
	$(BIN)/dwcp-migrate lab up --agents
	$(BIN)/dwcp-migrate lab guest

bench: setup  ## the benchmark suites; JSON into build/bench/
	mkdir -p build/bench
	for suite in amst hde acp ass pba itp; do
	    echo "bench: $$suite"
	    $(BIN)/python -m bench $$suite --json > build/bench/$$suite.json
	done

matrix-bench: setup  ## all ways to migrate, ONLY=slice by slice or the default ones; bench/results/matrix.json, .md, .svg (root)
	$(BIN)/python -m bench matrix $(if $(ONLY),--only $(ONLY)) --json > /dev/null

soak: setup  ## N=100 migrations in a row, channels killed and the link cut as SEED=1 draws it; build/bench/soak.json
	mkdir -p build/bench
	$(BIN)/python -m bench soak --migrations $(N) --seed $(SEED) --json > build/bench/soak.json

restarts: setup  ## N=40 migrations in a row, an agent killed or stopped in each as SEED=1 draws it; build/bench/restarts.json
	mkdir -p build/bench
	$(BIN)/python -m bench restarts --migrations $(if $(filter file,$(origin N)),40,$(N)) --seed $(SEED) --json > build/bench/restarts.json

pictures: $(TOOLS)  ## take the pictures of pages in docs/images anew
	PICTURES=docs/images $(BIN)/pytest -q tests/cli/pages tests/agent/http/test_status_page.py

fleet: $(STAMPS)/venv  ## placement, the long way: a million random moves, 2,000 hosts with 50,000 domains simulated
	$(BIN)/pytest -q -m "long and not lab" tests/placement tests/bench

plans: setup  ## plans that meet what goes wrong, three hosts and eight guests in the lab; half an hour
	$(BIN)/pytest -q -m "lab and long" tests/e2e/test_plan_faults.py

journeys: setup  ## the lab's long tests: tutorial, plans, releases, a wrong clock, Debian 12, all orchestrators' calls; an hour
	$(BIN)/pytest -q --durations 20 -m "lab and long"
	$(BIN)/pytest -q tests/e2e/test_orchestrators.py

packages: $(STAMPS)/venv $(STAMPS)/packaging  ## wheel, sdist, wheelhouse, SBOM, .deb and .rpm into dist/
	$(BIN)/python packaging/build.py --into dist

lock: $(STAMPS)/venv  ## rewrite packaging/requirements.lock: the newest versions that pyproject.toml allows, with hashes
	$(BIN)/uv pip compile pyproject.toml --generate-hashes --universal --python-version 3.11 --quiet \
	    --no-emit-package libvirt-python --custom-compile-command "make lock" --output-file packaging/requirements.lock

clean:  ## remove .venv and build; the lab's cache stays
	rm -rf $(VENV) build *.egg-info

# $(1) Debian packages that must be there
define install
	mkdir -p $(STAMPS)
	missing=()
	for package in $(1); do
	    status=$$(dpkg-query -W -f '$${Status}' "$$package" 2>/dev/null || true)
	    [[ $$status == *" installed" ]] || missing+=("$$package")
	done
	if (( $${#missing[@]} )); then
	    echo "setup: installing $${missing[*]}"
	    if (( $$(id -u) != 0 )); then
	        echo "setup: that needs root: apt-get install $${missing[*]}" >&2
	        exit 1
	    fi
	    export DEBIAN_FRONTEND=noninteractive
	    apt-get -qq update
	    apt-get -qq -y install --no-install-recommends "$${missing[@]}" > build/apt.log
	fi
	touch $@
endef

$(STAMPS)/system: Makefile
	$(call install,$(PACKAGES))

$(STAMPS)/packaging: Makefile $(STAMPS)/system
	$(call install,$(PACKAGING))

# What the agent itself needs: enough for the lab and the demo.
$(STAMPS)/agent: pyproject.toml $(STAMPS)/system
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $(PYTHON) is older than 3.11"; exit 1; }
	if [[ ! -x $(BIN)/pip ]]; then
	    echo "setup: making $(VENV)"
	    $(PYTHON) -m venv $(VENV)
	fi
	echo "setup: installing dwcp-migrate and its dependencies into $(VENV)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

# What tests, training and solvers need besides.
$(STAMPS)/venv: $(STAMPS)/agent
	echo "setup: installing what tests and training need into $(VENV)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# Out of Debian's packages, which are not installed: they would leave a Prometheus and a database running on this machine.
# $(1) package; $(2) one that only newer releases have; $(3) the binaries
define extract
	rm -rf build/$(1)
	mkdir -p build/$(1)
	cd build/$(1)
	fetch() {
	    local packages=($(1))
	    for newer in $(2); do
	        if apt-cache show "$$newer" > /dev/null 2>&1; then packages+=("$$newer"); fi
	    done
	    apt-get -qq -o APT::Sandbox::User=root download "$${packages[@]}"
	}
	fetch 2>/dev/null || { apt-get -qq update; fetch; }
	for package in *.deb; do dpkg-deb --extract "$$package" .; done
	mv $(addprefix usr/bin/,$(3)) ../../$(BIN)/
	rm -rf ../$(1)
endef

$(BIN)/prometheus: | $(STAMPS)/venv
	echo "setup: fetching prometheus and promtool"
	$(call extract,prometheus,promtool,promtool prometheus)

$(BIN)/etcd: | $(STAMPS)/venv
	echo "setup: fetching etcd"
	$(call extract,etcd-server,,etcd)
