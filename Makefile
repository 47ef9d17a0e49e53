# The targets people type; the build server types them too (.ci/run).
#
#   make run      the demo: simulated slow services with Forebay in front of them; Ctrl-C ends it
#   make check    formatting, lints, generated files, licences: what to run before a commit
#   make test     `check` and every test, against real services; what the build server runs
#   make bench    CPU and latency beside nginx and HAProxy, see benches/run.py; bench-quick, -aggregate, -truth, -rate, -scrape, -gate
#   make fuzz     each fuzz target for a minute: FUZZ_SECONDS=600 make fuzz for longer
#   make bless    writes the generated files and the golden messages anew; read the difference before committing it
#   make package  what is shipped, in target/package: static binary, image folder, Debian package, SBOM; package-test tries them
#   make docs     the documentation of the code, in target/doc
#   make pictures the pictures of the built-in page and of dashboards in docs/, anew, in five minutes; look at them before committing
.DEFAULT_GOAL := test
.PHONY: run setup setup-build check generated test bless docs pictures fuzz bench bench-quick bench-aggregate bench-truth bench-rate bench-scrape \
	bench-gate bench-setup bench-setup-oha package package-test

CARGO ?= cargo
FUZZ_SECONDS ?= 60

# What compares committed files with the code that they describe.
GENERATED = telemetry:: config:: dashboards:: rules::

# What may be compiled in.
LICENCES = licences::

# Private items are documented as well, so links may lead to them.
DOC = RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
	$(CARGO) doc --locked --no-deps --document-private-items

run: setup-build
	$(CARGO) run --release --locked -- demo

# All that the tests need; it takes no time when it is there.
setup:
	scripts/setup.sh

# Compilers only.
setup-build:
	scripts/setup.sh build

# The fuzz targets and the comparators are packages of their own: a dependency added here must be in their lock files as well.
check: setup-build
	$(CARGO) fmt --check
	$(CARGO) tree --locked --quiet --manifest-path fuzz/Cargo.toml >/dev/null
	$(CARGO) tree --locked --quiet --manifest-path benches/comparators/Cargo.toml >/dev/null
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked --quiet --lib --test it -- $(GENERATED) $(LICENCES)

test: setup check
	$(DOC) --quiet
	$(CARGO) test --locked

bless:
	FOREBAY_BLESS=1 $(CARGO) test --locked --quiet --lib --test it -- $(GENERATED)
	git status --short

pictures: setup
	$(CARGO) test --locked --test it -- --ignored --test-threads 1 e2e::pictures

docs:
	$(DOC)

# The static release build takes five minutes on two cores, the rest seconds.
package:
	scripts/setup.sh package
	packaging/package.sh

# Builds the image and runs it without any rights, installs the Debian package into a clean tree. As root; ten seconds.
package-test: package
	packaging/docker/test.sh
	packaging/debian/test.sh

fuzz: setup-build
	fuzz/run.sh $(FUZZ_SECONDS)

# Installs nginx, HAProxy, wrk and valgrind (their services are not started) and builds for release.
bench-setup: setup-build
	scripts/bench-setup.sh

# And oha: eight minutes, once.
bench-setup-oha: setup-build
	scripts/bench-setup.sh oha

# Beside nginx, HAProxy, bare pingora and a byte forwarder; writes benches/results.md. Within 20 minutes; bench-quick within 6.
bench: bench-setup-oha
	benches/run.py bench

bench-quick: bench-setup-oha
	benches/run.py bench --quick

# Only what an aggregate costs, beside hyper-util and the tutorial's aggregator in Python. Within 4 minutes.
bench-aggregate: bench-setup
	benches/run.py bench --quick --only aggregate --out target/bench-aggregate.md

# What forebay load, wrk, hey, h2load and oha say about latencies that are known. Within 3 minutes.
bench-truth: bench-setup-oha
	benches/run.py bench --only truth --out target/bench-truth.md

# The highest rate that forebay load, h2load, hey and oha hold on one core, beside wrk, and how late releases are. Within 5 minutes.
bench-rate: bench-setup-oha
	benches/run.py bench --quick --only rate --out target/bench-rate.md

# What a scrape of 10,000 series costs, and what scrapes and viewers of the page do to the requests beside it. Within 4 minutes.
bench-scrape: bench-setup
	benches/run.py bench --only scrape --out target/bench-scrape.md

# Instructions and allocations for a request against benches/baseline.json; after a wanted change: benches/run.py gate --update
bench-gate: bench-setup
	benches/run.py gate
