#!/usr/bin/env bash
# Installs the package in target/package into a clean tree with dpkg itself, starts the binary from there, changes the
# configuration as an operator would, upgrades, removes and purges. Needs root; systemd is not started (the units are, in
# tests/it/e2e/systemd.rs).
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(target/package/forebay_*.deb)
[ ${#packages[@]} = 1 ] && [ -f "${packages[0]}" ] || { echo "one package in target/package is wanted: make package" >&2; exit 1; }
package=$(realpath "${packages[0]}")
# A clean Debian has its tables and its essential packages; here their names are enough.
tree=$(mktemp -d)
started=
end() {
  [ -z "$started" ] || kill "$started" 2>/dev/null || true
  wait
  rm -rf "$tree"
}
trap end EXIT
say() { echo "package test: $*"; }
fail() {
  echo "package test: FAILED: $*" >&2
  exit 1
}

mkdir -p "$tree"/var/lib/dpkg/{info,updates,triggers} "$tree/bin" "$tree/dev"
mknod -m 666 "$tree/dev/random" c 1 8
mknod -m 666 "$tree/dev/urandom" c 1 9
touch "$tree/var/lib/dpkg/available" "$tree/var/lib/dpkg/info/init-system-helpers.list"
cat >"$tree/var/lib/dpkg/status" <<STATUS
Package: init-system-helpers
Status: install ok installed
Maintainer: nobody
Architecture: all
Version: 1.65
Description: what the scripts of packages call

STATUS
# The maintainer scripts run in the tree, so it needs a shell and rm.
for program in /bin/sh /bin/rm; do
  cp "$program" "$tree/bin/"
  ldd "$program" | grep -o '/[^ ]*' | while read -r library; do install -D "$library" "$tree$library"; done
done
dpkg() { command dpkg --root="$tree" --force-not-root --force-confold --log=/dev/null "$@"; }

say "lintian"
command -v lintian >/dev/null || { echo "lintian is missing: scripts/setup.sh package" >&2; exit 1; }
# The first two: whoever publishes the package has an address. The last is wrong about a static executable.
lintian --allow-root --fail-on error,warning \
  --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,shared-library-lacks-prerequisites "$package"

dpkg --install "$package" >/dev/null
[ "$(dpkg-query --admindir="$tree/var/lib/dpkg" -W -f='${Conffiles}' forebay | grep -c forebay.toml)" = 1 ] ||
  fail "the configuration is no conffile"
(cd "$tree" && md5sum --quiet -c var/lib/dpkg/info/forebay.md5sums)
for file in usr/bin/forebay etc/forebay/forebay.toml lib/systemd/system/forebay.service lib/systemd/system/forebay.socket \
  usr/share/doc/forebay/copyright usr/share/doc/forebay/examples/slow-api.toml usr/share/forebay/dashboards/overview.json \
  usr/share/man/man1/forebay-run.1.gz usr/share/zsh/vendor-completions/_forebay \
  usr/share/bash-completion/completions/forebay usr/share/fish/vendor_completions.d/forebay.fish; do
  [ -s "$tree/$file" ] || fail "$file is not there"
done
bash -n "$tree/usr/share/bash-completion/completions/forebay"
man --warnings -l "$tree/usr/share/man/man1/forebay.1.gz" 2>&1 >/dev/null | grep . && fail "the manual page has mistakes"
say "installed; $(stat -c %s "$package") bytes"

# From the tree, with nothing else in it: the binary needs no library of the machine.
in_tree() { chroot "$tree" /usr/bin/forebay "$@"; }
in_tree check -c /etc/forebay/forebay.toml >/dev/null
sed -i 's/127.0.0.1:8080/127.0.0.1:0/; s/127.0.0.1:9901/127.0.0.1:0/' "$tree/etc/forebay/forebay.toml"
chroot "$tree" /usr/bin/forebay run -c /etc/forebay/forebay.toml >"$tree/access.log" 2>"$tree/log" &
started=$!
for _ in $(seq 300); do
  address=$(sed -n 's|.*http://\([0-9.:]*\) (main).*|\1|p' "$tree/log")
  [ -z "$address" ] || break
  kill -0 "$started" || fail "it ended: $(cat "$tree/log")"
  sleep 0.1
done
[ "$(curl -s "http://$address/ping")" = pong ] || fail "no pong from $address: $(cat "$tree/log")"
kill -TERM "$started"
wait "$started" || fail "it ended with $?"
started=
say "the binary serves from the tree"

dpkg --install "$package" >/dev/null
grep -q '127.0.0.1:0' "$tree/etc/forebay/forebay.toml" || fail "an upgrade has overwritten the configuration"
dpkg --remove forebay >/dev/null
[ -e "$tree/etc/forebay/forebay.toml" ] && [ ! -e "$tree/usr/bin/forebay" ] || fail "removing keeps the configuration and nothing else"
dpkg --purge forebay >/dev/null
[ ! -e "$tree/etc/forebay" ] || fail "purging leaves the configuration"
say "an upgrade keeps the changed configuration, purging takes it"
say "passed"
