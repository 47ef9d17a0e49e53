#!/usr/bin/env bash
# Builds the fuzz targets and runs each for a while, on the stable toolchain:
#   fuzz/run.sh [seconds for each target, 60] [target ...]
# New inputs land in fuzz/target/corpus, crashes in fuzz/artifacts; fuzz/corpus holds the committed seeds, which
# `cargo test` runs, too. Put a crash there once it is mended.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60}
shift || true
all=(path request_head http2_head response_head chunked forwarded config aggregate_template aggregate_merge)
targets=("$@")
[ ${#targets[@]} -eq 0 ] && targets=("${all[@]}")

# Coverage and address checks are unstable options, which the stable compiler knows as well. An explicit --target keeps
# them away from build scripts.
export RUSTC_BOOTSTRAP=1
triple=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions"
build="${CARGO_TARGET_DIR:-target}"
cargo build --locked --target "$triple" --target-dir "$build"

for target in "${targets[@]}"; do
  mkdir -p "target/corpus/$target" artifacts
  "$build/$triple/debug/$target" -max_total_time="$seconds" -max_len=4096 -timeout=5 -print_final_stats=1 \
    -artifact_prefix="artifacts/$target-" "target/corpus/$target" "corpus/$target"
done
