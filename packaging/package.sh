#!/usr/bin/env bash
# Builds what is shipped, into target/package: a static binary, the folder that the image is built from, the Debian
# package, the list of what is inside (CycloneDX) and checksums.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
[ "$(rustc -vV | sed -n 's/^host: //p')" = "$target" ] || { echo "packages are built on $target only" >&2; exit 1; }
out=target/package
rm -rf "$out"
mkdir -p "$out/image"

# No path of this machine gets into the binary, which makes it the same wherever it is built with the same compiler.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$cargo_home/registry/src= --remap-path-prefix=$PWD="
cargo build --release --locked --target "$target"
binary=$out/image/forebay
cp "target/$target/release/forebay" "$binary"
# The symbols, for `perf` and the lines of a panic, are a file of their own.
objcopy --only-keep-debug "$binary" "$out/forebay.debug"
strip --strip-all "$binary"
(cd "$out/image" && objcopy --add-gnu-debuglink=../forebay.debug forebay)
if readelf --dynamic "$binary" | grep -q NEEDED; then
  echo "the binary is not static" >&2
  exit 1
fi

sbom=$out/forebay.cdx.json
# It is written beside Cargo.toml, whatever else is wished.
trap 'rm -f forebay-sbom.json' EXIT
PATH=$PWD/target/tools/bin:$PATH cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$target" \
  --override-filename forebay-sbom
sed "s|path+file://$PWD#|#|" forebay-sbom.json >"$sbom"

cp LICENSE "$out/image/"
cp /etc/ssl/certs/ca-certificates.crt "$out/image/"
packaging/debian/build.sh "$binary" "$sbom" "$out"
(cd "$out" && sha256sum image/forebay ./*.deb ./*.json >SHA256SUMS)
(cd "$out" && ls -l . image)
