#!/usr/bin/env bash
# Builds the image from target/package/image and runs it as a careful operator would: as an unprivileged user, with a
# read-only root, all capabilities dropped and no new privileges. It has to serve, find its upstream by name, tell its
# health, take a changed file with and without a signal, refuse a wrong one, and drain.
#
# buildah and podman without a daemon, as root; the options that need explaining are those of a machine that cannot set
# limits or make cgroups, and change nothing that is tested. podman's own health timer needs systemd, so the health check
# is run by hand.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
storage=(--storage-driver vfs --root "$work/storage" --runroot "$work/run")
# No port of this machine is taken: nobody else uses this address.
host=127.67.$(($$ / 250 % 250 + 1)).$(($$ % 250 + 1))
image=localhost/forebay:test
restricted=(--read-only --cap-drop=all --security-opt no-new-privileges --network host)
here=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --no-healthcheck --cgroups=no-conmon --cgroupns host)

podman() { command podman "${storage[@]}" --runtime runc --cgroup-manager cgroupfs "$@"; }
say() { echo "image test: $*"; }
fail() {
  echo "image test: FAILED: $*" >&2
  cat "$work"/*.log >&2 || true
  exit 1
}

end() {
  podman kill --all >/dev/null 2>&1 || true
  wait
  rm -rf "$work"
}
trap end EXIT

# Waits until the command succeeds; after 30 s it says what did not come about.
eventually() {
  local what=$1
  shift
  for _ in $(seq 300); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "after 30 s, this has not come about: $what"
}

status_is() { [ "$(curl -s -o /dev/null -w '%{http_code}' "http://$host:8080$1")" = "$2" ]; }

for program in buildah podman runc curl; do
  command -v "$program" >/dev/null || { echo "$program is missing: scripts/setup.sh package" >&2; exit 1; }
done

say "building"
buildah "${storage[@]}" bud --quiet --isolation chroot --format docker \
  --ignorefile packaging/docker/Dockerfile.dockerignore --build-arg VERSION=test --tag "$image" \
  --file packaging/docker/Dockerfile target/package/image >/dev/null
podman image inspect "$image" >"$work/image.json"
for wanted in '"User": "65532:65532"' '"org.opencontainers.image.licenses": "Apache-2.0"' '"/usr/bin/forebay"'; do
  grep -qF "$wanted" "$work/image.json" || fail "the image does not say $wanted"
done
say "its size is $(podman image inspect --format '{{.Size}}' "$image") bytes"

mkdir "$work/etc"
cat >"$work/etc/upstreams.toml" <<TOML
[upstream.slow]
address = "127.0.0.1:0"
latency = "100ms"
status  = 203
TOML
podman run --rm --name forebay-simulate "${restricted[@]}" "${here[@]}" --volume "$work/etc:/etc/forebay:ro" "$image" \
  simulate -c /etc/forebay/upstreams.toml >"$work/simulate.log" 2>&1 &
eventually "the simulated service says where it is" grep -q '(slow)' "$work/simulate.log"
port=$(sed -n 's|http://127.0.0.1:\([0-9]*\) (slow)|\1|p' "$work/simulate.log")

# `localhost` is looked up by the C library, which is in the binary.
config() {
  cat <<TOML
[listener]
address = "$host:8080"
[admin]
address = "$host:9901"
token   = { file = "/etc/forebay/token" }
[shutdown]
accept_grace = "0s"
[upstream.slow]
endpoints = ["localhost:$port"]
[route.slow]
path     = "/slow"
upstream = "slow"
[route.own]
path    = "/own"
respond = { status = $1 }
TOML
}
echo secret >"$work/etc/token"
config 201 >"$work/etc/forebay.toml"
chmod -R a+rX "$work"
podman run --rm --name forebay-run "${restricted[@]}" "${here[@]}" --volume "$work/etc:/etc/forebay:ro" "$image" \
  >"$work/run.log" 2>&1 &
run=$!
health=(podman exec forebay-run /usr/bin/forebay healthcheck -c /etc/forebay/forebay.toml)
eventually "the health check is content" "${health[@]}"
say "it serves"
status_is /own 201 || fail "its own answer"
status_is /slow 203 || fail "the answer of the upstream behind a name"

process=$(podman inspect --format '{{.State.Pid}}' forebay-run)
user=$(awk '/^Uid:/ { print $2 }' "/proc/$process/status")
capabilities=$(awk '/^CapBnd:/ { print $2 }' "/proc/$process/status")
[ "$user" = 65532 ] || fail "its user is $user"
[ "$capabilities" = 0000000000000000 ] || fail "it has the capabilities $capabilities"
awk '$5 == "/" && $6 ~ /^ro(,|$)/ { found = 1 } END { exit !found }' "/proc/$process/mountinfo" || fail "its root is not read-only"
say "as user $user, without capabilities, with a read-only root"

config 202 >"$work/etc/forebay.toml"
eventually "the changed file is taken" status_is /own 202
config 205 | sed 's/respond/resopnd/' >"$work/etc/forebay.toml"
podman kill --signal HUP forebay-run >/dev/null
eventually "the wrong file is refused" grep -q 'did you mean `respond`' "$work/run.log"
status_is /own 202 || fail "a wrong file has changed something"
"${health[@]}" >/dev/null || fail "a wrong file is no reason to be restarted"
config 204 >"$work/etc/forebay.toml"
podman kill --signal HUP forebay-run >/dev/null
eventually "the mended file is taken" status_is /own 204
say "it reloads, and refuses a wrong file"

podman kill --signal TERM forebay-run >/dev/null
code=0
wait "$run" || code=$?
[ "$code" = 0 ] || fail "it ended with $code"
grep -q 'every request has ended' "$work/run.log" || fail "it did not drain"
say "it drains and ends with 0"
say "passed"
