# The targets people type; the build server types them too.
.PHONY: setup run test check bench bench-quick bench-gate bench-setup
CARGO ?= cargo

run: setup
	$(CARGO) run --release --locked -- demo

setup:
	scripts/setup.sh

check: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

test: check
	$(CARGO) test --locked

# Installs nginx, HAProxy, wrk and valgrind (their services are not started) and builds for release.
bench-setup:
	scripts/bench-setup.sh

# Beside nginx, HAProxy, bare pingora and a byte forwarder; writes benches/results.md. Within 15 minutes; bench-quick within 3.
bench: bench-setup
	benches/run.py bench

bench-quick: bench-setup
	benches/run.py bench --quick

# Instructions and allocations for a request against benches/baseline.json; after a wanted change: benches/run.py gate --update
bench-gate: bench-setup
	benches/run.py gate
