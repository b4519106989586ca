# `make demo` shows the plugin at work; `make test` checks everything. Both install libudev-dev if it is
# missing (needs root), or print what to install.

CARGO ?= cargo

.PHONY: help setup test-tools demo build man test fmt-check lint unit doc fuzz-check e2e arm64 bench fuzz

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## Install missing build requirements (libudev-dev, pkg-config, udev)
	@sh .ci/setup

test-tools: ## Download helm, kubectl, promtool, shellcheck and actionlint into target/tools, for tests
	@sh .ci/test-tools

demo: setup ## Run the plugin against an embedded kubelet on a machine with 16 chips
	$(CARGO) run --quiet --locked -- demo

build: setup ## Build the release binary, as the image has it where qemu-user and lld are installed
	@sh .ci/build-release

man: setup ## Write the man pages into target/man
	mkdir -p target/man
	$(CARGO) run --quiet --locked -- man target/man

test: setup test-tools fmt-check lint unit doc fuzz-check ## Check everything: format, lints, tests, documentation

fmt-check:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- --deny warnings

# The tests unpack whole machines, thousands of small files: in memory where there is /dev/shm.
unit:
	@if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi; \
	set -x; $(CARGO) test --locked

doc:
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --locked --no-deps --document-private-items

# libFuzzer is C++: without a C++ compiler the fuzz targets are skipped, with a message.
fuzz-check:
	@if command -v c++ >/dev/null; then \
	  $(CARGO) check --manifest-path fuzz/Cargo.toml --target-dir target/fuzz-check; \
	else \
	  echo 'fuzz targets not checked: there is no C++ compiler (c++)'; \
	fi

e2e: ## Prove on the cluster of kubectl that the plugin works: IMAGE=..., NODE=... (tests/e2e/run --help)
	@IMAGE='$(IMAGE)' NODE='$(NODE)' tests/e2e/run

arm64: ## Cross-build for arm64, and run the unit tests under qemu (needs Debian)
	@sh .ci/setup-arm64
	@sh .ci/arm64

bench: setup ## Run the benchmarks; README.md has results
	$(CARGO) bench --locked

fuzz: setup ## Fuzz every parser for two minutes each (needs cargo-fuzz)
	for target in $$(cargo fuzz list); do \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target -- -max_total_time=120 || exit 1; \
	done
