# The targets people type; the build server types them too.
.PHONY: setup run test check
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
