#!/usr/bin/env bash
# Installs what `make bench` needs beside a Rust toolchain, and builds Forebay and the comparators for release. With `oha`, that
# load generator as well: Debian has no package of it, and building it takes some eight minutes, once.
#
# nginx and HAProxy are only ever run by the harness, on loopback: their packages must not start services. Debian asks
# `policy-rc.d` before it starts anything; where there is none, one that says no stands in for the installation.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
for tool in nginx haproxy wrk hey valgrind cmake; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
command -v h2load >/dev/null || missing+=(nghttp2-client)

if ((${#missing[@]})); then
    command -v apt-get >/dev/null || { echo "error: install ${missing[*]} by hand: there is no apt-get here" >&2; exit 1; }
    as_root=()
    ((EUID == 0)) || as_root=(sudo)
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    # Nor at the next boot.
    if [[ -d /run/systemd/system ]]; then
        "${as_root[@]}" systemctl disable --quiet nginx haproxy 2>/dev/null || true
    fi
fi

oha=1.16.0
if [[ ${1:-} == oha && $(target/tools/oha/bin/oha --version 2>/dev/null) != "oha $oha" ]]; then
    cargo install oha --version "$oha" --locked --root target/tools/oha
fi

# The Python aggregator runs on what the test services run on.
scripts/setup.sh python
cargo build --release --locked
cargo build --release --locked --manifest-path benches/comparators/Cargo.toml
