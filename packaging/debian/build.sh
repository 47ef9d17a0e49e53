#!/usr/bin/env bash
# Makes the Debian package from a built binary: packaging/debian/build.sh BINARY SBOM FOLDER
# Dates and owners are fixed, so the same binary gives the same package. Whoever publishes it says who that is: MAINTAINER.
set -euo pipefail
binary=$(realpath "$1") sbom=$(realpath "$2") folder=$(realpath "$3")
cd "$(dirname "$0")/../.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
architecture=$(dpkg --print-architecture)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
maintainer=${MAINTAINER:-The authors of Forebay <forebay@localhost>}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

put() { install -D -m "$1" "$2" "$tree/$3"; }
doc=usr/share/doc/forebay

put 755 "$binary" usr/bin/forebay
put 644 packaging/debian/forebay.toml etc/forebay/forebay.toml
for unit in forebay.service forebay.socket; do put 644 "packaging/systemd/$unit" "lib/systemd/system/$unit"; done

put 644 packaging/debian/copyright "$doc/copyright"
put 644 "$sbom" "$doc/forebay.cdx.json"
put 644 CHANGELOG.md "$doc/CHANGELOG.md"
put 644 config/default.toml "$doc/default.toml"
for document in operations runbooks; do put 644 "docs/$document.md" "$doc/$document.md"; done
cp -r config/examples "$tree/$doc/examples"
for file in dashboards/*.json dashboards/rules/*.yaml; do put 644 "$file" "usr/share/forebay/$file"; done

mkdir -p "$tree/usr/share/man/man1"
"$binary" man --out "$tree/usr/share/man/man1"
mkdir -p "$tree"/usr/share/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
"$binary" completions bash >"$tree/usr/share/bash-completion/completions/forebay"
"$binary" completions zsh >"$tree/usr/share/zsh/vendor-completions/_forebay"
"$binary" completions fish >"$tree/usr/share/fish/vendor_completions.d/forebay.fish"
cat >"$tree/$doc/changelog" <<CHANGELOG
forebay ($version) unstable; urgency=medium

  * CHANGELOG.md beside this file says what is new.

 -- $maintainer  $(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
CHANGELOG
gzip -9n "$tree"/usr/share/man/man1/* "$tree/$doc/changelog"

mkdir "$tree/DEBIAN"
for script in postinst prerm postrm; do put 755 "packaging/debian/$script" "DEBIAN/$script"; done
echo /etc/forebay/forebay.toml >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: forebay
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -k --apparent-size -s "$tree" | cut -f1)
Recommends: ca-certificates
Pre-Depends: init-system-helpers (>= 1.54~)
Section: net
Priority: optional
Description: reverse proxy and load-testing sidecar for slow HTTP services
 Forebay stands in front of slow HTTP services. It bounds every request by a
 deadline, rates and limits on requests in flight, answers one request from
 many services at once, and says why each request ended and where its time
 went. It also simulates slow services and loads them.
CONTROL
chmod -R u=rwX,go=rX "$tree"
find "$tree" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
(cd "$tree" && find . -type f ! -path "./DEBIAN/*" -printf "%P\0" | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group --build "$tree" "$folder/forebay_${version}_$architecture.deb" >/dev/null
